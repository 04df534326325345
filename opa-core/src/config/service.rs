//! The control-plane services: `services`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::credentials::CredentialsConfig;
use super::duration;
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::node::Value;
use super::reader::Reader;

/// A service that bundles come from and that logs and status go to.
///
/// Two equal configurations mean the same requests, so that apps can share a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The name that `bundles.*.service` and others refer to.
    pub name: String,
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

impl ServiceConfig {
    fn read(
        field: &Field<'_>,
        key: Option<&str>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        let inner_name = reader.string("name")?.unwrap_or_default();
        read_type(&mut reader)?;
        let service = Self {
            name: key.unwrap_or(inner_name).to_owned(),
            url: read_url(&mut reader)?,
            headers: read_headers(&mut reader)?,
            response_header_timeout: read_timeout(&mut reader)?,
            allow_insecure_tls: reader.bool("allow_insecure_tls")?.unwrap_or(false),
            tls: match reader.object("tls")? {
                Some(tls) => ServerTlsConfig::read(tls, warnings)?,
                None => ServerTlsConfig::default(),
            },
            credentials: match reader.field("credentials") {
                Some(credentials) => CredentialsConfig::read(&credentials, warnings)?,
                None => CredentialsConfig::None,
            },
        };
        warnings.extend(reader.finish()?);
        Ok(service)
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

fn read_type(reader: &mut Reader<'_>) -> Result<(), ConfigError> {
    let Some(field) = reader.field("type") else {
        return Ok(());
    };
    match field.as_str()? {
        "" => Ok(()),
        kind if kind.eq_ignore_ascii_case("oci") => Err(field.unsupported_value(kind)),
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
