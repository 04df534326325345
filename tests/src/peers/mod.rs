//! Real programs to test against: fetched once, started on loopback, stopped with their guard.
//!
//! Each function answers a handle of an installed program, or `None` after it has said on standard
//! error which test is skipped and why. With `CI=true` a missing peer panics.
//!
//! The guards of started programs wait until the program answers, keep its output, and end it when
//! they are dropped. A program doesn't outlive the test process, even if that one is killed.

mod decision_log;
mod envoy;
mod envoy_plugin;
mod fetch;
mod nginx;
mod opa;
mod ports;
mod process;
mod toxiproxy;
mod watchdog;

pub use decision_log::{Events, decision_logs};
pub use envoy::{Envoy, RunningEnvoy};
pub use envoy_plugin::{EnvoyPlugin, RunningEnvoyPlugin};
pub use nginx::{Nginx, RunningNginx};
pub use opa::{Opa, RunningOpa};
pub use process::{Process, StartError};
pub use toxiproxy::{RunningToxiproxy, Toxiproxy};

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
