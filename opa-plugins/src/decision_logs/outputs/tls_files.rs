//! `tls` of an output: whom a server's certificate is checked by, and which one of our own is shown.

use std::path::PathBuf;

use opa_core::config::{ConfigError, Reader, Warning};

/// What of TLS is configured, by the paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TlsFiles {
    /// `ca_cert`: the authorities, instead of the system's.
    pub(super) ca_cert: Option<PathBuf>,
    /// `cert` and `private_key`: a certificate of our own and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
    /// `skip_cert_verify`: any certificate of a server will do.
    pub(super) skip_cert_verify: bool,
}

impl TlsFiles {
    pub(super) fn read(
        mut reader: Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut file = |key| {
            let path = reader.string(key)?.filter(|path| !path.is_empty());
            Ok::<_, ConfigError>(path.map(PathBuf::from))
        };
        let (ca_cert, cert, key) = (file("ca_cert")?, file("cert")?, file("private_key")?);
        let own = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(reader.missing("private_key", "the key of `cert`")),
            (None, Some(_)) => {
                return Err(reader.missing("cert", "the certificate of `private_key`"));
            }
        };
        let skip_cert_verify = reader.bool("skip_cert_verify")?.unwrap_or_default();
        warnings.extend(reader.finish()?);
        Ok(Self {
            ca_cert,
            own,
            skip_cert_verify,
        })
    }
}

#[cfg(test)]
mod tests {
    use opa_core::config::Section;
    use serde_json::json;

    use super::*;

    fn read(value: &serde_json::Value) -> Result<TlsFiles, ConfigError> {
        let section = Section::from_json("tls", value);
        TlsFiles::read(section.reader().unwrap(), &mut Vec::new())
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let files =
            json!({"ca_cert": "a", "cert": "b", "private_key": "c", "skip_cert_verify": true});
        let wanted = TlsFiles {
            ca_cert: Some("a".into()),
            own: Some(("b".into(), "c".into())),
            skip_cert_verify: true,
        };
        assert_eq!(read(&files), Ok(wanted));
        assert_eq!(read(&json!({"ca_cert": ""})), Ok(TlsFiles::default()));
        for (half, missing) in [("cert", "tls.private_key"), ("private_key", "tls.cert")] {
            let error = read(&json!({half: "x"})).unwrap_err();
            assert_eq!(error.path(), missing);
        }
    }
}
