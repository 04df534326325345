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
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod s3;

use std::collections::HashMap;
use std::sync::Arc;

use opa_core::config::{Config, ConfigError, Section};
use opa_core::engine::EntrypointPath;
use opa_core::plugin::Scope;

use super::config::{Batching, DecisionLogsConfig};
use super::output::{Output, OutputType};

pub use file::File;
#[cfg(feature = "otlp")]
pub use otlp::Otlp;
pub use s3::S3;

/// An output of one app, with what the pipeline does before it.
#[derive(Clone, Debug)]
pub(super) struct OutputSpec {
    /// What it is called in counters. An app has each name once.
    pub(super) name: Arc<str>,
    pub(super) output: Arc<dyn Output>,
    pub(super) policies: Policies,
    pub(super) batching: Batching,
    /// The most bytes of events that wait for it; `None` for no limit but that of the process.
    pub(super) buffer_bytes: Option<usize>,
}

/// The policies on logs of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) drop_decision: EntrypointPath,
    pub(super) mask_decision: EntrypointPath,
}

/// The types by the names that they are registered under.
#[derive(Clone, Debug, Default)]
pub(super) struct OutputTypes(HashMap<Arc<str>, Arc<dyn OutputType>>);

/// Reads one section that describes several outputs. The policies are those of `decision_logs`,
/// for outputs without their own.
type Composite =
    fn(&Section, &Scope<'_>, &OutputTypes, &Policies) -> Result<Vec<OutputSpec>, ConfigError>;

/// The plugins that stand for several outputs, by their names in `plugins`.
const COMPOSITES: [(&str, Composite); 0] = [];

fn composite(name: &str) -> Option<Composite> {
    let found = COMPOSITES.iter().find(|(known, _)| *known == name);
    found.map(|(_, read)| *read)
}

impl Policies {
    /// Those of `decision_logs`.
    pub(super) fn of(config: &DecisionLogsConfig) -> Self {
        Self {
            drop_decision: config.drop_decision.clone(),
            mask_decision: config.mask_decision.clone(),
        }
    }
}

impl OutputTypes {
    pub(super) fn add(&mut self, name: &str, output_type: Arc<dyn OutputType>) {
        self.0.insert(name.into(), output_type);
    }

    /// Whether `plugins.<name>` is an output's configuration.
    pub(super) fn claims(&self, name: &str) -> bool {
        self.0.contains_key(name) || composite(name).is_some()
    }

    /// The output that `section` asks a type for.
    pub(super) fn open(
        &self,
        output_type: &str,
        section: &Section,
        scope: &Scope<'_>,
    ) -> Result<Arc<dyn Output>, ConfigError> {
        let Some(found) = self.0.get(output_type) else {
            let known = self.known();
            let text = format!("there is no output type `{output_type}`; there are: {known}");
            return Err(section.error(text));
        };
        found.open(section, scope)
    }

    /// Nothing is accepted and ignored: whether each output in `plugins` is the named `plugin`.
    pub(super) fn check_named(
        &self,
        config: &Config,
        plugin: Option<&str>,
    ) -> Result<(), ConfigError> {
        for (name, section) in &config.plugins {
            if self.claims(name) && plugin != Some(name) {
                let text =
                    "it is an output of decision logs, and no `decision_logs.plugin` names it";
                return Err(section.error(text));
            }
        }
        Ok(())
    }

    fn known(&self) -> String {
        let mut known: Vec<_> = self.0.keys().map(|name| format!("`{name}`")).collect();
        known.sort();
        match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        }
    }
}

/// The outputs that `config` asks for, which was read from `section`.
///
/// # Errors
/// What is wrong with one of them, and outputs in `plugins` that no `decision_logs.plugin` names.
pub(super) fn outputs(
    section: &Section,
    config: &DecisionLogsConfig,
    scope: &Scope<'_>,
    types: &OutputTypes,
) -> Result<Vec<OutputSpec>, ConfigError> {
    types.check_named(scope.config, config.plugin.as_deref())?;
    let policies = Policies::of(config);
    let mut outputs = match &config.plugin {
        Some(plugin) => plugin_outputs(plugin, section, scope, types, &policies)?,
        None => Vec::new(),
    };
    for one in &config.outputs {
        if outputs.iter().any(|it| *it.name == one.name) {
            let text = format!("there is another output called `{}`", one.name);
            return Err(one.section.error(text));
        }
        outputs.push(OutputSpec {
            name: one.name.as_str().into(),
            output: types.open(&one.output_type, &one.section, scope)?,
            policies: Policies {
                drop_decision: one.drop_decision.clone(),
                mask_decision: one.mask_decision.clone(),
            },
            batching: one.batching,
            buffer_bytes: one.buffer_size_limit_bytes,
        });
    }
    Ok(outputs)
}

fn plugin_outputs(
    plugin: &str,
    section: &Section,
    scope: &Scope<'_>,
    types: &OutputTypes,
    policies: &Policies,
) -> Result<Vec<OutputSpec>, ConfigError> {
    let Some(own) = scope.config.plugins.get(plugin) else {
        let text = format!("invalid plugin name {plugin:?} in decision_logs");
        return Err(section.error(text));
    };
    if let Some(read) = composite(plugin) {
        return read(own, scope, types, policies);
    }
    Ok(vec![OutputSpec {
        name: plugin.into(),
        output: types.open(plugin, own, scope)?,
        policies: policies.clone(),
        batching: Batching::default(),
        buffer_bytes: None,
    }])
}
