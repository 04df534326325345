//! Apache Kafka: one node that is broker and controller, and Kafka's own tools.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::certificates::Authority;

pub(super) const RECIPE: Recipe = Recipe {
    name: "kafka",
    version: "4.1.2",
    install,
};

/// Who may come to the listener with SASL.
pub const KAFKA_USER: &str = "opa";
/// Their password.
pub const KAFKA_PASSWORD: &str = "pass word";

const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
const HEAP: &str = "-Xmx384m";
const TOOL_HEAP: &str = "-Xmx128m";

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("java", "-version")?;
    fetch::require("mvn", "--version")?;
    let version = RECIPE.version;
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies: String = [
        ("org.apache.kafka", "kafka_2.13", version),
        ("org.apache.kafka", "kafka-tools", version),
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    ]
    .map(dependency)
    .concat();
    let project = folder.join("pom.xml");
    let text = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>peers</groupId><artifactId>kafka</artifactId><version>1</version>\
         <dependencies>{dependencies}</dependencies></project>"
    );
    fs::write(&project, text).map_err(|error| error.to_string())?;
    let lib = folder.join("lib");
    let mut maven = fetch::step("mvn");
    maven
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&project);
    maven.arg("dependency:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", lib.display()));
    fetch::run(&mut maven)?;
    Ok(lib.join(format!("kafka_2.13-{version}.jar")))
}

/// The installed jars.
#[derive(Clone, Debug)]
pub struct Kafka {
    jar: PathBuf,
}

impl Kafka {
    pub(super) fn at(jar: PathBuf) -> Kafka {
        Kafka { jar }
    }

    /// Starts a cluster of one, without topics, which are not created by themselves.
    pub async fn start(&self) -> RunningKafka {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningKafka, StartError> {
        let reserve = || Port::reserve().expect("a port of loopback can be reserved");
        let ports = Ports {
            controller: reserve(),
            plain: reserve(),
            sasl: reserve(),
            tls: reserve(),
        };
        let folder = TempDir::with_prefix("kafka-").expect("a directory can be made");
        let authority = Authority::new("kafka authority");
        let (certificate, key) = authority.issue("broker");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the file can be written");
            path
        };
        write("ca.pem", authority.pem());
        let store = write("broker.pem", format!("{key}{certificate}"));
        let properties = properties(&ports, &folder.path().join("data"), &store);
        let properties = write("server.properties", properties);

        let mut format = self.java(TOOL_HEAP, "kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]);
        format.arg(&properties);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let user = format!("{mechanism}=[name={KAFKA_USER},password={KAFKA_PASSWORD}]");
            format.args(["--add-scram", &user]);
        }
        answer(format).await;
        let process = self.broker(&properties, &ports).await?;
        Ok(RunningKafka {
            kafka: self.clone(),
            process: Some(process),
            ports,
            folder,
        })
    }

    async fn broker(&self, properties: &Path, ports: &Ports) -> Result<Process, StartError> {
        let mut process = Process::spawn("kafka", |_| {
            let mut command = self.java(HEAP, "kafka.Kafka");
            command.arg(properties);
            Ok(command)
        })?;
        // Listeners open when the broker may be used.
        let probe = async || {
            let connected = tokio::net::TcpStream::connect(ports.plain.address()).await;
            connected.ok().map(drop)
        };
        process.until("listening", probe).await?;
        Ok(process)
    }

