//! Configuration in OPA's file format, one template for all apps.

mod bundle;
mod credentials;
mod duration;
mod env;
mod envoy;
mod error;
mod field;
mod load;
mod local_path;
mod node;
mod path;
mod polling;
mod reader;
mod section;
mod service;

pub use bundle::{BundleConfig, BundleSource};
pub use credentials::{BearerConfig, BearerToken, CredentialsConfig, Secret};
pub use env::EnvPolicy;
pub use envoy::EnvoyConfig;
pub use error::{ConfigError, ConfigErrorKind, Position, Warning};
pub use field::Field;
pub use load::{Config, PersistenceDirectory};
pub use path::{DecisionPath, DecisionPathError};
pub use polling::PollingConfig;
pub use reader::Reader;
pub use section::Section;
pub use service::{ServerTlsConfig, ServiceConfig};
