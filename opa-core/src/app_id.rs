use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of an app, safe in a URL path and as a file name.
///
/// `[A-Za-z0-9][A-Za-z0-9._-]*`, at most 200 bytes, without `..`. Cloning is cheap.
///
/// ```
/// use opa_core::AppId;
///
/// let id: AppId = "orders".parse()?;
/// assert_eq!(id.as_str(), "orders");
/// assert!("../orders".parse::<AppId>().is_err());
/// # Ok::<(), opa_core::InvalidAppId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(Arc<str>);

impl AppId {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 200;

    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidAppId`] when the name breaks a rule above.
    pub fn new(id: &str) -> Result<Self, InvalidAppId> {
        let problem = if id.len() > Self::MAX_LEN {
            "longer than 200 bytes"
        } else if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            "does not start with a letter or a digit"
        } else if !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            "has a character outside of `A-Za-z0-9._-`"
        } else if id.contains("..") {
            "contains `..`"
        } else {
            return Ok(Self(id.into()));
        };
        Err(InvalidAppId {
            id: id.chars().take(64).collect(),
            problem,
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two ids share that differ only in case: such a pair is an error.
    pub(crate) fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for AppId {
    type Err = InvalidAppId;

    fn from_str(id: &str) -> Result<Self, InvalidAppId> {
        Self::new(id)
    }
}

impl TryFrom<&str> for AppId {
    type Error = InvalidAppId;

    fn try_from(id: &str) -> Result<Self, InvalidAppId> {
        Self::new(id)
    }
}

impl TryFrom<&AppId> for AppId {
    type Error = InvalidAppId;

    fn try_from(id: &AppId) -> Result<Self, InvalidAppId> {
        Ok(id.clone())
    }
}

impl TryFrom<String> for AppId {
    type Error = InvalidAppId;

    fn try_from(id: String) -> Result<Self, InvalidAppId> {
        Self::new(&id)
    }
}

impl From<std::convert::Infallible> for InvalidAppId {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl std::borrow::Borrow<str> for AppId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId({:?})", &*self.0)
    }
}

/// A text that is no [`AppId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAppId {
    id: String,
    problem: &'static str,
}

impl fmt::Display for InvalidAppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid app id `{}`: {}",
            self.id.escape_debug(),
            self.problem
        )
    }
}

impl std::error::Error for InvalidAppId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_that_are_safe_in_paths() {
        for id in ["a", "0", "orders", "team-a.orders_v2", &"a".repeat(200)] {
            assert_eq!(AppId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for id in [
            "", ".a", "-a", "_a", "a/b", "a\\b", "a..b", "a b", "ä", "a\0", "a%2e", "{{a}}",
        ] {
            assert!(AppId::new(id).is_err(), "{id:?}");
        }
        assert!(AppId::new(&"a".repeat(201)).is_err());
    }

    #[test]
    fn the_message_shows_no_more_than_the_start_of_a_hostile_name() {
        let error = AppId::new(&"\n".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 250 && !error.contains('\n'), "{error}");
    }
}
