use std::fmt;

/// The kind of a value. The order of the variants is the order of values of different kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `null`
    Null,
    /// `false` or `true`
    Boolean,
    /// A number of any size and precision.
    Number,
    /// A string of Unicode text.
    String,
    /// An ordered sequence.
    Array,
    /// Members by key.
    Object,
    /// Distinct values in the order of values.
    Set,
}

/// Writes the name that Rego's `type_name` gives, such as `boolean`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
            Self::Set => "set",
        })
    }
}
