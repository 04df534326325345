use std::fmt;

/// The version of the Rego language that a module is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegoVersion {
    /// Rego as before OPA 1.0: `if` and `contains` are optional.
    V0,
    /// Rego as of OPA 1.0. The default.
    #[default]
    V1,
    /// Rego v1 with the keywords `and` and `or`, and bodies after `not`.
    V2,
}

impl fmt::Display for RegoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0 => "v0",
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}