    fn java(&self, heap: &str, class: &str) -> Command {
        let lib = self.jar.parent().unwrap_or(Path::new("."));
        let mut command = Command::new("java");
        // It starts faster so, and lives too short for more.
        command.args([heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-cp").arg(lib.join("*")).arg(class);
        command
    }
}

#[derive(Debug)]
struct Ports {
    controller: Port,
    plain: Port,
    sasl: Port,
    tls: Port,
}

fn properties(ports: &Ports, data: &Path, store: &Path) -> String {
    let at = |port: &Port| port.address().to_string();
    let (controller, plain) = (at(&ports.controller), at(&ports.plain));
    let (sasl, tls) = (at(&ports.sasl), at(&ports.tls));
    let open = format!("PLAIN://{plain},SASL://{sasl},TLS://{tls}");
    let login = "org.apache.kafka.common.security";
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=CONTROLLER://{controller},{open}\n\
         advertised.listeners={open}\n\
         listener.security.protocol.map=\
         CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL\n\
         inter.broker.listener.name=PLAIN\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         group.initial.rebalance.delay.ms=0\n\
         listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl.plain.sasl.jaas.config={login}.plain.PlainLoginModule required \
         user_{KAFKA_USER}=\"{KAFKA_PASSWORD}\";\n\
         listener.name.tls.ssl.keystore.type=PEM\n\
         listener.name.tls.ssl.keystore.location={}\n",
        data.display(),
        store.display(),
    );
    for mechanism in ["scram-sha-256", "scram-sha-512"] {
        text += &format!(
            "listener.name.sasl.{mechanism}.sasl.jaas.config={login}.scram.ScramLoginModule \
             required;\n"
        );
    }
    text
}

/// A running cluster, ended when dropped.
#[derive(Debug)]
pub struct RunningKafka {
    kafka: Kafka,
    process: Option<Process>,
    ports: Ports,
    folder: TempDir,
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaMessage {
    /// Where it is.
    pub partition: usize,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl RunningKafka {
    /// The listener for everybody.
    pub fn plain(&self) -> SocketAddr {
        self.ports.plain.address()
    }

    /// The listener for [`KAFKA_USER`] by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, without TLS.
    pub fn sasl(&self) -> SocketAddr {
        self.ports.sasl.address()
    }

    /// The listener with TLS.
    pub fn tls(&self) -> SocketAddr {
        self.ports.tls.address()
    }

    /// The authority of its certificate, a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a topic, with settings such as `max.message.bytes=1000`.
    pub async fn create_topic(&self, name: &str, partitions: usize, settings: &[&str]) {
        let mut tool = self.tool("org.apache.kafka.tools.TopicCommand");
        tool.args(["--create", "--topic", name, "--partitions"]);
        tool.arg(partitions.to_string());
        for setting in settings {
            tool.args(["--config", setting]);
        }
        answer(tool).await;
    }

    /// All messages that are in a topic, those of each partition in their order.
    pub async fn messages(&self, topic: &str) -> Vec<KafkaMessage> {
        let mut offsets = self.tool("org.apache.kafka.tools.GetOffsetShell");
        offsets.args(["--topic", topic]);
        let offsets = answer(offsets).await;
        let ends = offsets.lines().filter_map(|line| line.rsplit(':').next());
        let count: usize = ends.map(|end| end.parse::<usize>().unwrap()).sum();
        if count == 0 {
            return Vec::new();
        }
        let mut consumer = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
        consumer.args([
            "--topic",
            topic,
            "--from-beginning",
            "--timeout-ms",
            "20000",
        ]);
        consumer.args(["--max-messages", &count.to_string()]);
        for shown in ["partition", "key"] {
            consumer.args(["--property", &format!("print.{shown}=true")]);
        }
        // Otherwise it may be a line break, which a value can have.
        consumer.args(["--property", "line.separator=\u{1}"]);
        let text = answer(consumer).await;
        let messages: Vec<_> = text.split_terminator('\u{1}').map(message).collect();
        assert_eq!(messages.len(), count, "{text}");
        messages
    }

    /// Kills the broker; what it acknowledged is on the disk.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the broker again after [`stop`](Self::stop), with its topics, at the same addresses.
    pub async fn start_again(&mut self) {
        let properties = self.folder.path().join("server.properties");
        let started = self.kafka.broker(&properties, &self.ports).await;
        self.process = Some(started.unwrap_or_else(|error| panic!("{error}")));
    }

    fn tool(&self, class: &str) -> Command {
        let mut tool = self.kafka.java(TOOL_HEAP, class);
        tool.args(["--bootstrap-server", &self.plain().to_string()]);
        tool
    }
}

fn message(line: &str) -> KafkaMessage {
    let mut parts = line.splitn(3, '\t');
    let mut next = || parts.next().unwrap_or_else(|| panic!("no message: {line}"));
    let partition = next().trim_start_matches("Partition:").parse().unwrap();
    KafkaMessage {
        partition,
        key: next().to_owned(),
        value: next().to_owned(),
    }
}

/// What a tool writes to standard output.
async fn answer(mut tool: Command) -> String {
    let run = tokio::task::spawn_blocking(move || fetch::run(&mut tool));
    let output = run.await.expect("the tool's thread ends");
    output.unwrap_or_else(|error| panic!("{error}"))
}
