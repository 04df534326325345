use std::fmt;

use super::digest::Digest;

/// The most characters of a tag (OCI distribution specification, "Pulling manifests").
const MAX_TAG: usize = 128;

/// Which image of which repository: `host/repository:tag` or `host/repository@digest`.
///
/// The host must be there, but the service's URL says where the registry is: this is how OPA reads
/// a bundle's `resource`, so that one configuration can go to a mirror. Beside a digest a tag has
/// no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(super) repository: String,
    pub(super) version: Version,
}

/// What a reference says about the image in its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// # Errors
    /// What is wrong with it, in words that follow "resource".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (host, path) = text.split_once('/').unwrap_or(("", text));
        if host.is_empty() || !host.chars().all(is_of_host) {
            return Err(format!(
                "expected an image reference that starts with a host, found `{text}`"
            ));
        }
        let (repository, version) = match (path.split_once('@'), path.split_once(':')) {
            (Some((repository, digest)), _) => {
                let repository = repository.split(':').next().unwrap_or_default();
                let digest = Digest::parse(digest)?;
                (repository, Version::Digest(digest))
            }
            (None, Some((repository, tag))) if is_tag(tag) => {
                (repository, Version::Tag(tag.to_owned()))
            }
            (None, Some((_, tag))) => return Err(format!("invalid tag `{tag}`")),
            // OPA would ask for a manifest without a name, for ever.
            (None, None) => {
                return Err(format!("expected a tag or a digest at the end of `{text}`"));
            }
        };
        if !repository.split('/').all(is_component) {
            return Err(format!("invalid repository `{repository}`"));
        }
        Ok(Self {
            repository: repository.to_owned(),
            version,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']')
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |run: &str| matches!(run, "" | "." | "_" | "__") || run.chars().all(|c| c == '-');
    text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && text.split(is_letter).all(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_read_and_the_host_is_left_to_the_service() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, repository, version) in [
            ("ghcr.io/acme/authz:1.0", "acme/authz", "1.0"),
            ("127.0.0.1:5000/a:latest", "a", "latest"),
            ("[::1]:5000/a-b/c__d/e.f_g--h:_x", "a-b/c__d/e.f_g--h", "_x"),
            (&format!("x/acme/authz@{digest}"), "acme/authz", &*digest),
            (
                &format!("x/acme/authz:1.0@{digest}"),
                "acme/authz",
                &*digest,
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.repository, repository, "{text}");
            assert_eq!(reference.version.to_string(), version, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for (text, problem) in [
            (
                "",
                "expected an image reference that starts with a host, found ``",
            ),
            (
                "authz:1.0",
                "expected an image reference that starts with a host",
            ),
            (
                "https://ghcr.io/acme:1.0",
                "invalid repository `/ghcr.io/acme`",
            ),
            (
                "u@x/acme:1.0",
                "expected an image reference that starts with a host",
            ),
            (
                "bundles/authz",
                "expected a tag or a digest at the end of `bundles/authz`",
            ),
            ("x/acme/authz:", "invalid tag ``"),
            ("x/acme/authz:-1", "invalid tag `-1`"),
            ("x/acme/authz:1/2", "invalid tag `1/2`"),
            ("x/Acme:1", "invalid repository `Acme`"),
            ("x/a/../b:1", "invalid repository `a/../b`"),
            ("x/a//b:1", "invalid repository `a//b`"),
            ("x/a___b:1", "invalid repository `a___b`"),
            ("x/a%2fb:1", "invalid repository `a%2fb`"),
            ("x/a?b:1", "invalid repository `a?b`"),
            ("x/:1", "invalid repository ``"),
            ("x/a@sha256:0a", "invalid digest `sha256:0a`"),
            ("x/a@sha512:00", "unsupported digest `sha512:00`"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
        }
        let long = format!("x/a:{}", "1".repeat(129));
        assert!(Reference::parse(&long).is_err());
    }
}
