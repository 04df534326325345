//! The outputs over HTTP: `http`, `splunk` and `service`.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use opa_core::config::{
    ClientTlsConfig, ConfigError, CredentialsConfig, Field, Reader, Secret, ServiceConfig, Warning,
};
use opa_core::plugin::Scope;

use super::super::Way;
use super::super::form::{Form, Format};
use super::super::tls_files::TlsFiles;
use super::batching::{self, Gathering};
use super::sender::{Rate, Retry, Sender, Wrap};
use super::{NAME, Opened};

/// How long a service's batches gather.
const SERVICE_PERIOD: Duration = Duration::from_millis(10);
/// As OPA's own uploads may be, before they are compressed.
const SERVICE_BYTES: usize = 1024 * 1024;

/// What `http` and `splunk` read.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) service: ServiceConfig,
    pub(super) timeout: Duration,
    pub(super) gathering: Gathering,
    pub(super) wrap: Wrap,
    pub(super) retry: Retry,
    pub(super) rate: Option<Rate>,
}

impl Http {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        if let Some(oauth2) = reader.field("oauth2") {
            match oauth2.reader()?.bool("enabled")? {
                Some(true) => return Err(oauth2.unsupported()),
                Some(false) => {}
                None => {
                    warnings.push(oauth2.warning("it has no effect without `enabled: true`"));
                }
            }
        }
        let mut service = service_config(reader, "http", warnings)?;
        if let Some(headers) = reader.field("headers") {
            service = service.with_headers(&headers)?;
        }
        Ok(Self {
            service,
            timeout: batching::timeout(reader, warnings)?,
            gathering: Gathering::read(reader, warnings)?,
            wrap: Wrap::None,
            retry: match reader.object("retry")? {
                Some(retry) => read_retry(retry, warnings)?,
                None => Retry::default(),
            },
            rate: match reader.object("rate_limit")? {
                Some(rate) => read_rate(rate, warnings)?,
                None => None,
            },
        })
    }

    pub(super) fn open(self, field: &Field<'_>, scope: &Scope<'_>) -> Result<Opened, ConfigError> {
        let client = super::client(&self.service, field, scope)?;
        let mut gathering = self.gathering;
        gathering.singly = gathering.form.format == Format::Each;
        let mut headers = HeaderMap::new();
        let own = |name| self.service.headers.iter().any(|(own, _)| *own == name);
        if !own(CONTENT_TYPE) {
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        if gathering.form.gzip && !own(CONTENT_ENCODING) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let max_retry = self.retry.max_backoff;
        let mut sender = Sender::new(client, None, headers, gathering.form, self.timeout);
        sender.wrap = self.wrap;
        sender.retry = self.retry;
        sender.rate = self.rate;
        Ok(Opened {
            way: Way::Output(Arc::new(sender)),
            gathering,
            max_retry,
        })
    }
}

/// `splunk`: events as the HTTP Event Collector takes them.
pub(super) fn splunk(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Http, ConfigError> {
    let mut service = service_config(reader, "splunk", warnings)?;
    let Some(token) = reader.field("token") else {
        return Err(reader.missing("token", "the token of the collector"));
    };
    let secret = Secret::new(format!("Splunk {}", token.as_str()?));
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| token.error("expected a text that an HTTP header can carry"))?;
    value.set_sensitive(true);
    service.headers.push((AUTHORIZATION, value));
    let mut gathering = Gathering::read(reader, warnings)?;
    if gathering.limits.is_some() {
        gathering.form.format = Format::Lines;
    }
    Ok(Http {
        service,
        timeout: batching::DEFAULT_TIMEOUT,
        gathering,
        wrap: Wrap::Splunk,
        retry: Retry::default(),
        rate: None,
    })
}

