//! Further outputs: `outputs`.

use std::collections::HashSet;

use opa_core::config::{ConfigError, Field, Reader, Section, Warning};
use opa_core::engine::EntrypointPath;

use super::batching::at_least_one;
use super::{Batching, DecisionLogsConfig};

/// The names of OPA's own outputs.
pub(in super::super) const SERVICE: &str = "service";
pub(in super::super) const CONSOLE: &str = "console";

/// What is read here; the rest is the type's.
const OPTIONS: [&str; 6] = [
    "type",
    "name",
    "drop_decision",
    "mask_decision",
    "batching",
    "buffer_size_limit_bytes",
];

/// An output beside OPA's own: an item of `outputs`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutputConfig {
    /// `type`: the name that its type is registered under.
    pub output_type: String,
    /// `name`: what it is called in counters; the type by default. Each name is there once.
    pub name: String,
    /// `mask_decision`: the policy that tells what is masked; that of the section by default.
    pub mask_decision: EntrypointPath,
    /// `drop_decision`: the policy that tells which events are dropped; that of the section by
    /// default.
    pub drop_decision: EntrypointPath,
    /// `batching`: how it gathers events.
    pub batching: Batching,
    /// `buffer_size_limit_bytes`: the most bytes of events that wait for it; no limit by default
    /// but that of the process.
    pub buffer_size_limit_bytes: Option<usize>,
    /// The other options, which its type reads.
    pub section: Section,
}

impl OutputConfig {
    /// The items of `outputs`. `section` is what was read of the rest of `decision_logs`.
    pub(super) fn read_all(
        reader: &mut Reader<'_>,
        section: &DecisionLogsConfig,
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<Self>, ConfigError> {
        let Some(field) = reader.field("outputs") else {
            return Ok(Vec::new());
        };
        let mut names = HashSet::from([SERVICE, CONSOLE].map(str::to_owned));
        names.extend(section.plugin.clone());
        let mut outputs = Vec::new();
        for item in field.items()? {
            let output = Self::read(&item, section, warnings)?;
            if !names.insert(output.name.clone()) {
                let name = &output.name;
                return Err(item.error(format!("there is another output called `{name}`")));
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn read(
        item: &Field<'_>,
        section: &DecisionLogsConfig,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = item.reader()?;
        let output_type = match reader.string("type")? {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => return Err(reader.missing("type", "the type of an output")),
        };
        let name = match reader.string("name")? {
            Some("") => return Err(reader.error("`name` is empty")),
            name => name.map_or_else(|| output_type.clone(), str::to_owned),
        };
        let mut decision = |key, default: &EntrypointPath| {
            super::read_decision(&mut reader, key, default.as_str())
        };
        let mask_decision = decision("mask_decision", &section.mask_decision)?;
        let drop_decision = decision("drop_decision", &section.drop_decision)?;
        let batching = match reader.object("batching")? {
            Some(batching) => Batching::read(batching, Batching::default(), warnings)?,
            None => Batching::default(),
        };
        let limit = reader.field("buffer_size_limit_bytes");
        let limit = limit.as_ref().map(at_least_one).transpose()?;
        Ok(Self {
            output_type,
            name,
            mask_decision,
            drop_decision,
            batching,
            buffer_size_limit_bytes: limit,
            section: item.section().without(&OPTIONS),
        })
    }
}
