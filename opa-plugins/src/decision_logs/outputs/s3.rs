//! The output `s3`: one object for each batch, put through a configured service.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use opa_core::config::{ConfigError, Field, Section};
use opa_core::plugin::Scope;
use opa_core::service::ServiceClient;
use sha2::{Digest, Sha256};

use super::super::output::{Batch, LoggedEvent, Output, OutputError, OutputFuture, OutputType};
use super::options::{Warned, answered};

/// Puts each batch as an object into a bucket.
///
/// | Option | Default | |
/// | --- | --- | --- |
/// | `service` | required | a service of the configuration: its `url` has the bucket, its credentials sign (`s3_signing`) |
/// | `prefix` | none | what keys start with |
/// | `format` | `lines` | `lines` of JSON, or one JSON `array` |
/// | `compress` | `true` | whether objects are compressed with gzip |
///
/// The key is `<prefix>/<app>/<year>/<month>/<day>/<time>-<digest>.jsonl.gz` (`.json` for arrays),
/// with the time of the batch's first event in UTC and the digest of its events: the same batch has
/// the same key, so that one that is put again replaces itself.
///
/// An answer that is no success is an error, and the batch is put again, whatever the answer: with
/// the right keys, a bucket that is there again, nothing is lost.
#[derive(Debug, Default)]
pub struct S3 {
    warned: Warned,
}

#[derive(Clone, Debug)]
struct Bucket {
    service: ServiceClient,
    /// Without slashes at its ends.
    prefix: String,
    form: Form,
}

/// What an object looks like.
#[derive(Clone, Copy, Debug)]
struct Form {
    is_array: bool,
    compress: bool,
}

impl OutputType for S3 {
    fn open(&self, section: &Section, scope: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> {
        let mut reader = section.reader()?;
        let Some(service) = reader.field("service") else {
            return Err(reader.missing("service", "the service that has the bucket"));
        };
        let service = client(&service, scope)?;
        let prefix = reader.field("prefix");
        let prefix = prefix.map(|field| checked(&field, &service)).transpose()?;
        let is_array = match reader.field("format") {
            Some(field) => is_array(&field)?,
            None => false,
        };
        let compress = reader.bool("compress")?.unwrap_or(true);
        self.warned.about(reader.finish()?);
        Ok(Arc::new(Bucket {
            service,
            prefix: prefix.unwrap_or_default(),
            form: Form { is_array, compress },
        }))
    }
}

fn client(field: &Field<'_>, scope: &Scope<'_>) -> Result<ServiceClient, ConfigError> {
    let name = field.as_str()?;
    if scope.config.services.iter().any(|one| one.name == name) {
        return scope.service(name);
    }
    Err(field.error(format!("there is no service `{name}`")))
}

fn checked(field: &Field<'_>, service: &ServiceClient) -> Result<String, ConfigError> {
    let prefix = field.as_str()?.trim_matches('/');
    if prefix.contains(['?', '#']) {
        return Err(field.error(format!("expected no `?` and `#`, found `{prefix}`")));
    }
    let checked = service.check_path(prefix);
    checked.map_err(|error| field.error(error.to_string()))?;
    Ok(prefix.to_owned())
}

fn is_array(field: &Field<'_>) -> Result<bool, ConfigError> {
    match field.as_str()? {
        "lines" => Ok(false),
        "array" => Ok(true),
        other => Err(field.error(format!("expected `lines` or `array`, found `{other}`"))),
    }
}

impl Output for Bucket {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(self.put(batch))
    }
}

impl Bucket {
    async fn put(&self, batch: &Batch) -> Result<(), OutputError> {
        let (form, events) = (self.form, batch.events.clone());
        let making = tokio::task::spawn_blocking(move || {
            let digest = digest(&events);
            Ok((digest, form.object(&events)?))
        });
        let made: io::Result<(String, Vec<u8>)> = making.await.map_err(io::Error::other).flatten();
        let (digest, object) =
            made.map_err(|error| OutputError::new(format!("the object can't be made: {error}")))?;

        let key = self.key(batch, &digest);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, self.form.content_type());
        let answer = self.service.put(&key, headers, Bytes::from(object)).await;
        let answer = answer.map_err(|error| OutputError::new(error.to_string()))?;
        answered(&answer)
    }

    fn key(&self, batch: &Batch, digest: &str) -> String {
        let first = batch.events.first();
        let time = first.and_then(|event| jiff::Timestamp::try_from(event.timestamp).ok());
        let time = time.unwrap_or_default();
        let (day, time) = (
            time.strftime("%Y/%m/%d"),
            time.strftime("%Y%m%dT%H%M%S%.3fZ"),
        );
        let (app, extension) = (batch.app.as_str(), self.form.extension());
        let key = format!("{app}/{day}/{time}-{digest}.{extension}");
        match &*self.prefix {
            "" => key,
            prefix => format!("{prefix}/{key}"),
        }
    }
}

