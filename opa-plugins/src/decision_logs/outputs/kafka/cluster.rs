//! The connections to one cluster, shared by all apps that use it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use tokio::sync::{Mutex, OnceCell};

use super::config::{Mechanism, Target};
use super::{partition, tls};

const CLIENT_ID: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The largest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How the client looks for a new leader or another broker before it gives up, which is soon:
/// whoever delivers tries again, in order.
const BACKOFF: BackoffConfig = BackoffConfig {
    init_backoff: Duration::from_millis(50),
    max_backoff: Duration::from_millis(500),
    base: 2.0,
    deadline: Some(Duration::from_millis(500)),
};

/// Why records are not in the topic.
#[derive(Debug)]
pub(super) enum Refused {
    /// They are more than the broker takes at once.
    TooLarge(String),
    /// It may be otherwise later.
    Now(String),
}

/// Connections to a cluster, made when they are needed, and made anew after an error.
pub(super) struct Cluster {
    target: Target,
    connected: Mutex<Option<Arc<Connected>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            connected: Mutex::default(),
        }
    }

    /// Appends records to the partition of `key`, and waits until all in-sync replicas have them.
    pub(super) async fn append(
        &self,
        topic: &str,
        key: &[u8],
        records: Vec<Record>,
        compression: Compression,
        timeout: Duration,
    ) -> Result<(), Refused> {
        let mut used = None;
        let appending = async {
            let connected = self.connected().await?;
            used = Some(Arc::clone(&connected));
            connected.append(topic, key, records, compression).await
        };
        let appended = tokio::time::timeout(timeout, appending).await;
        let appended =
            appended.unwrap_or_else(|_| Err(Refused::Now(format!("no answer within {timeout:?}"))));
        if let (Err(Refused::Now(_)), Some(used)) = (&appended, &used) {
            self.forget(used).await;
        }
        appended
    }

    async fn connected(&self) -> Result<Arc<Connected>, Refused> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = &*connected {
            return Ok(Arc::clone(connected));
        }
        let made = Arc::new(Connected::new(&self.target).await?);
        *connected = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The next one looks up names, certificates and leaders again.
    async fn forget(&self, used: &Arc<Connected>) {
        let mut connected = self.connected.lock().await;
        if connected.as_ref().is_some_and(|it| Arc::ptr_eq(it, used)) {
            *connected = None;
        }
    }
}

/// A client that knows its cluster.
struct Connected {
    client: Client,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

/// The partitions of a topic. The number stays while the client lives, so that a key stays where
/// it is.
struct Topic(Vec<(i32, OnceCell<PartitionClient>)>);

impl Connected {
    async fn new(target: &Target) -> Result<Self, Refused> {
        let mut client = ClientBuilder::new(target.brokers.clone())
            .client_id(CLIENT_ID)
            .max_message_size(MAX_ANSWER)
            .backoff_config(BACKOFF);
        if let Some(files) = target.tls.clone() {
            let reading = tokio::task::spawn_blocking(move || tls::config(&files)).await;
            let config = reading.map_err(|error| error.to_string()).flatten();
            client = client.tls_config(config.map_err(Refused::Now)?);
        }
        if let Some(sasl) = &target.sasl {
            let password = sasl.password.expose().to_owned();
            let credentials = Credentials::new(sasl.username.clone(), password);
            client = client.sasl_config(match sasl.mechanism {
                Mechanism::Plain => SaslConfig::Plain(credentials),
                Mechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
                Mechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
            });
        }
        Ok(Self {
            client: client.build().await.map_err(refused)?,
            topics: Mutex::default(),
        })
    }

    async fn append(
        &self,
        topic: &str,
        key: &[u8],
        records: Vec<Record>,
        compression: Compression,
    ) -> Result<(), Refused> {
        let partitions = self.topic(topic).await?;
        let partition = partition::partition(key, partitions.0.len());
        let Some((number, client)) = partitions.0.get(partition) else {
            return Err(Refused::Now(format!("topic `{topic}` has no partition")));
        };
        let connecting = || {
            let unknown = UnknownTopicHandling::Error;
            self.client.partition_client(topic, *number, unknown)
        };
        let client = client.get_or_try_init(connecting).await.map_err(refused)?;
        let produced = client.produce(records, compression).await;
        produced.map(drop).map_err(refused)
    }

    async fn topic(&self, name: &str) -> Result<Arc<Topic>, Refused> {
        let mut topics = self.topics.lock().await;
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let all = self.client.list_topics().await.map_err(refused)?;
        let Some(found) = all.into_iter().find(|topic| topic.name == name) else {
            return Err(Refused::Now(format!("there is no topic `{name}`")));
        };
        let numbers = found.partitions.into_iter();
        let topic = Arc::new(Topic(
            numbers.map(|number| (number, OnceCell::new())).collect(),
        ));
        topics.insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }
}

fn refused(error: Error) -> Refused {
    match error {
        Error::ServerError {
            protocol_error: ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge,
            ..
        } => Refused::TooLarge("the broker takes no message that large".to_owned()),
        Error::ServerError { protocol_error, .. } => {
            Refused::Now(format!("the broker refused: {protocol_error}"))
        }
        error => Refused::Now(error.to_string()),
    }
}