/// `service`: a service of the configuration, which gets what OPA uploads.
pub(super) fn service(reader: &mut Reader<'_>, scope: &Scope<'_>) -> Result<Opened, ConfigError> {
    let Some(named) = reader.field("service") else {
        return Err(reader.missing("service", "the name of a service"));
    };
    let name = named.as_str()?;
    if !scope.config.services.iter().any(|one| one.name == name) {
        return Err(named.error(format!("unknown service: {name:?}")));
    }
    let client = scope.service(name)?;
    let mut resource = "logs";
    if let Some(field) = reader.field("resource") {
        resource = field.as_str()?;
        let checked = client.check_path(resource);
        checked.map_err(|error| field.error(error.to_string()))?;
    }
    let form = Form {
        format: Format::Array,
        gzip: true,
    };
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let path = Some(resource.to_owned());
    let sender = Sender::new(client, path, headers, form, Duration::from_secs(60));
    Ok(Opened {
        way: Way::Output(Arc::new(sender)),
        gathering: Gathering {
            limits: Some(super::super::super::config::Batching {
                at_count: 10_000,
                at_bytes: SERVICE_BYTES,
                at_period: SERVICE_PERIOD,
            }),
            form,
            singly: false,
        },
        max_retry: None,
    })
}

/// `url` and `tls`.
fn service_config(
    reader: &mut Reader<'_>,
    output_type: &str,
    warnings: &mut Vec<Warning>,
) -> Result<ServiceConfig, ConfigError> {
    let Some(url) = reader.field("url") else {
        return Err(reader.missing("url", "a URL"));
    };
    let mut service = ServiceConfig::new(format!("{NAME}.{output_type}"), &url)?;
    service.response_header_timeout = None;
    if let Some(mut tls) = reader.object("tls")? {
        for key in ["client_certs", "root_cas"] {
            tls.unsupported(key)?;
        }
        // That of other outputs has no such key.
        let is_enabled = tls.bool("enabled")?.unwrap_or(true);
        let tls = TlsFiles::read(tls, warnings)?;
        if is_enabled {
            secure(&mut service, tls);
        }
    }
    Ok(service)
}

/// `tls`, as services have it.
pub(super) fn secure(service: &mut ServiceConfig, tls: TlsFiles) {
    service.allow_insecure_tls = tls.skip_cert_verify;
    service.tls.ca_cert = tls.ca_cert;
    if let Some((cert, key)) = tls.own {
        service.credentials = CredentialsConfig::ClientTls(ClientTlsConfig::new(cert, key));
    }
}

fn read_retry(mut reader: Reader<'_>, warnings: &mut Vec<Warning>) -> Result<Retry, ConfigError> {
    let mut codes = |key| match reader.field(key) {
        Some(field) => field.items()?.map(|item| status(&item)).collect(),
        None => Ok(Vec::new()),
    };
    // Whatever is no success and not given up is sent again, with growing waits.
    let _backoff_on: Vec<StatusCode> = codes("backoff_on")?;
    let (drop_on, successful_on) = (codes("drop_on")?, codes("successful_on")?);
    let max_attempts = match reader.field("max_attempts") {
        Some(field) => {
            let number = field.as_i64()?;
            u32::try_from(number)
                .map_err(|_| field.error(format!("expected 0 or more, found `{number}`")))?
        }
        None => 0,
    };
    let retry = Retry {
        period: batching::period(&mut reader, "period")?,
        max_attempts,
        max_backoff: batching::period(&mut reader, "max_backoff")?,
        drop_on,
        successful_on,
    };
    warnings.extend(reader.finish()?);
    Ok(retry)
}

fn status(field: &Field<'_>) -> Result<StatusCode, ConfigError> {
    let number = field.as_i64()?;
    let code = u16::try_from(number).ok();
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    code.ok_or_else(|| field.error(format!("expected a status of HTTP, found `{number}`")))
}

fn read_rate(
    mut reader: Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Rate>, ConfigError> {
    let Some(field) = reader.field("count") else {
        return Err(reader.missing("count", "how many requests there may be in an interval"));
    };
    let number = field.as_i64()?;
    let count = u32::try_from(number).ok().filter(|count| *count > 0);
    let count =
        count.ok_or_else(|| field.error(format!("expected 1 or more, found `{number}`")))?;
    let Some(interval) = batching::period(&mut reader, "interval")? else {
        return Err(reader.missing("interval", "a duration such as `1s`"));
    };
    warnings.extend(reader.finish()?);
    Ok(Some(Rate { count, interval }))
}
