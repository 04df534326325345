//! What the types share.

use std::collections::HashSet;

use opa_core::config::{ConfigError, Reader, Warning};
use opa_core::service::Posted;
use parking_lot::Mutex;

use super::super::output::OutputError;

/// What a type warned about: the same section is read for every app.
#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<HashSet<String>>);

impl Warned {
    pub(super) fn about(&self, warnings: impl IntoIterator<Item = Warning>) {
        for warning in warnings {
            let warning = warning.to_string();
            if self.0.lock().insert(warning.clone()) {
                tracing::warn!(target: "opa::config", "{warning}");
            }
        }
    }
}

/// An option that is a count of at least one.
pub(super) fn count(
    reader: &mut Reader<'_>,
    key: &'static str,
) -> Result<Option<u64>, ConfigError> {
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
pub(super) fn answered(answer: &Posted) -> Result<(), OutputError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let mut error = OutputError::new(format!("server replied with HTTP {}", answer.status));
    error.http_code = Some(answer.status.as_u16());
    error.retry_after = answer.retry_after();
    Err(error)
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use opa_core::Manager;
    use opa_core::config::{ConfigError, Section};
    use opa_core::plugin::{Attached, Plugin, Scope};
    use opa_core::service::ServiceClient;

    use super::super::super::output::{Output, OutputType};

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
    pub(in super::super) fn open(
        output_type: impl OutputType,
        section: &str,
    ) -> Result<Arc<dyn Output>, ConfigError> {
        let section = serde_json::from_str(section).unwrap();
        let section = Section::from_json("output", &section);
        within(move |scope| output_type.open(&section, scope))
    }

    pub(in super::super) fn service() -> ServiceClient {
        within(|scope| scope.service("store").unwrap())
    }
}
