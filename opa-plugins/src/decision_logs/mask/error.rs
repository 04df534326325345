use std::error::Error;
use std::fmt;

/// Why a mask can't be applied. The texts have no values of the policy or the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MaskError {
    /// The answer is neither an array nor a set.
    NoCollection,
    /// An element is neither a string nor an object.
    Element,
    /// A path is empty or missing.
    EmptyPath,
    /// A path is no string.
    PathType,
    /// A path doesn't start with a slash.
    NoSlash,
    /// A path is about another part of the event than may be masked.
    Prefix,
    /// A path has a `%` that is no escape.
    Escape,
    /// An operation is missing, or neither `remove` nor `upsert`.
    Op,
    /// There are more rules than [`MAX_RULES`](super::MAX_RULES).
    TooManyRules,
    /// It is more work than [`MAX_WORK`](super::MAX_WORK).
    TooMuchWork,
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCollection => "the mask is neither an array nor a set",
            Self::Element => "invalid mask rule format encountered",
            Self::EmptyPath => "mask must be non-empty",
            Self::PathType => "invalid mask \"path\" value",
            Self::NoSlash => "mask must be slash-prefixed",
            Self::Prefix => "mask prefix not allowed",
            Self::Escape => "mask has an invalid URL escape",
            Self::Op => "mask op is not supported",
            Self::TooManyRules => "the mask has too many rules",
            Self::TooMuchWork => "the mask is too much work",
        })
    }
}

impl Error for MaskError {}
