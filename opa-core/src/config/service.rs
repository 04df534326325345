//! The control-plane services: `services`.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::credentials::CredentialsConfig;
use super::duration;
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::node::Value;
use super::reader::Reader;
use crate::trace::safe_url;

/// A service that bundles come from and that logs and status go to.
///
/// Two equal configurations mean the same requests, so that apps can share a client. `Debug` tells
/// the URL without userinfo and query.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The name that `bundles.*.service` and others refer to.
    pub name: String,
    /// What it is.
    pub kind: ServiceKind,
    /// The base URL, `http` or `https`, without a trailing `/`.
    pub url: String,
    /// Headers for every request, sorted by name. Their values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the response's headers may take once the request was written: 10 seconds by
    /// default, `None` for no limit (`response_header_timeout_seconds: 0`).
    pub response_header_timeout: Option<Duration>,
    /// Whether any server certificate is accepted; `false` by default.
    pub allow_insecure_tls: bool,
    /// How the server's certificate is checked.
    pub tls: ServerTlsConfig,
    /// What proves the sender.
    pub credentials: CredentialsConfig,
}

/// What a service is: `services.*.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// OPA's bundle service: paths below its URL.
    #[default]
    Http,
    /// `oci`: a registry, whose `resource` is an image reference, `host/repository:tag` or
    /// `host/repository@sha256:…`. As in OPA, its host must be there but is not looked at: scheme,
    /// host and port are those of the service's URL, of which nothing else counts.
    ///
    /// The bundle is the first layer of the type `application/vnd.oci.image.layer.v1.tar+gzip`, of
    /// the image itself or of the first one in an image index that has one. `bearer` sends its token
    /// in base64: `user:password` with `scheme: Basic`. Tokens that the registry wants instead are
    /// fetched with the same credentials.
    ///
    /// What differs from OPA: `headers` are sent (to the registry alone); a redirect to another host
    /// gets neither them nor credentials, and none leads from `https` to `http`; a manifest has at
    /// most 4 MiB, and for one bundle at most 64 are looked at; `oci` is spelled in lower case; there
    /// is no store of blobs on disk, [`persist`](super::BundleConfig::persist) keeps what was
    /// activated.
    Oci,
}

/// How a service's certificate is checked: `services.*.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServerTlsConfig {
    /// `ca_cert`: a PEM file of certificate authorities, used instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// `system_ca_required`: the system's authorities count as well. `false` by default.
    pub system_ca_required: bool,
}

/// Reads `services`: an array of objects with a `name`, or an object by name. The order of the
/// file is kept, since the first one is the default.
pub(crate) fn read_services(
    field: &Field<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<ServiceConfig>, ConfigError> {
    let mut services = Vec::new();
    let mut names = HashSet::new();
    match &field.node().value {
        Value::Array(_) => {
            for item in field.items()? {
                let service = ServiceConfig::read(&item, None, warnings)?;
                if !names.insert(service.name.clone()) {
                    return Err(item.error(format!("service `{}` is defined twice", service.name)));
                }
                services.push(service);
            }
        }
        Value::Object(_) => {
            for (name, member) in field.members()? {
                services.push(ServiceConfig::read(&member, Some(name), warnings)?);
            }
        }
        _ => return Err(field.expected("an array or an object")),
    }
    Ok(services)
}

impl fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConfig")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("url", &safe_url(&self.url))
            .field("headers", &self.headers)
            .field("response_header_timeout", &self.response_header_timeout)
            .field("allow_insecure_tls", &self.allow_insecure_tls)
            .field("tls", &self.tls)
            .field("credentials", &self.credentials)
            .finish()
    }
}

