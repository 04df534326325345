use std::fmt;

use crate::{AppId, InvalidAppId};

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppError {
    /// The text is no app id.
    InvalidId(InvalidAppId),
    /// The id differs only in case from the one of an app that exists.
    CaseConflict {
        /// The id that was asked for.
        wanted: AppId,
        /// The app that exists.
        existing: AppId,
    },
    /// There are as many apps as allowed.
    TooManyApps {
        /// The bound.
        max: usize,
    },
    /// The manager is shut down.
    Closed,
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidId(error) => error.fmt(f),
            Self::CaseConflict { wanted, existing } => {
                write!(
                    f,
                    "app `{wanted}` differs only in case from app `{existing}`"
                )
            }
            Self::TooManyApps { max } => write!(f, "there are {max} apps already"),
            Self::Closed => f.write_str("the manager is shut down"),
        }
    }
}

impl std::error::Error for AppError {}
