//! The options of `otlp`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use opa_core::config::{ConfigError, Field, Reader, Section, Warning};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use reqwest::Url;

use super::super::options::count;
use super::environment::{Environment, Variable};
use super::record;

/// What all requests of an app have.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) resource: Vec<KeyValue>,
    pub(super) max_request_bytes: usize,
}

/// Whom requests go to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) endpoint: Url,
    pub(super) gzip: bool,
    pub(super) tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

/// Files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tls {
    pub(super) ca_cert: Option<PathBuf>,
    /// A certificate of our own and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Collectors take 4 MiB over gRPC.
const DEFAULT_MAX_REQUEST_BYTES: usize = 4_000_000;
const PATH: &str = "/v1/logs";

/// Headers that are the protocol's.
const RESERVED: [&str; 7] = [
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
];

impl Options {
    pub(super) fn read(
        section: &Section,
        environment: Environment,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = section.reader()?;
        let mut source = Source {
            section,
            environment,
            has_endpoint: false,
        };
        let protocol = source.protocol(&mut reader)?;
        let endpoint = source.endpoint(&mut reader, protocol)?;
        let options = Self {
            headers: source.headers(&mut reader)?,
            timeout: source.timeout(&mut reader)?,
            resource: source.resource(&mut reader)?,
            max_request_bytes: match count(&mut reader, "max_request_bytes")? {
                Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                None => DEFAULT_MAX_REQUEST_BYTES,
            },
            target: Target {
                gzip: source.gzip(&mut reader)?,
                tls: source.tls(&mut reader, &endpoint, warnings)?,
                protocol,
                endpoint,
            },
        };
        warnings.extend(reader.finish()?);
        Ok(options)
    }
}

/// Where options come from: the section, else the environment.
struct Source<'a> {
    section: &'a Section,
    environment: Environment,
    /// The section names the endpoint.
    has_endpoint: bool,
}