impl ServiceConfig {
    fn read(
        field: &Field<'_>,
        key: Option<&str>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        let inner_name = reader.string("name")?.unwrap_or_default();
        let kind = read_type(&mut reader)?;
        let mut tls = match reader.object("tls")? {
            Some(tls) => ServerTlsConfig::read(tls, warnings)?,
            None => ServerTlsConfig::default(),
        };
        let mut service = Self {
            kind,
            name: key.unwrap_or(inner_name).to_owned(),
            url: read_url(&mut reader)?,
            headers: read_headers(&mut reader)?,
            response_header_timeout: read_timeout(&mut reader)?,
            allow_insecure_tls: reader.bool("allow_insecure_tls")?.unwrap_or(false),
            credentials: match reader.field("credentials") {
                Some(credentials) => CredentialsConfig::read(&credentials, &mut tls, warnings)?,
                None => CredentialsConfig::None,
            },
            tls,
        };
        if kind == ServiceKind::Oci {
            service.be_registry(&mut reader, warnings)?;
        }
        warnings.extend(reader.finish()?);
        Ok(service)
    }
}

impl ServiceConfig {
    fn be_registry(
        &mut self,
        reader: &mut Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConfigError> {
        match &mut self.credentials {
            CredentialsConfig::Bearer(bearer) => bearer.encode = true,
            // OPA's words.
            CredentialsConfig::S3Signing(signing) => {
                let text = format!(
                    "cannot use aws service {:?} with service type \"oci\"",
                    signing.service
                );
                return Err(reader.error(text));
            }
            _ => {}
        }
        let url = reqwest::Url::parse(&self.url);
        let has_more = url.is_ok_and(|url| {
            url.as_str().trim_end_matches('/') != url.origin().ascii_serialization()
        });
        if let Some(field) = reader.field("url").filter(|_| has_more) {
            warnings.push(field.warning("only scheme, host and port of a registry's URL are used"));
        }
        Ok(())
    }
}

impl ServerTlsConfig {
    fn read(mut reader: Reader<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let ca_cert = reader
            .string("ca_cert")?
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let system_ca_required = reader.bool("system_ca_required")?.unwrap_or(false);
        warnings.extend(reader.finish()?);
        Ok(Self {
            ca_cert,
            system_ca_required,
        })
    }
}

/// OPA takes `OCI` for a registry as well, but then sends its token as it is.
fn read_type(reader: &mut Reader<'_>) -> Result<ServiceKind, ConfigError> {
    let Some(field) = reader.field("type") else {
        return Ok(ServiceKind::Http);
    };
    match field.as_str()? {
        "" => Ok(ServiceKind::Http),
        "oci" => Ok(ServiceKind::Oci),
        kind => Err(field.error(format!("expected `oci` or nothing, found `{kind}`"))),
    }
}

/// The URL is checked with the parser of the client that will use it. It isn't repeated in
/// errors, because it may hold a password.
fn read_url(reader: &mut Reader<'_>) -> Result<String, ConfigError> {
    const WANTED: &str = "a URL that starts with `http://` or `https://` and names a host";
    let Some(field) = reader.field("url") else {
        return Err(reader.missing("url", WANTED));
    };
    let text = field.as_str()?.trim_end_matches('/');
    let usable = reqwest::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if usable {
        Ok(text.to_owned())
    } else {
        Err(field.error(format!("expected {WANTED}")))
    }
}

fn read_headers(reader: &mut Reader<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    let Some(field) = reader.field("headers") else {
        return Ok(Vec::new());
    };
    let mut headers = Vec::new();
    for (name, member) in field.members()? {
        let text = if member.is_null() {
            ""
        } else {
            member.as_str()?
        };
        let name: HeaderName = name
            .parse()
            .map_err(|_| member.error("expected the name of an HTTP header"))?;
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| member.error("expected a text that an HTTP header can carry"))?;
        value.set_sensitive(true);
        if headers.iter().any(|(other, _)| *other == name) {
            return Err(member.error(format!("header `{name}` is defined twice")));
        }
        headers.push((name, value));
    }
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    Ok(headers)
}

