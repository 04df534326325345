use std::fmt;

use crate::bundle::BundleErrorKind;

/// What sort of failure kept a bundle from being loaded, for metrics and alarms: a small closed
/// set, whatever a server answers or an author writes. It is derived from what failed, never from
/// the words about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FailureClass {
    /// No connection, or it broke off; also a name that does not resolve, and redirects that lead
    /// nowhere.
    Network,
    /// No answer in time, or it came too slowly.
    Timeout,
    /// A certificate is not trusted, or there is no TLS at the other end.
    Tls,
    /// There is no proof of who asks: the request was not sent.
    Credentials,
    /// The server answered 401.
    Unauthorized,
    /// The server answered 403.
    Forbidden,
    /// The server answered 404.
    NotFound,
    /// The server answered 429.
    TooManyRequests,
    /// The server answered another status from 400 to 499.
    Http4xx,
    /// The server answered a status from 500 to 599.
    Http5xx,
    /// The server answered a status that means nothing here.
    HttpOther,
    /// The source's answer can't be used, or a source of the program's own said no more.
    Source,
    /// A file or directory can't be read.
    Io,
    /// No gzip'd tar archive, a damaged one, or one whose names or manifest are refused.
    Archive,
    /// A bound on sizes or numbers was passed.
    Limit,
    /// A signature is missing, not trusted, or not of these files.
    Signature,
    /// Roots overlap, or something lies outside of them.
    Conflict,
    /// A data file can't be parsed, or data collides.
    Data,
    /// A policy can't be parsed or compiled.
    Compile,
    /// A delta can't be applied.
    Delta,
    /// The bundle needs what this version doesn't have.
    Unsupported,
    /// The active bundle can't be written to disk.
    Persist,
    /// The configuration can't be used as it is: a URL, or a file that it names.
    Config,
    /// A panic was contained.
    Panic,
}

impl FailureClass {
    /// All classes, in their order.
    pub const ALL: [Self; 24] = [
        Self::Network,
        Self::Timeout,
        Self::Tls,
        Self::Credentials,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TooManyRequests,
        Self::Http4xx,
        Self::Http5xx,
        Self::HttpOther,
        Self::Source,
        Self::Io,
        Self::Archive,
        Self::Limit,
        Self::Signature,
        Self::Conflict,
        Self::Data,
        Self::Compile,
        Self::Delta,
        Self::Unsupported,
        Self::Persist,
        Self::Config,
        Self::Panic,
    ];

    /// The name in metrics: lower case with underscores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooManyRequests => "too_many_requests",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::HttpOther => "http_other",
            Self::Source => "source",
            Self::Io => "io",
            Self::Archive => "archive",
            Self::Limit => "limit",
            Self::Signature => "signature",
            Self::Conflict => "conflict",
            Self::Data => "data",
            Self::Compile => "compile",
            Self::Delta => "delta",
            Self::Unsupported => "unsupported",
            Self::Persist => "persist",
            Self::Config => "config",
            Self::Panic => "panic",
        }
    }

    /// The class of a server's status that brings no bundle.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            429 => Self::TooManyRequests,
            400..=499 => Self::Http4xx,
            500..=599 => Self::Http5xx,
            _ => Self::HttpOther,
        }
    }
}

impl From<BundleErrorKind> for FailureClass {
    fn from(kind: BundleErrorKind) -> Self {
        match kind {
            BundleErrorKind::Io => Self::Io,
            BundleErrorKind::Archive | BundleErrorKind::Entry | BundleErrorKind::Manifest => {
                Self::Archive
            }
            BundleErrorKind::Limit => Self::Limit,
            BundleErrorKind::Roots => Self::Conflict,
            BundleErrorKind::Module => Self::Compile,
            BundleErrorKind::Data => Self::Data,
            BundleErrorKind::Patch => Self::Delta,
            BundleErrorKind::Signature => Self::Signature,
            BundleErrorKind::Unsupported => Self::Unsupported,
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many failures there were of each class. Without failures it holds no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureCounts(Vec<(FailureClass, u64)>);

impl FailureCounts {
    /// How many failures were of `class`.
    #[must_use]
    pub fn of(&self, class: FailureClass) -> u64 {
        let counted = self.0.iter().find(|(counted, _)| *counted == class);
        counted.map_or(0, |(_, count)| *count)
    }

    /// How many failures there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The classes that occurred with their counts, in the order in which they first did.
    pub fn iter(&self) -> impl Iterator<Item = (FailureClass, u64)> {
        self.0.iter().copied()
    }

    /// Counts another failure of `class`.
    pub fn add(&mut self, class: FailureClass) {
        match self.0.iter_mut().find(|(counted, _)| *counted == class) {
            Some((_, count)) => *count += 1,
            None => self.0.push((class, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let names = FailureClass::ALL.iter().map(|class| class.as_str());
        let names: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(names.len(), FailureClass::ALL.len());
    }

    #[test]
    fn a_status_has_a_class() {
        let class = |status| FailureClass::of_status(status).as_str();
        assert_eq!(class(401), "unauthorized");
        assert_eq!(class(418), "http_4xx");
        assert_eq!(class(503), "http_5xx");
        assert_eq!(class(204), "http_other");
        assert_eq!(class(999), "http_other");
    }

    #[test]
    fn failures_are_counted_by_class() {
        let mut counts = FailureCounts::default();
        for class in [FailureClass::Tls, FailureClass::Io, FailureClass::Tls] {
            counts.add(class);
        }
        assert_eq!((counts.of(FailureClass::Tls), counts.total()), (2, 3));
        assert_eq!(counts.of(FailureClass::Panic), 0);
        let classes: Vec<_> = counts.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(classes, ["tls", "io"]);
    }
}
