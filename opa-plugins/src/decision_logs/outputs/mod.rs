//! Output types of the decision log: [`File`], [`S3`] and, each with the feature of its name,
//! `Kafka` and `Otlp`.
//!
//! Those of Enterprise OPA's plugin `eopa_dl` are in [`eopa`].
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

pub mod eopa;
mod file;
mod form;

#[cfg(feature = "kafka")]
mod kafka;
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod s3;
mod tls_files;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opa_core::config::{Config, ConfigError, Section};
use opa_core::engine::EntrypointPath;
use opa_core::plugin::Scope;

use super::config::{Batching, DecisionLogsConfig};
use super::output::{Output, OutputType};
use eopa::Eopa;

pub use file::File;
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
#[cfg(feature = "otlp")]
pub use otlp::Otlp;
pub use s3::S3;

/// An output of one app, with what the pipeline does before it.
#[derive(Clone, Debug)]
pub(super) struct OutputSpec {
    /// What it is called in counters. An app has each name once.
    pub(super) name: Arc<str>,
    pub(super) way: Way,
    pub(super) policies: Policies,
    pub(super) batching: Batching,
    /// The most bytes of events that wait for it; `None` for no limit but that of the process.
    pub(super) buffer_bytes: Option<usize>,
    /// The longest wait between two tries, where it isn't the pipeline's own.
    pub(super) max_retry: Option<Duration>,
    pub(super) storage: Storage,
}

/// Where events wait for an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Storage {
    /// In the spool of the program, or in memory if it has none.
    #[default]
    Default,
    /// In a spool, which the configuration wants.
    Disk(Disk),
    /// In memory, and their decisions wait with them.
    Unbuffered,
}

/// The spool that a configuration wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    /// The default is the spool's.
    pub(super) max_bytes: Option<u64>,
}

/// Where the events of an output go.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// To the console of the process.
    Console,
    /// To an output.
    Output(Arc<dyn Output>),
}

/// The policies on logs of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) drop_decision: EntrypointPath,
    pub(super) mask_decision: EntrypointPath,
    /// What is asked about what these leave.
    pub(super) then: Further,
}

/// Policies on logs that are asked about what others leave of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Further {
    pub(super) drop_decision: Option<EntrypointPath>,
    pub(super) mask_decision: Option<EntrypointPath>,
}

/// The types by the names that they are registered under.
#[derive(Clone, Debug, Default)]
pub(super) struct OutputTypes {
    registered: HashMap<Arc<str>, Arc<dyn OutputType>>,
    eopa: Arc<Eopa>,
}

impl Policies {
    /// Those of `decision_logs`.
    pub(super) fn of(config: &DecisionLogsConfig) -> Self {
        Self {
            drop_decision: config.drop_decision.clone(),
            mask_decision: config.mask_decision.clone(),
            then: Further::default(),
        }
    }

    /// Where all of them are.
    pub(super) fn paths(&self) -> impl Iterator<Item = &EntrypointPath> {
        let Further {
            drop_decision,
            mask_decision,
        } = &self.then;
        let first = [&self.drop_decision, &self.mask_decision];
        first.into_iter().chain(drop_decision).chain(mask_decision)
    }
}

impl OutputTypes {
    pub(super) fn add(&mut self, name: &str, output_type: Arc<dyn OutputType>) {
        self.registered.insert(name.into(), output_type);
    }

    /// Whether `plugins.<name>` is an output's configuration.
    pub(super) fn claims(&self, name: &str) -> bool {
        self.registered.contains_key(name) || name == eopa::NAME
    }

    /// Whether decisions wait for room where the configuration doesn't say what they do.
    pub(super) fn holds(&self, config: &DecisionLogsConfig) -> bool {
        config.plugin.as_deref().is_some_and(|it| self.is_eopa(it))
    }

    fn is_eopa(&self, plugin: &str) -> bool {
        plugin == eopa::NAME && !self.registered.contains_key(plugin)
    }

    /// The output that `section` asks a type for.
    pub(super) fn open(
        &self,
        output_type: &str,
        section: &Section,
        scope: &Scope<'_>,
    ) -> Result<Arc<dyn Output>, ConfigError> {
        let Some(found) = self.registered.get(output_type) else {
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
        let mut known: Vec<_> = self
            .registered
            .keys()
            .map(|name| format!("`{name}`"))
            .collect();
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
            way: Way::Output(types.open(&one.output_type, &one.section, scope)?),
            policies: Policies {
                drop_decision: one.drop_decision.clone(),
                mask_decision: one.mask_decision.clone(),
                then: Further::default(),
            },
            batching: one.batching,
            buffer_bytes: one.buffer_size_limit_bytes,
            max_retry: None,
            storage: Storage::Default,
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
    if types.is_eopa(plugin) {
        return types.eopa.outputs(own, scope, policies);
    }
    Ok(vec![OutputSpec {
        name: plugin.into(),
        way: Way::Output(types.open(plugin, own, scope)?),
        policies: policies.clone(),
        batching: Batching::default(),
        buffer_bytes: None,
        max_retry: None,
        storage: Storage::Default,
    }])
}
