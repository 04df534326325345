//! The output `kafka`: messages in a topic.

mod cluster;
pub(super) mod config;
mod partition;
mod tls;

use std::collections::HashMap;
use std::iter;
use std::ops::Range;
use std::sync::{Arc, Weak};

use opa_core::config::{ConfigError, Section};
use opa_core::plugin::Scope;
use parking_lot::Mutex;
use rskafka::chrono::{DateTime, Utc};
use rskafka::record::Record;

use self::cluster::{Cluster, Refused};
use self::config::{Settings, Target};
use super::super::output::{Batch, LoggedEvent, Output, OutputError, OutputFuture, OutputType};
use super::options::Warned;

/// Appends events to a topic of Apache Kafka 0.11 or later.
///
/// | Option | Default | |
/// | --- | --- | --- |
/// | `brokers` | required | addresses that the cluster is asked at, `host:port` each; the port is 9092 by default |
/// | `topic` | required | it is not created |
/// | `format` | `none` | a message for each event, or one for each batch: `lines` of JSON, or one JSON `array` |
/// | `compression` | `none` | or `gzip`, of Kafka's own kind, which readers don't notice |
/// | `timeout_seconds` | 10 | for each request, and what it needs (connections, the topic's leader) |
/// | `max_request_bytes` | 1000000 | larger batches are sent in parts; brokers take 1 MiB by default |
/// | `tls` | none | an object, maybe empty: connections are encrypted |
/// | `tls.ca_cert` | the system's | a file of authorities (PEM) |
/// | `tls.cert`, `tls.private_key` | none | files of a certificate of our own (PEM) |
/// | `tls.skip_cert_verify` | `false` | whether any certificate of a broker will do |
/// | `sasl.mechanism` | none | `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512` |
/// | `sasl.username`, `sasl.password` | required with `sasl` | |
///
/// The key of a message is the app, so that the events of an app keep their order; the partition is
/// the one that Kafka's own producers choose for this key. The time of a message is that of its
/// sending: brokers refuse times that are far from theirs, as those of a spool can be.
///
/// Events count as delivered when all in-sync replicas have them (`acks=all`). After an error the
/// batch is appended again, also when the topic or the permission is missing: nothing is lost, but
/// an event can be there twice, with the same decision id. Only an event that is larger than the
/// broker takes is given up ([`OutputError::lost`]).
///
/// Where a quota of the broker slows producers down (`producer_byte_rate`), the client library of this
/// version sends what was slowed down again, up to a few times, each time with the same decision ids:
/// the quota should leave the log out.
///
/// All apps with the same brokers, TLS and SASL share their connections, one for each partition
/// that is used. Certificates are read again with each new connection.
///
/// The client library brings a second cryptography into the program, though not into use: one that
/// has `rustls` choose by itself must choose, with `CryptoProvider::install_default`.
#[derive(Debug, Default)]
pub struct Kafka {
    warned: Warned,
    clusters: Clusters,
}

impl OutputType for Kafka {
    fn open(&self, section: &Section, _: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> {
        let mut warnings = Vec::new();
        let settings = Settings::read(section, &mut warnings)?;
        self.warned.about(warnings);
        let producer = self.clusters.producer(settings);
        let producer = producer.map_err(|problem| section.error(format!("tls: {problem}")))?;
        Ok(Arc::new(producer))
    }
}

/// The clusters that apps use; one that no app uses any more goes.
#[derive(Debug, Default)]
pub(super) struct Clusters(Mutex<HashMap<Target, Weak<Cluster>>>);

impl Clusters {
    /// # Errors
    /// What is wrong with the files of TLS.
    pub(super) fn producer(&self, settings: Settings) -> Result<Producer, String> {
        let cluster = self.cluster(&settings.target)?;
        Ok(Producer { cluster, settings })
    }

    fn cluster(&self, target: &Target) -> Result<Arc<Cluster>, String> {
        let mut clusters = self.0.lock();
        if let Some(cluster) = clusters.get(target).and_then(Weak::upgrade) {
            return Ok(cluster);
        }
        if let Some(files) = &target.tls {
            tls::config(files)?;
        }
        let cluster = Arc::new(Cluster::new(target.clone()));
        if clusters.len() == clusters.capacity() {
            // It would grow: first what no app uses any more goes.
            clusters.retain(|_, cluster| cluster.strong_count() > 0);
        }
        clusters.insert(target.clone(), Arc::downgrade(&cluster));
        Ok(cluster)
    }
}

/// The output of one app.
#[derive(Debug)]
pub(super) struct Producer {
    cluster: Arc<Cluster>,
    settings: Settings,
}

impl Output for Producer {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(self.append(batch))
    }
}

impl Producer {
    async fn append(&self, batch: &Batch) -> Result<(), OutputError> {
        let key = batch.app.as_str().as_bytes();
        // The last one is next.
        let mut waiting: Vec<_> = iter::once(0..batch.events.len()).collect();
        let mut lost = Lost::default();
        while let Some(part) = waiting.pop() {
            let events = batch.events.get(part.clone()).unwrap_or_default();
            let is_one = events.len() < 2;
            if size(events) > self.settings.max_request_bytes && !is_one {
                waiting.extend(halves(&part));
                continue;
            }
            let records = self.records(key, events).await?;
            let Settings {
                topic,
                compression,
                timeout,
                ..
            } = &self.settings;
            let appending = self
                .cluster
                .append(topic, key, records, *compression, *timeout);
            match appending.await {
                Ok(()) => {}
                Err(Refused::TooLarge(_)) if !is_one => waiting.extend(halves(&part)),
                Err(Refused::TooLarge(why)) => lost.add(events.len(), why),
                Err(Refused::Now(message)) => return Err(OutputError::new(message)),
            }
        }
        lost.into_result()
    }