impl Source<'_> {
    fn protocol(&self, reader: &mut Reader<'_>) -> Result<Protocol, ConfigError> {
        if let Some(field) = reader.field("protocol") {
            return protocol(field.as_str()?).map_err(|text| field.error(text));
        }
        let Some(Variable { name, value }) = self.environment.option("PROTOCOL") else {
            return Ok(Protocol::Http);
        };
        protocol(&value).map_err(|text| self.section.error(format!("{name}: {text}")))
    }

    fn endpoint(
        &mut self,
        reader: &mut Reader<'_>,
        protocol: Protocol,
    ) -> Result<Url, ConfigError> {
        let with_path = |url: Url| match protocol {
            Protocol::Http => below(url),
            Protocol::Grpc => url,
        };
        if let Some(field) = reader.field("endpoint") {
            self.has_endpoint = true;
            let url = url(field.as_str()?).map_err(|text| field.error(text))?;
            return Ok(with_path(url));
        }
        let named = |variable: &Variable| {
            let url = url(&variable.value);
            url.map_err(|text| self.section.error(format!("{}: {text}", variable.name)))
        };
        if let Some(variable) = self.environment.of_logs("ENDPOINT") {
            // It is the whole of it, unlike the one for all signals.
            return named(&variable);
        }
        if let Some(variable) = self.environment.of_all("ENDPOINT") {
            return named(&variable).map(with_path);
        }
        let default = match protocol {
            Protocol::Http => "http://localhost:4318",
            Protocol::Grpc => "http://localhost:4317",
        };
        let default = url(default).map_err(|text| self.section.error(text))?;
        Ok(with_path(default))
    }

    fn headers(&self, reader: &mut Reader<'_>) -> Result<HeaderMap, ConfigError> {
        if let Some(field) = reader.field("headers") {
            let mut headers = HeaderMap::new();
            for (name, field) in field.members()? {
                let (name, value) =
                    header(name, field.as_str()?).map_err(|text| field.error(text))?;
                headers.insert(name, value);
            }
            return Ok(headers);
        }
        let variable = self.environment.option("HEADERS");
        let Some(variable) = variable.filter(|_| !self.has_endpoint) else {
            return Ok(HeaderMap::new());
        };
        let pairs = variable.pairs().map_err(|text| self.section.error(text))?;
        let error = |text| self.section.error(format!("{}: {text}", variable.name));
        let headers = pairs.iter().map(|(name, value)| header(name, value));
        headers.collect::<Result<_, _>>().map_err(error)
    }

    fn timeout(&self, reader: &mut Reader<'_>) -> Result<Duration, ConfigError> {
        if let Some(field) = reader.field("timeout_seconds") {
            let seconds = field.as_f64()?;
            let timeout = Duration::try_from_secs_f64(seconds).ok();
            let wrong = || field.error(format!("expected more than 0, found `{seconds}`"));
            return timeout.filter(|it| !it.is_zero()).ok_or_else(wrong);
        }
        let Some(Variable { name, value }) = self.environment.option("TIMEOUT") else {
            return Ok(DEFAULT_TIMEOUT);
        };
        let wrong = || {
            let text = format!("{name}: expected milliseconds, found `{value}`");
            self.section.error(text)
        };
        let timeout = value.parse().ok().map(Duration::from_millis);
        timeout.filter(|it| !it.is_zero()).ok_or_else(wrong)
    }

    fn gzip(&self, reader: &mut Reader<'_>) -> Result<bool, ConfigError> {
        if let Some(field) = reader.field("compression") {
            return gzip(field.as_str()?).map_err(|text| field.error(text));
        }
        let Some(Variable { name, value }) = self.environment.option("COMPRESSION") else {
            return Ok(false);
        };
        gzip(&value).map_err(|text| self.section.error(format!("{name}: {text}")))
    }

    fn tls(
        &self,
        reader: &mut Reader<'_>,
        endpoint: &Url,
        warnings: &mut Vec<Warning>,
    ) -> Result<Tls, ConfigError> {
        if let Some(field) = reader.field("tls") {
            let tls = read_tls(&field, warnings)?;
            if endpoint.scheme() != "https" && tls != Tls::default() {
                return Err(field.error("the endpoint is no `https` URL"));
            }
            return Ok(tls);
        }
        let file = |option| {
            let variable = self.environment.option(option);
            variable.map(|variable| PathBuf::from(variable.value))
        };
        if endpoint.scheme() != "https" {
            return Ok(Tls::default());
        }
        let own = (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY"));
        let own = match own {
            _ if self.has_endpoint => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let text =
                    "the environment has a client certificate without its key, or the key alone";
                return Err(self.section.error(text));
            }
        };
        let ca_cert = file("CERTIFICATE");
        Ok(Tls { ca_cert, own })
    }

    fn resource(&self, reader: &mut Reader<'_>) -> Result<Vec<KeyValue>, ConfigError> {
        let mut attributes = BTreeMap::from([("service.name".to_owned(), "opa".to_owned())]);
        if let Some(variable) = self.environment.get("OTEL_RESOURCE_ATTRIBUTES") {
            let pairs = variable.pairs().map_err(|text| self.section.error(text))?;
            attributes.extend(pairs);
        }
        if let Some(variable) = self.environment.get("OTEL_SERVICE_NAME") {
            attributes.insert("service.name".to_owned(), variable.value);
        }
        attributes.extend(reader.string_map("resource")?);
        let attributes = attributes.iter();
        Ok(attributes
            .map(|(name, value)| record::attribute(name, value))
            .collect())
    }
}

fn read_tls(field: &Field<'_>, warnings: &mut Vec<Warning>) -> Result<Tls, ConfigError> {
    let mut reader = field.reader()?;
    let ca_cert = reader.string("ca_cert")?.map(PathBuf::from);
    let cert = reader.string("cert")?.map(PathBuf::from);
    let key = reader.string("private_key")?.map(PathBuf::from);
    let own = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(reader.missing("private_key", "the key of `cert`")),
        (None, Some(_)) => return Err(reader.missing("cert", "the certificate of `private_key`")),
    };
    warnings.extend(reader.finish()?);
    Ok(Tls { ca_cert, own })
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "http/protobuf" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        "http/json" => Err("`http/json` is not supported by this version".to_owned()),
        _ => Err(format!(
            "expected `http/protobuf` or `grpc`, found `{text}`"
        )),
    }
}

fn gzip(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "gzip" => Ok(true),
        _ => Err(format!("expected `none` or `gzip`, found `{text}`")),
    }
}

/// The text of an endpoint isn't shown: it may have a password.
fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("expected a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user in a URL is not sent: a header can be".to_owned());
    }
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        scheme => Err(format!(
            "expected an `http` or `https` URL, found `{scheme}:`"
        )),
    }
}

fn below(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    if !path.ends_with(PATH) {
        let path = format!("{path}{PATH}");
        url.set_path(&path);
    }
    url
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("expected the name of a header, found `{name}`");
    let parsed: HeaderName = name.parse().map_err(|_| wrong())?;
    if RESERVED.contains(&parsed.as_str()) {
        return Err(format!("the header `{name}` is the protocol's"));
    }
    let value = HeaderValue::from_str(value);
    let mut value = value.map_err(|_| format!("the value of `{name}` can't be sent"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests;