/// Half of a SHA-256 of what is in a batch.
fn digest(events: &[LoggedEvent]) -> String {
    let mut sha = Sha256::new();
    for event in events {
        // No event has a line break in it.
        sha.update(&event.json);
        sha.update(b"\n");
    }
    let half = sha.finalize().into_iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

impl Form {
    fn object(self, events: &[LoggedEvent]) -> io::Result<Vec<u8>> {
        if !self.compress {
            let mut out = Vec::new();
            self.write(events, &mut out)?;
            return Ok(out);
        }
        // Without a time in its header the same batch is the same object.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        self.write(events, &mut gzip)?;
        gzip.finish()
    }

    fn write(self, events: &[LoggedEvent], out: &mut impl Write) -> io::Result<()> {
        let (open, between, close): (&[u8], &[u8], &[u8]) = match self.is_array {
            true => (b"[", b",", b"]\n"),
            false => (b"", b"\n", b"\n"),
        };
        let mut before = open;
        for event in events {
            out.write_all(before)?;
            out.write_all(&event.json)?;
            before = between;
        }
        out.write_all(close)
    }

    fn extension(self) -> &'static str {
        match (self.is_array, self.compress) {
            (false, false) => "jsonl",
            (false, true) => "jsonl.gz",
            (true, false) => "json",
            (true, true) => "json.gz",
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match (self.is_array, self.compress) {
            (_, true) => "application/gzip",
            (false, false) => "application/x-ndjson",
            (true, false) => "application/json",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, SystemTime};

    use opa_core::AppId;

    use super::super::options::testing::open;
    use super::*;

    fn events() -> Vec<LoggedEvent> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_798_808_399_007);
        let event = |id: &str| {
            let json = format!("{{\"decision_id\":\"{id}\"}}").into();
            LoggedEvent::new(id.into(), at, json)
        };
        vec![event("1"), event("2")]
    }

    #[test]
    fn objects_are_lines_or_an_array_and_may_be_compressed() {
        let lines = "{\"decision_id\":\"1\"}\n{\"decision_id\":\"2\"}\n";
        let array = "[{\"decision_id\":\"1\"},{\"decision_id\":\"2\"}]\n";
        for (is_array, wanted) in [(false, lines), (true, array)] {
            let plain = Form {
                is_array,
                compress: false,
            };
            assert_eq!(plain.object(&events()).unwrap(), wanted.as_bytes());
            let small = Form {
                compress: true,
                ..plain
            };
            let object = small.object(&events()).unwrap();
            let mut text = String::new();
            let mut read = flate2::read::GzDecoder::new(&*object);
            read.read_to_string(&mut text).unwrap();
            assert_eq!(text, wanted);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_an_error_and_the_same_batch_has_the_same_key_and_another_has_another()
     {
        let config = r#"{"service": "store", "prefix": "/logs/eu/"}"#;
        let output = open(S3::default(), config).unwrap();
        let batch = Batch::new(AppId::new("shop").unwrap(), None, events());
        let refused = output.deliver(&batch).await.unwrap_err();
        assert!(!refused.is_permanent, "{refused}");

        let mut other = events();
        other.pop();
        assert_eq!(digest(&events()), digest(&events()));
        assert_ne!(digest(&events()), digest(&other));
    }

    #[tokio::test]
    async fn the_key_tells_prefix_app_day_and_time() {
        let service = super::super::options::testing::service();
        let bucket = |prefix: &str| Bucket {
            service: service.clone(),
            prefix: prefix.to_owned(),
            form: Form {
                is_array: false,
                compress: true,
            },
        };
        let batch = Batch::new(AppId::new("shop").unwrap(), None, events());
        let key = "shop/2027/01/01/20270101T125959.007Z-d1.jsonl.gz";
        assert_eq!(bucket("").key(&batch, "d1"), key);
        assert_eq!(bucket("a/b").key(&batch, "d1"), format!("a/b/{key}"));
    }

    #[tokio::test]
    async fn wrong_options_are_errors_with_their_place() {
        for (config, wanted) in [
            ("{}", "output.service"),
            (r#"{"service": "none"}"#, "there is no service `none`"),
            (
                r#"{"service": "store", "format": "xml"}"#,
                "output.format: expected `lines` or `array`, found `xml`",
            ),
            (
                r#"{"service": "store", "prefix": "a/../b"}"#,
                "output.prefix",
            ),
            (r#"{"service": "store", "prefix": "a?b"}"#, "output.prefix"),
            (r#"{"service": "store", "compress": 1}"#, "output.compress"),
        ] {
            let error = open(S3::default(), config).unwrap_err();
            assert!(error.to_string().contains(wanted), "{config}: {error}");
        }
    }
}