    async fn records(
        &self,
        key: &[u8],
        events: &[LoggedEvent],
    ) -> Result<Vec<Record>, OutputError> {
        let messages = self.settings.form.messages(events).await;
        let messages =
            messages.map_err(|error| OutputError::new(format!("it can't be packed: {error}")))?;
        let now = DateTime::<Utc>::from_timestamp_millis(jiff::Timestamp::now().as_millisecond());
        let now = now.unwrap_or_default();
        let record = |message: bytes::Bytes| Record {
            key: Some(key.to_vec()),
            value: Some(message.into()),
            headers: Default::default(),
            timestamp: now,
        };
        Ok(messages.into_iter().map(record).collect())
    }
}

/// About what events are in a request.
fn size(events: &[LoggedEvent]) -> usize {
    /// A record's own fields, and the key.
    const OVERHEAD: usize = 256;
    events.iter().map(|event| event.json.len() + OVERHEAD).sum()
}

/// The first half last.
fn halves(part: &Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [middle..part.end, part.start..middle]
}

/// What was given up, and the first reason.
#[derive(Debug, Default)]
struct Lost {
    events: usize,
    why: Option<String>,
}

impl Lost {
    fn add(&mut self, events: usize, why: String) {
        self.events += events;
        self.why.get_or_insert(why);
    }

    fn into_result(self) -> Result<(), OutputError> {
        let Some(why) = self.why else {
            return Ok(());
        };
        let mut error = OutputError::new(format!("{} events are lost: {why}", self.events));
        error.is_permanent = true;
        error.lost = Some(self.events);
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use opa_core::AppId;
    use serde_json::json;

    use super::*;

    fn settings(more: &[(&str, serde_json::Value)]) -> Settings {
        let mut section = json!({"brokers": ["127.0.0.1:1"], "topic": "log"});
        for (key, value) in more {
            section[*key] = value.clone();
        }
        let section = Section::from_json("output", &section);
        Settings::read(&section, &mut Vec::new()).unwrap()
    }

    fn events() -> Vec<LoggedEvent> {
        let event = |seconds: u64| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            LoggedEvent::new("1".into(), at, format!("{{\"n\":{seconds}}}").into())
        };
        vec![event(1), event(2)]
    }

    #[test]
    fn apps_with_the_same_cluster_share_its_connections() {
        let clusters = Clusters::default();
        let of = |more: &[_]| clusters.producer(settings(more)).unwrap().cluster;
        let first = of(&[("topic", json!("a"))]);
        assert!(Arc::ptr_eq(&first, &of(&[("topic", json!("b"))])));
        assert!(!Arc::ptr_eq(&first, &of(&[("tls", json!({}))])));
        let sasl = json!({"mechanism": "PLAIN", "username": "u", "password": "p"});
        assert!(!Arc::ptr_eq(&first, &of(&[("sasl", sasl)])));
    }

    #[test]
    fn files_of_tls_that_are_missing_are_told() {
        let missing = settings(&[("tls", json!({"ca_cert": "/none.pem"}))]);
        let error = Clusters::default().producer(missing).unwrap_err();
        assert!(error.contains("/none.pem"), "{error}");
    }

    #[tokio::test]
    async fn a_batch_is_a_message_for_each_event_or_one_for_all() {
        for (format, wanted) in [
            ("none", &["{\"n\":1}", "{\"n\":2}"][..]),
            ("lines", &["{\"n\":1}\n{\"n\":2}"]),
        ] {
            let producer = Clusters::default().producer(settings(&[("format", json!(format))]));
            let records = producer.unwrap().records(b"shop", &events()).await.unwrap();
            let shown = records.iter().map(|record| {
                assert_eq!(record.key.as_deref(), Some(&b"shop"[..]));
                let value = record.value.as_deref().unwrap_or_default();
                std::str::from_utf8(value).unwrap()
            });
            assert_eq!(shown.collect::<Vec<_>>(), wanted);
        }
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = listener.local_addr().unwrap().to_string();
        let options = [
            ("brokers", json!([broker])),
            ("timeout_seconds", json!(0.05)),
        ];
        let producer = Clusters::default().producer(settings(&options)).unwrap();
        let batch = Batch::new(AppId::new("shop").unwrap(), None, events());
        for _ in 0..2 {
            let error = producer.deliver(&batch).await.unwrap_err();
            assert_eq!(error, OutputError::new("no answer within 50ms"));
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_there_is_an_error_that_may_go_away() {
        let producer = Clusters::default().producer(settings(&[])).unwrap();
        let batch = Batch::new(AppId::new("shop").unwrap(), None, events());
        let error = producer.deliver(&batch).await.unwrap_err();
        assert!(!error.is_permanent);
        assert!(error.message.contains("refused"), "{error}");
    }
}
