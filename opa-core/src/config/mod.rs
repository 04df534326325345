//! Configuration in OPA's file format, one template for all apps.
//!
//! A [`Template`] is read once from a file written for OPA: YAML 1.2, and so JSON too. It is
//! filled for each app, and the result is read into a [`Config`].
//!
//! ```
//! use opa_core::config::{BundleSource, EnvPolicy, Template};
//!
//! let template = Template::parse(
//!     "opa.yaml",
//!     r#"
//! services:
//!   acmecorp:
//!     url: https://${CONTROL_PLANE}/v1
//!     credentials:
//!       bearer: {token_path: /run/secrets/token}
//! bundles:
//!   authz:
//!     resource: bundles/{{ .bundlename }}.tar.gz
//! labels: {region: eu}
//! "#,
//! )?;
//!
//! let env = EnvPolicy::allow(["CONTROL_PLANE"]).with_lookup(|_| Some("opa.acmecorp.test".into()));
//! let orders = template.config("orders", &env)?;
//! assert_eq!(orders.services[0].url, "https://opa.acmecorp.test/v1");
//! assert_eq!(
//!     orders.bundles[0].source,
//!     BundleSource::Service {
//!         service: "acmecorp".to_owned(),
//!         resource: "bundles/orders.tar.gz".to_owned(),
//!     },
//! );
//!
//! // Without the permission to read the variable there is no service to talk to.
//! let error = template.config("orders", &EnvPolicy::default()).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "opa.yaml:4:18: services.acmecorp.url: environment variable `CONTROL_PLANE` is not on the \
//!      list of variables that may be read",
//! );
//! # Ok::<(), opa_core::config::ConfigError>(())
//! ```
//!
//! # Nothing is accepted and ignored
//!
//! An option that OPA doesn't know is a [`Warning`] in OPA's words; one that differs from a known
//! name by case alone is an error, since OPA would act on it. An option that OPA knows and this
//! version doesn't act on is an error of the kind [`ConfigErrorKind::Unsupported`].
//!
//! A file without `bundles` means one bundle named after the app, from the first service, with
//! the resource `bundles/<app>`; one without `services` too means no bundle at all.
//!
//! # Placeholders
//!
//! | text | becomes |
//! | --- | --- |
//! | `{{ .bundlename }}` | the app (as in Skipper) |
//! | `${NAME}`, `{{ .Env.NAME }}` | an environment variable that the [`EnvPolicy`] allows (as in OPA and Skipper) |
//!
//! Unlike in OPA and Skipper, a placeholder is filled in after the YAML was parsed, so no value
//! can change the structure of the document:
//!
//! - They are found in scalars and keys, quoted or not. In comments they are not looked at.
//! - An unquoted scalar is typed after filling: `port: ${PORT}` is a number, an app called `123`
//!   too, so put `"{{ .bundlename }}"` in quotes. It never becomes an object or an array. A
//!   quoted scalar stays a string.
//! - Values are not searched for further placeholders.
//! - A variable that is set to nothing is the empty string. One that is unset or forbidden is an
//!   error within `services`, `keys` and anything called `credentials`; elsewhere the
//!   placeholder stays as it is, as in OPA, with a warning.
//! - Any other `{{ … }}` is an error. `{{-` and `-}}` trim white space as in Go.
//!
//! # Overrides
//!
//! [`Overrides`] are put over a file as OPA's `--set` and `--set-file` are: after placeholders are
//! filled, and before options are read. A placeholder of the file that has no value is an error even
//! where an override takes its place.
//!
//! # Differences from OPA's YAML
//!
//! Where OPA's reading of a text is doubtful, ours is an error: a key defined twice (OPA takes the
//! last), a second document (OPA drops it), an unquoted number with a leading zero (octal in OPA),
//! tags outside the core schema, and characters such as U+0085 that OPA takes for line breaks. A
//! file has at most 10 MB, 128 levels and 10,000 placeholders.
//!
//! # Plugins
//!
//! A plugin reads its [`Section`] with a [`Reader`], whose errors name the file, the position and
//! the path:
//!
//! ```
//! use opa_core::config::{ConfigError, Section, Warning};
//!
//! /// Reads `decision_logs`.
//! fn console(section: &Section) -> Result<(bool, Vec<Warning>), ConfigError> {
//!     let mut reader = section.reader()?;
//!     let console = reader.bool("console")?.unwrap_or(false);
//!     if let Some(reporting) = reader.object("reporting")? {
//!         // Known to OPA, not to this plugin.
//!         return Err(reporting.error("reporting needs a service"));
//!     }
//!     reader.unsupported("mask_decision")?;
//!     Ok((console, reader.finish()?))
//! }
//!
//! let section = Section::from_json("decision_logs", &serde_json::json!({"console": 1}));
//! assert_eq!(
//!     console(&section).unwrap_err().to_string(),
//!     "decision_logs.console: expected a boolean, found a number",
//! );
//! ```

mod bundle;
mod credentials;
mod document;
mod duration;
mod env;
mod envoy;
mod error;
mod field;
mod keys;
mod load;
mod local_path;
mod node;
mod polling;
mod reader;
mod s3_signing;
mod section;
mod service;
mod template;
#[cfg(test)]
pub(crate) mod testing;

pub use bundle::{BundleConfig, BundleSource};
pub use credentials::{BearerConfig, BearerToken, ClientTlsConfig, CredentialsConfig, Secret};
pub use document::Document;
pub use env::EnvPolicy;
#[cfg(feature = "s3")]
pub(crate) use env::Lookedup;
pub use envoy::EnvoyConfig;
pub use error::{ConfigError, ConfigErrorKind, Position, Warning};
pub use field::Field;
pub use keys::{KeyAlgorithm, KeyConfig, SigningConfig};
pub use load::{Config, PersistenceDirectory};
pub use polling::PollingConfig;
pub use reader::Reader;
pub use s3_signing::{S3Keys, S3SigningConfig};
pub use section::Section;
pub use service::{ServerTlsConfig, ServiceConfig, ServiceKind};
pub(crate) use template::read_bounded;
pub use template::{Overrides, Template};
