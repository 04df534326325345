//! Real programs to test against: fetched once, started on loopback, stopped with their guard.
//!
//! Each function answers a handle of an installed program, or `None` after it has said on standard
//! error which test is skipped and why. With `CI=true` a missing peer panics.
//!
//! The guards of started programs wait until the program answers, keep its output, and end it when
//! they are dropped. A program doesn't outlive the test process, even if that one is killed.

mod collector;
mod decision_log;
mod docker_registry;
mod envoy;
mod envoy_plugin;
mod fetch;
mod kafka;
mod moto;
mod nginx;
mod oha;
mod opa;
mod oras;
mod ports;
mod process;
mod prometheus;
mod s3;
mod seaweedfs;
mod skipper;
mod toxiproxy;
mod versitygw;
mod watchdog;

pub use collector::{Collector, Received, RunningCollector};
pub use decision_log::{Events, decision_logs};
pub use docker_registry::{DockerRegistry, PASSWORD, RunningRegistry, USER};
pub use envoy::{Envoy, RunningEnvoy};
pub use envoy_plugin::{EnvoyPlugin, RunningEnvoyPlugin};
pub use kafka::{KAFKA_PASSWORD, KAFKA_USER, Kafka, KafkaMessage, RunningKafka};
pub use moto::Moto;
pub use nginx::{Nginx, RunningNginx, renew};
pub use oha::{Load, Loaded, Oha};
pub use opa::{Opa, RunningOpa};
pub use oras::Oras;
pub use process::{Process, StartError};
pub use prometheus::{Prometheus, RunningPrometheus};
pub use s3::{RunningS3, S3_REGION};
pub use seaweedfs::Seaweedfs;
pub use skipper::{RunningSkipper, Skipper};
pub use toxiproxy::{RunningToxiproxy, Toxiproxy};
pub use versitygw::{Versitygw, accesses as versitygw_accesses};

/// The `opa` command, version 1.22.2.
pub fn opa() -> Option<Opa> {
    fetch::fetch(&opa::RECIPE).map(Opa::at)
}

/// OPA with the Envoy external authorization plugin, version 1.15.2-envoy.
pub fn envoy_plugin() -> Option<EnvoyPlugin> {
    fetch::fetch(&envoy_plugin::RECIPE).map(EnvoyPlugin::at)
}

/// The Envoy proxy, version 1.40.0.
pub fn envoy() -> Option<Envoy> {
    fetch::fetch(&envoy::RECIPE).map(Envoy::at)
}

/// The OpenTelemetry collector, version 0.162.0, that writes what it receives over OTLP to files.
pub fn collector() -> Option<Collector> {
    fetch::fetch(&collector::RECIPE).map(Collector::at)
}

/// Toxiproxy, version 2.5.0.
pub fn toxiproxy() -> Option<Toxiproxy> {
    fetch::fetch(&toxiproxy::RECIPE).map(Toxiproxy::at)
}

/// nginx as the system installed it; tests never install system packages.
pub fn nginx() -> Option<Nginx> {
    fetch::find(
        "nginx",
        &["/usr/sbin/nginx"],
        "install the package nginx-light",
    )
    .map(Nginx::at)
}

/// The registry `docker-registry` as the system installed it.
pub fn docker_registry() -> Option<DockerRegistry> {
    let program = fetch::find(
        "docker-registry",
        &[],
        "install the package docker-registry",
    )?;
    let htpasswd = fetch::find("htpasswd", &[], "install the package apache2-utils")?;
    Some(DockerRegistry::at(program, htpasswd))
}

/// Prometheus and its `promtool` as the system installed them.
pub fn prometheus() -> Option<Prometheus> {
    let hint = "install the package prometheus";
    let program = fetch::find("prometheus", &[], hint)?;
    Some(Prometheus::at(program, fetch::find("promtool", &[], hint)?))
}

/// The `oras` command, version 1.3.6.
pub fn oras() -> Option<Oras> {
    fetch::fetch(&oras::RECIPE).map(Oras::at)
}

/// The Versity S3 gateway, version 1.8.0: S3's protocol over a directory.
pub fn versitygw() -> Option<Versitygw> {
    fetch::fetch(&versitygw::RECIPE).map(Versitygw::at)
}

/// SeaweedFS, version 4.48, with its S3 gateway.
pub fn seaweedfs() -> Option<Seaweedfs> {
    fetch::fetch(&seaweedfs::RECIPE).map(Seaweedfs::at)
}

/// moto, version 5.2.5, a mock of AWS's services that checks signatures.
pub fn moto() -> Option<Moto> {
    fetch::fetch(&moto::RECIPE).map(Moto::at)
}

/// Apache Kafka, version 4.1.2.
pub fn kafka() -> Option<Kafka> {
    fetch::fetch(&kafka::RECIPE).map(Kafka::at)
}

/// Skipper, version 0.27.0, whose filter has Open Policy Agent inside.
pub fn skipper() -> Option<Skipper> {
    fetch::fetch(&skipper::RECIPE).map(Skipper::at)
}

/// The load generator oha, version 1.16.0.
pub fn oha() -> Option<Oha> {
    fetch::fetch(&oha::RECIPE).map(Oha::at)
}