fn read_timeout(reader: &mut Reader<'_>) -> Result<Option<Duration>, ConfigError> {
    const DEFAULT: Duration = Duration::from_secs(10);
    match reader.field("response_header_timeout_seconds") {
        Some(field) => {
            let timeout = duration::seconds(&field, "response_header_timeout_seconds", 0)?;
            Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
        }
        None => Ok(Some(DEFAULT)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, config_error, warnings};
    use super::*;

    fn one(options: &str) -> ServiceConfig {
        config(&format!(
            "services: {{acme: {{url: 'http://acme.test', {options}}}}}\nbundles: {{}}"
        ))
        .services
        .remove(0)
    }

    fn one_error(options: &str) -> ConfigError {
        config_error(&format!(
            "services: {{acme: {{url: 'http://acme.test', {options}}}}}"
        ))
    }

    #[test]
    fn arrays_and_objects_mean_the_same() {
        let array = config(
            "services:\n- {name: b, url: 'http://b.test/'}\n- {name: a, url: 'http://a.test'}",
        );
        let object =
            config("services: {b: {url: 'http://b.test', name: x}, a: {url: 'http://a.test'}}");
        assert_eq!(array.services, object.services);
        let names: Vec<_> = object.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn names_are_unique() {
        let error = config_error(
            "services: [{name: a, url: 'http://a.test'}, {name: a, url: 'http://b.test'}]",
        );
        assert_eq!(error.path(), "services.1");
        assert_eq!(error.message(), "service `a` is defined twice");
    }

    #[test]
    fn defaults_are_those_of_opa() {
        assert_eq!(
            one(""),
            ServiceConfig {
                kind: ServiceKind::Http,
                name: "acme".to_owned(),
                url: "http://acme.test".to_owned(),
                headers: Vec::new(),
                response_header_timeout: Some(Duration::from_secs(10)),
                allow_insecure_tls: false,
                tls: ServerTlsConfig::default(),
                credentials: CredentialsConfig::None,
            }
        );
    }

    #[test]
    fn urls_lose_their_trailing_slashes() {
        for (text, url) in [
            ("http://acme.test/", "http://acme.test"),
            ("https://acme.test/v1///", "https://acme.test/v1"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ] {
            let config = config(&format!("services: {{acme: {{url: '{text}'}}}}"));
            assert_eq!(config.services[0].url, url);
        }
    }

    #[test]
    fn urls_are_checked_and_not_repeated() {
        for url in [
            "",
            "acme.test",
            "/x",
            "ftp://u:s3cr3t@acme.test",
            "http://",
            "https:///",
            "unix:///run/x",
            "http://u:s3cr3t@a b",
            "https://acme.test:99999",
        ] {
            let error = config_error(&format!("services: {{acme: {{url: '{url}'}}}}"));
            assert_eq!(error.path(), "services.acme.url", "{url}");
            assert!(
                error
                    .message()
                    .starts_with("expected a URL that starts with"),
                "{error}"
            );
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        let error = config_error("services: {acme: {name: x}}");
        assert!(
            error
                .to_string()
                .starts_with("opa.yaml:1:18: services.acme.url: "),
            "{error}"
        );
        let error = config_error("services: [{url: 5}]");
        assert_eq!(
            error.to_string(),
            "opa.yaml:1:18: services.0.url: expected a string, found a number"
        );
    }

    #[test]
    fn headers_are_checked_sorted_and_sensitive() {
        let service = one("headers: {X-B: '2', x-a: s3cr3t, x-c: null}");
        let names: Vec<_> = service
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["x-a", "x-b", "x-c"]);
        assert_eq!(service.headers[2].1, "");
        assert!(!format!("{service:?}").contains("s3cr3t"));
        for (headers, path) in [
            ("{'x y': a}", "services.acme.headers.x y"),
            ("{x: \"s3cr3t\\n\"}", "services.acme.headers.x"),
            ("{x: 1}", "services.acme.headers.x"),
            ("{x-a: s3cr3t, X-A: s3cr3t}", "services.acme.headers.X-A"),
            ("[a]", "services.acme.headers"),
        ] {
            let error = one_error(&format!("headers: {headers}"));
            assert_eq!(error.path(), path);
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn the_timeout_may_be_switched_off() {
        let timeout =
            |text| one(&format!("response_header_timeout_seconds: {text}")).response_header_timeout;
        assert_eq!(timeout("3"), Some(Duration::from_secs(3)));
        assert_eq!(timeout("0"), None);
        assert_eq!(timeout("null"), Some(Duration::from_secs(10)));
        let error = one_error("response_header_timeout_seconds: -1");
        assert_eq!(
            error.message(),
            "'response_header_timeout_seconds' must be at least 0"
        );
    }

    #[test]
    fn tls_is_read() {
        let service =
            one("allow_insecure_tls: true, tls: {ca_cert: /ca.pem, system_ca_required: true}");
        assert!(service.allow_insecure_tls);
        assert_eq!(service.tls.ca_cert, Some("/ca.pem".into()));
        assert!(service.tls.system_ca_required);
        assert_eq!(one_error("tls: true").path(), "services.acme.tls");
    }

    #[test]
    fn types_are_oci_or_nothing() {
        assert_eq!(one("type: ''"), one(""));
        assert_eq!(one("type: oci").kind, ServiceKind::Oci);
        for kind in ["OCI", "s3"] {
            assert_eq!(
                one_error(&format!("type: {kind}")).message(),
                format!("expected `oci` or nothing, found `{kind}`")
            );
        }
    }

    #[test]
    fn a_registrys_token_is_sent_in_base64() {
        let encodes = |kind: &str| match one(&format!(
            "type: '{kind}', credentials: {{bearer: {{token: 'u:p', scheme: Basic}}}}"
        ))
        .credentials
        {
            CredentialsConfig::Bearer(bearer) => bearer.encode,
            other => panic!("{other:?}"),
        };
        assert!(encodes("oci"));
        assert!(!encodes(""));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_registry_gets_no_signatures_for_s3() {
        let error =
            one_error("type: oci, credentials: {s3_signing: {environment_credentials: {}}}");
        let text = "cannot use aws service \"s3\" with service type \"oci\"";
        assert_eq!(error.message(), text);
    }

    #[test]
    fn what_a_registrys_url_has_too_much_is_warned_about() {
        let warnings = |url: &str| {
            warnings(&format!(
                "services: {{a: {{type: oci, url: '{url}'}}}}\nbundles: {{}}"
            ))
        };
        for plain in ["https://r.test", "https://r.test/", "http://[::1]:5000"] {
            assert!(warnings(plain).is_empty(), "{plain}");
        }
        for more in [
            "https://r.test/v2",
            "https://s3cr3t:p@r.test",
            "https://r.test?x",
        ] {
            let warnings = warnings(more);
            assert_eq!(warnings.len(), 1, "{more}");
            assert!(!warnings[0].contains("s3cr3t"), "{warnings:?}");
        }
    }

    #[test]
    fn unknown_options_are_warned_about() {
        assert_eq!(
            warnings("services:\n- name: a\n  urll: x\n  url: http://a.test\n  tls: {x: 1}"),
            [
                "opa.yaml:5:9: services.0.tls.x: unknown configuration option \
                 \"services.0.tls.x\" encountered",
                "opa.yaml:3:3: services.0.urll: unknown configuration option \
                 \"services.0.urll\" encountered",
            ]
        );
    }

    #[test]
    fn services_are_an_array_or_an_object() {
        for text in ["services: x", "services: 1", "services: true"] {
            assert!(
                config_error(text)
                    .message()
                    .starts_with("expected an array or an object")
            );
        }
        assert_eq!(config_error("services: [null]").path(), "services.0");
        assert_eq!(config_error("services: {a: null}").path(), "services.a");
    }
}
