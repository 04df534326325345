//! An echo service behind the policies of your own OPA configuration and bundles.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin serve -- --config-file opa.yaml --listen 127.0.0.1:8080
//! ```

#![expect(clippy::print_stderr, reason = "the last words of a program")]

mod apps;
mod args;
mod echo;
mod reload;
mod telemetry;
mod traced;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use opa_core::config::{ConfigError, EnvPolicy};
use opa_plugins::decision_logs::DecisionLogs;
#[cfg(feature = "kafka")]
use opa_plugins::decision_logs::outputs;
use opa_plugins::decision_logs::outputs::{File, Otlp, S3};
#[cfg(unix)]
use opa_plugins::decision_logs::spool::SpoolConfig;
use opa_plugins::metrics::Metrics;
use opa_tower::{Manager, admin};

use crate::args::Args;
use crate::telemetry::Telemetry;

/// How often `--watch` looks at the configuration.
const WATCH: Duration = Duration::from_secs(1);

/// The exit code for arguments and configuration that are wrong, as clap's.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse().check().unwrap_or_else(|error| error.exit());
    let telemetry = match telemetry::start() {
        Ok(telemetry) => telemetry,
        Err(error) => return refuse(&error),
    };
    let decision_logs = opa_plugins::decision_logs()
        .output_type("file", File::default())
        .output_type("otlp", Otlp::default())
        .output_type("s3", S3::default());
    #[cfg(feature = "kafka")]
    let decision_logs = decision_logs.output_type("kafka", outputs::Kafka::default());
    let decision_logs = spooled(decision_logs, &args);
    let events = decision_logs.report();
    let manager = match manager(&args, &telemetry, decision_logs) {
        Ok(manager) => manager,
        Err(error) => return refuse(&error),
    };
    let metrics = opa_plugins::metrics(&manager).decision_logs(events);
    let ran = run(args, manager, metrics, telemetry.is_on()).await;
    if ran.is_ok() {
        telemetry.shutdown(examples::DEADLINE).await;
    }
    examples::exit(ran)
}

#[cfg(unix)]
fn spooled(decision_logs: DecisionLogs, args: &Args) -> DecisionLogs {
    let Some(path) = &args.spool else {
        return decision_logs;
    };
    let mut config = SpoolConfig::new(path);
    config.max_bytes = args.spool_bytes;
    config.max_absence = args.spool_max_absence;
    decision_logs.spool(config)
}

#[cfg(not(unix))]
fn spooled(decision_logs: DecisionLogs, _: &Args) -> DecisionLogs {
    decision_logs
}

fn refuse(error: &dyn Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(USAGE)
}

fn manager(
    args: &Args,
    telemetry: &Telemetry,
    decision_logs: DecisionLogs,
) -> Result<Manager, ConfigError> {
    let mut builder = Manager::builder().config_file(&args.config_file);
    for options in &args.set {
        builder = builder.set(options);
    }
    for options in &args.set_file {
        builder = builder.set_file(options);
    }
    if args.watch {
        builder = builder.watch_config(WATCH);
    }
    if telemetry.is_on() {
        builder = builder.trace_context(opa_plugins::opentelemetry());
    }
    let status = opa_plugins::status().with_decision_logs(decision_logs.upload_status());
    decision_logs.on_upload(status.upload_listener());
    builder
        .env(EnvPolicy::allow(&args.allow_env))
        .plugin(decision_logs)
        .plugin(status)
        .max_apps(args.max_apps.get())
        .grace(args.grace)
        .permit_dry_run(args.permit_dry_run)
        .build()
}

async fn run(
    args: Args,
    manager: Manager,
    metrics: Metrics,
    traces: bool,
) -> Result<(), Box<dyn Error>> {
    let interrupt = examples::interrupt()?;
    reload::at_hangup(manager.clone())?;
    let router = match args.trust_app_header {
        true => apps::named_by_header(manager.clone(), args.body_unseen),
        false => apps::fixed(manager.app(&args.app)?, args.body_unseen),
    };
    let router = match traces {
        true => traced::traced(router),
        false => router,
    };
    let listener = examples::listen(args.listen).await?;
    let admin = match args.admin {
        Some(address) => Some(examples::listen(address).await?),
        None => None,
    };

    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    if let Some(admin) = admin {
        writeln!(stdout, "admin on http://{}", admin.local_addr()?)?;
        let service = admin::service(manager.clone()).metrics(move || metrics.text());
        let router = Router::new().fallback_service(service);
        tokio::spawn(axum::serve(admin, router).into_future());
    }
    examples::serve(listener, router, interrupt, &manager).await?;
    Ok(())
}
