//! The output `s3`.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use opa_core::config::{
    ConfigError, CredentialsConfig, Field, Reader, S3Keys, S3SigningConfig, Secret, Section,
    ServiceConfig, Warning,
};
use opa_core::plugin::Scope;
use opa_core::service::ServiceClient;
use sha2::{Digest, Sha256};

use super::super::super::output::{Batch, LoggedEvent, Output, OutputError, OutputFuture};
use super::super::Way;
use super::super::form::{Form, Format};
use super::super::options::answered;
use super::super::tls_files::TlsFiles;
use super::batching::{self, Gathering};
use super::http::secure;
use super::{NAME, Opened};

/// What is read.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    pub(super) service: ServiceConfig,
    pub(super) timeout: Duration,
    pub(super) gathering: Gathering,
}

impl S3 {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut text = |key| Ok::<_, ConfigError>(reader.string(key)?.unwrap_or_default());
        let (bucket, region) = (text("bucket")?, text("region")?);
        let (id, secret) = (text("access_key_id")?, text("access_secret")?);
        let missing: Vec<_> = [("bucket", bucket), ("region", region)]
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(key, _)| *key)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(reader.error(format!("output S3 missing required configs: {missing}")));
        }
        let keys = match (id.is_empty(), secret.is_empty()) {
            (true, true) => None,
            (false, false) => Some(S3Keys {
                access_key_id: id.to_owned(),
                secret_access_key: Secret::new(secret),
            }),
            (true, false) => return Err(reader.missing("access_key_id", "the id of the secret")),
            (false, true) => return Err(reader.missing("access_secret", "the secret of the id")),
        };
        let mut service = at_bucket(reader, bucket, region)?;
        service.response_header_timeout = None;
        if let Some(field) = reader.field("tls") {
            let tls = TlsFiles::read(field.reader()?, warnings)?;
            if tls.own.is_some() {
                let text =
                    "a client certificate beside signatures is not supported by this version";
                return Err(field.error(text));
            }
            secure(&mut service, tls);
        }
        let mut signing = S3SigningConfig::default();
        signing.region = Some(region.to_owned());
        signing.keys = keys;
        service.credentials = CredentialsConfig::S3Signing(signing);
        let mut gathering = Gathering::read(reader, warnings)?;
        // An object for each event can be put again without harm.
        gathering.singly = gathering.form.format == Format::Each;
        Ok(Self {
            service,
            timeout: batching::timeout(reader, warnings)?,
            gathering,
        })
    }

    pub(super) fn open(self, field: &Field<'_>, scope: &Scope<'_>) -> Result<Opened, ConfigError> {
        let client = super::client(&self.service, field, scope)?;
        let output = Objects {
            client,
            id: scope.labels.get("id").unwrap_or_default().to_owned(),
            form: self.gathering.form,
            timeout: self.timeout,
        };
        Ok(Opened {
            way: Way::Output(Arc::new(output)),
            gathering: self.gathering,
            max_retry: None,
        })
    }
}

/// The bucket's own URL.
fn at_bucket(
    reader: &mut Reader<'_>,
    bucket: &str,
    region: &str,
) -> Result<ServiceConfig, ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    for (key, value) in [("bucket", bucket), ("region", region)] {
        if !value.chars().all(allowed) || value.contains("..") {
            return Err(reader.error(format!("`{key}`: expected a name, found `{value}`")));
        }
    }
    let name = format!("{NAME}.s3");
    let by_path = reader.bool("force_path")?.unwrap_or_default();
    let Some(field) = reader.field("endpoint") else {
        let host = format!("s3.{region}.amazonaws.com");
        let url = match by_path {
            true => format!("https://{host}/{bucket}"),
            false => format!("https://{bucket}.{host}"),
        };
        let url = Section::from_json("endpoint", &url.into());
        return ServiceConfig::new(name, &url.field());
    };
    let mut service = ServiceConfig::new(name, &field)?;
    let base = service.url.trim_end_matches('/').to_owned();
    service.url = match by_path {
        true => format!("{base}/{bucket}"),
        false => {
            let (scheme, rest) = base.split_once("://").unwrap_or(("https", &base));
            format!("{scheme}://{bucket}.{rest}")
        }
    };
    Ok(service)
}

/// Puts objects.
#[derive(Debug)]
struct Objects {
    client: ServiceClient,
    /// The instance's.
    id: String,
    form: Form,
    timeout: Duration,
}

impl Output for Objects {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(self.put(batch))
    }
}

impl Objects {
    async fn put(&self, batch: &Batch) -> Result<(), OutputError> {
        let messages = self.form.messages(&batch.events).await;
        let messages = messages
            .map_err(|error| OutputError::new(format!("the object can't be made: {error}")))?;
        let events = match self.form.format {
            Format::Each => batch.events.chunks(1),
            Format::Lines | Format::Array => batch.events.chunks(batch.events.len().max(1)),
        };
        for (message, events) in messages.into_iter().zip(events) {
            self.put_one(&self.key(events), message).await?;
        }
        Ok(())
    }

    async fn put_one(&self, key: &str, object: Bytes) -> Result<(), OutputError> {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        let putting = self.client.put(key, headers, object);
        let answer = tokio::time::timeout(self.timeout, putting).await;
        let late = |_| OutputError::new(format!("no answer within {:?}", self.timeout));
        let answer = answer.map_err(late)?;
        answered(&answer.map_err(|error| OutputError::new(error.to_string()))?)
    }

    /// EOPA's, encoded as in a URL.
    fn key(&self, events: &[LoggedEvent]) -> String {
        let first = events.first();
        let seconds = |event: Option<&LoggedEvent>| {
            let at = event.map_or(SystemTime::UNIX_EPOCH, |event| event.timestamp);
            jiff::Timestamp::try_from(at)
                .unwrap_or_default()
                .as_second()
        };
        let mut key = format!("eopa={}/", encoded(&self.id));
        let (from, to) = (seconds(first), seconds(events.last()));
        let extension = match self.form.format {
            Format::Each => {
                let id = first.map_or("", |event| &event.decision_id);
                key += &format!("ts={from}/decision_id={}", encoded(id));
                "json"
            }
            Format::Lines | Format::Array => {
                let id = batch_id(events);
                key += &format!("first_ts={from}/last_ts={to}/batch_id={id}");
                if self.form.format == Format::Lines {
                    "jsonl"
                } else {
                    "json"
                }
            }
        };
        let gz = if self.form.gzip { ".gz" } else { "" };
        format!("{key}.{extension}{gz}")
    }
}

/// The same for the same events, in the form of a UUID.
fn batch_id(events: &[LoggedEvent]) -> String {
    let mut sha = Sha256::new();
    for event in events {
        // No event has a line break in it.
        sha.update(&event.json);
        sha.update(b"\n");
    }
    let mut id = String::new();
    for (index, byte) in sha.finalize().into_iter().take(16).enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            id.push('-');
        }
        // A text takes all that is written.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
