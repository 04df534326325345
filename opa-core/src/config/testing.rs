//! What the tests of this module share.

use super::{Config, ConfigError, Document, EnvPolicy, Template};

/// `A` is `1`, `EMPTY` is set but empty, `UNSET` is allowed but unset.
pub(crate) fn env() -> EnvPolicy {
    env_with("1")
}

/// Like [`env`], with another value of `A`.
pub(crate) fn env_with(a: &str) -> EnvPolicy {
    let a = a.to_owned();
    EnvPolicy::allow(["A", "EMPTY", "UNSET"]).with_lookup(move |name| match name {
        "A" => Some(a.clone().into()),
        "EMPTY" => Some("".into()),
        _ => None,
    })
}

/// The text, filled for the app `orders`.
pub(crate) fn render(text: &str) -> Result<Document, ConfigError> {
    Template::parse("opa.yaml", text)?.render("orders", &env())
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    render(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .to_json()
}

pub(crate) fn render_error(text: &str) -> ConfigError {
    match render(text) {
        Ok(_) => panic!("{text:.200}: accepted"),
        Err(error) => error,
    }
}

/// The configuration of the app `orders`.
pub(crate) fn config(text: &str) -> Config {
    Template::parse("opa.yaml", text)
        .and_then(|template| template.config("orders", &env()))
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn config_error(text: &str) -> ConfigError {
    let template = Template::parse("opa.yaml", text).unwrap();
    match template.config("orders", &env()) {
        Ok(config) => panic!("{text}: accepted as {config:?}"),
        Err(error) => error,
    }
}

/// The messages of the configuration's warnings.
pub(crate) fn warnings(text: &str) -> Vec<String> {
    config(text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect()
}
