//! Output types of the decision log: [`File`], [`S3`] and, with the feature `otlp`, `Otlp`.
//!
//! Each reads its own options; what the pipeline does before it (masks, batches, retries) has its
//! options beside them.
//!
//! ```
//! use opa_plugins::decision_logs::output::OutputType;
//! use opa_plugins::decision_logs::outputs::{File, S3};
//!
//! let types: [(&str, Box<dyn OutputType>); 2] =
//!     [("file", Box::new(File::default())), ("s3", Box::new(S3::default()))];
//! # drop(types);
//! ```

mod file;
#[cfg(feature = "otlp")]
mod otlp;
mod s3;

use std::collections::HashSet;

use opa_core::config::{ConfigError, Reader, Warning};
use opa_core::service::Posted;
use parking_lot::Mutex;

use super::output::OutputError;

pub use file::File;
#[cfg(feature = "otlp")]
pub use otlp::Otlp;
pub use s3::S3;

/// What a type warned about: the same section is read for every app.
#[derive(Debug, Default)]
struct Warned(Mutex<HashSet<String>>);

impl Warned {
    fn about(&self, warnings: impl IntoIterator<Item = Warning>) {
        for warning in warnings {
            let warning = warning.to_string();
            if self.0.lock().insert(warning.clone()) {
                tracing::warn!(target: "opa::config", "{warning}");
            }
        }
    }
}

/// An option that is a count of at least one.
fn count(reader: &mut Reader<'_>, key: &'static str) -> Result<Option<u64>, ConfigError> {
    let Some(field) = reader.field(key) else {
        return Ok(None);
    };
    let number = field.as_i64()?;
    match u64::try_from(number) {
        Ok(count) if count > 0 => Ok(Some(count)),
        _ => Err(field.error(format!("expected 1 or more, found `{number}`"))),
    }
}

/// Of an answer over HTTP what the pipeline wants to know.
fn answered(answer: &Posted) -> Result<(), OutputError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let mut error = OutputError::new(format!("server replied with HTTP {}", answer.status));
    error.http_code = Some(answer.status.as_u16());
    error.retry_after = answer.retry_after();
    Err(error)
}

#[cfg(test)]
mod testing {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use opa_core::Manager;
    use opa_core::config::{ConfigError, Section};
    use opa_core::plugin::{Attached, Plugin, Scope};
    use opa_core::service::ServiceClient;

    use super::super::output::{Output, OutputType};

    /// What a plugin is given, handed to `look`.
    struct Looks<F>(F);

    impl<F: Fn(&Scope<'_>) + Send + Sync + 'static> Plugin for Looks<F> {
        fn name(&self) -> &str {
            "looks"
        }

        fn claims(&self, _: &str) -> bool {
            true
        }

        fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
            (self.0)(scope);
            Ok(Attached::default())
        }
    }

    fn within<T: Send + 'static>(look: impl Fn(&Scope<'_>) -> T + Send + Sync + 'static) -> T {
        let (sender, seen) = mpsc::channel();
        // An app may be attached again when nobody looks any more.
        let plugin = Looks(move |scope: &Scope<'_>| drop(sender.send(look(scope))));
        let config = "services: {store: {url: 'http://127.0.0.1:1/bucket'}}";
        let manager = Manager::builder().config_yaml(config).plugin(plugin);
        let manager = manager.build().unwrap();
        let _app = manager.app("shop").unwrap();
        seen.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// What a type answers to a section, in an app with a service `store` where nobody listens.
    pub(super) fn open(
        output_type: impl OutputType,
        section: &str,
    ) -> Result<Arc<dyn Output>, ConfigError> {
        let section = serde_json::from_str(section).unwrap();
        let section = Section::from_json("output", &section);
        within(move |scope| output_type.open(&section, scope))
    }

    pub(super) fn service() -> ServiceClient {
        within(|scope| scope.service("store").unwrap())
    }
}
