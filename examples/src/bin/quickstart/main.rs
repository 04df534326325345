//! Virtual OPAs in one process protect an axum service, three of them from the start and one once
//! its bundle is published; a bundle server has their policies.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin quickstart
//! ```

mod bundles;
mod server;
mod service;
mod tour;

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use opa_core::config::{ConfigError, EnvPolicy};
use opa_tower::Manager;
use tracing_subscriber::filter::LevelFilter;

use crate::server::Shelf;
use crate::tour::Tour;

const CONFIG: &str = include_str!("../../../quickstart/opa.yaml");

/// How long the first bundles may take.
const START: Duration = Duration::from_secs(30);

/// A service whose routes are protected by virtual OPAs, and the bundle server of their policies.
#[derive(Parser)]
#[command(name = "quickstart")]
struct Args {
    /// Where the service listens. Default: a free port.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:0",
        hide_default_value = true
    )]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::exit(run(Args::parse()).await)
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // On purpose the server lacks a bundle: that need not be told at each attempt.
    examples::log(LevelFilter::ERROR);
    let mut interrupt = examples::interrupt()?;

    let listener = examples::listen(args.listen).await?;
    let bundles = start_bundle_server().await?;
    let manager = manager(&bundles)?;
    let apps = service::Apps::new(&manager)?;
    tokio::select! {
        ready = apps.ready(START) => ready?,
        () = &mut interrupt => return Ok(()),
    }

    let service = format!("http://{}", listener.local_addr()?);
    let tour = Tour {
        service: &service,
        bundles: &bundles,
    };
    write!(io::stdout(), "{tour}")?;
    examples::serve(listener, apps.router(), interrupt, &manager).await?;
    Ok(())
}

/// Starts the bundle server on a free port. Answers its URL.
async fn start_bundle_server() -> Result<String, Box<dyn Error>> {
    let shelf = Shelf::new(bundles::all()?);
    for (app, revision) in [
        ("orders", "orders-1"),
        ("reports", "reports-1"),
        ("blue", "blue-1"),
    ] {
        shelf
            .publish(app, revision)
            .ok_or("there is no such revision")?;
    }
    let listener = examples::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, shelf.router()).into_future());
    Ok(url)
}

/// The manager of all apps, from OPA's own configuration.
fn manager(bundles: &str) -> Result<Manager, ConfigError> {
    let bundles = bundles.to_owned();
    let env = EnvPolicy::allow(["CONTROL_PLANE"]).with_lookup(move |_| Some((&bundles).into()));
    Manager::builder()
        .config_yaml(CONFIG)
        .env(env)
        .plugin(opa_plugins::decision_logs())
        .build()
}
