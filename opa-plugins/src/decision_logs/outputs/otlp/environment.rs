//! OpenTelemetry's variables ("OpenTelemetry Protocol Exporter", "Environment Variable
//! Specification").

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// Where variables are looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment(pub(super) fn(&str) -> Option<String>);

impl Default for Environment {
    fn default() -> Self {
        Self(|name| std::env::var(name).ok())
    }
}

/// A variable that is set, with its name for errors.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

impl Environment {
    /// A variable; one that is empty is none.
    pub(super) fn get(self, name: &str) -> Option<Variable> {
        let value = (self.0)(name)?.trim().to_owned();
        let name = name.to_owned();
        (!value.is_empty()).then_some(Variable { name, value })
    }

    /// `OTEL_EXPORTER_OTLP_LOGS_<option>`.
    pub(super) fn of_logs(self, option: &str) -> Option<Variable> {
        self.get(&format!("OTEL_EXPORTER_OTLP_LOGS_{option}"))
    }

    /// `OTEL_EXPORTER_OTLP_<option>`.
    pub(super) fn of_all(self, option: &str) -> Option<Variable> {
        self.get(&format!("OTEL_EXPORTER_OTLP_{option}"))
    }

    /// The one for logs, else the one for all signals.
    pub(super) fn option(self, option: &str) -> Option<Variable> {
        self.of_logs(option).or_else(|| self.of_all(option))
    }
}

impl Variable {
    /// `name=value` pairs between commas, values encoded as in URLs.
    pub(super) fn pairs(&self) -> Result<BTreeMap<String, String>, String> {
        let mut pairs = BTreeMap::new();
        for pair in self.value.split(',').filter(|pair| !pair.trim().is_empty()) {
            // Values may be secrets: they are not shown.
            let wrong = || format!("{}: expected `name=value` pairs", self.name);
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = percent_decode_str(value.trim()).decode_utf8();
            let value = value.map_err(|_| wrong())?.into_owned();
            pairs.insert(name.trim().to_owned(), value);
        }
        Ok(pairs)
    }
}
