//! Which environment variables a configuration may read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// The environment variables that placeholders may read, and where their values come from.
///
/// OPA and Skipper hand every variable of the process to a configuration file; here a file reads
/// only what its operator listed. The default lists nothing. The keys that `s3_signing` names by
/// `environment_credentials` are no placeholders and need no leave, see
/// [`S3SigningConfig`](super::S3SigningConfig).
///
/// ```
/// use opa_core::config::EnvPolicy;
///
/// let none = EnvPolicy::default();
/// let two = EnvPolicy::allow(["CONTROL_PLANE_URL", "BUNDLE_TOKEN"]);
/// // A lookup of one's own instead of the environment of the process.
/// let fixed = EnvPolicy::allow(["REGION"]).with_lookup(|_| Some("eu-central-1".into()));
/// # let _ = (none, two, fixed);
/// ```
#[derive(Clone, Default)]
pub struct EnvPolicy {
    allowed: BTreeSet<String>,
    lookup: Option<Arc<Lookup>>,
}

/// What a placeholder finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookedup {
    /// The value, which may be empty.
    Value(String),
    /// The variable isn't set.
    Unset,
    /// The variable isn't on the allow-list; it was not looked up.
    Forbidden,
    /// The variable is set to bytes that aren't UTF-8.
    NotUtf8,
}

impl EnvPolicy {
    /// A policy that lets configuration read the variables of these exact names.
    #[must_use]
    pub fn allow<I>(names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            allowed: names.into_iter().map(Into::into).collect(),
            lookup: None,
        }
    }

    /// Takes values from `lookup` instead of the environment of the process.
    ///
    /// It is asked for allowed names only, once per placeholder and rendering, and for the keys of
    /// `s3_signing.environment_credentials`, once per request.
    #[must_use]
    pub fn with_lookup<F>(mut self, lookup: F) -> Self
    where
        F: Fn(&str) -> Option<OsString> + Send + Sync + 'static,
    {
        self.lookup = Some(Arc::new(lookup));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Lookedup {
        if !self.allowed.contains(name) {
            return Lookedup::Forbidden;
        }
        self.look_up(name)
    }

    /// The value of a variable that the configuration asks for by what it means, not by name.
    pub(crate) fn look_up(&self, name: &str) -> Lookedup {
        let found = match &self.lookup {
            Some(lookup) => lookup(name),
            None => process_variable(name),
        };
        match found.map(OsString::into_string) {
            None => Lookedup::Unset,
            Some(Ok(value)) => Lookedup::Value(value),
            Some(Err(_)) => Lookedup::NotUtf8,
        }
    }
}

/// Reads the process's environment; names that no variable can have are unset.
fn process_variable(name: &str) -> Option<OsString> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    std::env::var_os(name)
}

impl fmt::Debug for EnvPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvPolicy")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_readable_by_default() {
        assert_eq!(EnvPolicy::default().get("PATH"), Lookedup::Forbidden);
        let asked = EnvPolicy::default().with_lookup(|name| panic!("looked up {name}"));
        assert_eq!(asked.get("PATH"), Lookedup::Forbidden);
    }

    #[test]
    fn allowed_names_are_looked_up_exactly() {
        let policy = EnvPolicy::allow(["A", "EMPTY", "UNSET"]).with_lookup(|name| match name {
            "A" => Some("1".into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        });
        assert_eq!(policy.get("A"), Lookedup::Value("1".to_owned()));
        assert_eq!(policy.get("EMPTY"), Lookedup::Value(String::new()));
        assert_eq!(policy.get("UNSET"), Lookedup::Unset);
        assert_eq!(policy.get("a"), Lookedup::Forbidden);
        assert_eq!(policy.get(" A"), Lookedup::Forbidden);
    }

    #[test]
    fn the_process_is_the_default_source() {
        // Cargo sets this for every test.
        let policy = EnvPolicy::allow(["CARGO_PKG_NAME"]);
        assert_eq!(
            policy.get("CARGO_PKG_NAME"),
            Lookedup::Value("opa-core".to_owned())
        );
    }

    #[test]
    fn names_that_no_variable_can_have_are_unset() {
        let policy = EnvPolicy::allow(["", "A=B", "A\0B"]);
        for name in ["", "A=B", "A\0B"] {
            assert_eq!(policy.get(name), Lookedup::Unset, "{name:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn values_that_are_not_utf8_are_told_apart() {
        use std::os::unix::ffi::OsStringExt;
        let policy = EnvPolicy::allow(["A"]).with_lookup(|_| Some(OsString::from_vec(vec![0xff])));
        assert_eq!(policy.get("A"), Lookedup::NotUtf8);
    }
}
