//! A process that activates bundles and tells what memory that took, in KiB.
//!
//! - `share ENGINE URL APPS`: activates one app, then all others; writes what is resident after
//!   each.
//! - `replace ENGINE URL`: activates a small bundle of another app, then the one at `/big`, then
//!   what comes after it. Writes for both what was resident before and at the most meanwhile. It
//!   asks for the second one as soon as it has written about the first.
//! - `parse FILE`: reads a JSON file and nothing else; writes what its value takes.

use std::error::Error;
use std::fs::File;
use std::time::Duration;

use opa_core::engine::{Engine, Regorus};
use opa_core::{App, Manager, Value};
use tests::memory;
use tests::scripted::Scripted;

const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["share", engine, url, apps] => share(manager(engine, url)?, apps.parse()?).await,
        ["replace", engine, url] => replace(manager(engine, url)?).await,
        ["parse", file] => parse(file),
        _ => Err("unexpected arguments".into()),
    }
}

fn manager(engine: &str, url: &str) -> Result<Manager, Box<dyn Error>> {
    let config = format!(
        "services: {{control: {{url: '{url}'}}}}\n\
         bundles: {{b: {{resource: '{{{{ .bundlename }}}}', polling: \
           {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
    );
    let builder = Manager::builder().config_yaml(&config);
    fn with(builder: opa_core::ManagerBuilder, engine: impl Engine) -> opa_core::ManagerBuilder {
        builder.engine(engine)
    }
    let builder = match engine {
        "regorus" => with(builder, Regorus::default()),
        _ => with(builder, Scripted::data()),
    };
    Ok(builder.grace(Duration::from_secs(1)).build()?)
}

async fn share(manager: Manager, apps: usize) -> Result<(), Box<dyn Error>> {
    let first = manager.app("app-0")?;
    first.ready(PATIENCE).await?;
    println!("{}", memory::resident());
    let others = (1..=apps).map(|app| manager.app(format!("app-{app}")));
    let others: Vec<App> = others.collect::<Result<_, _>>()?;
    for app in &others {
        app.ready(PATIENCE).await?;
    }
    println!("{}", memory::resident());
    Ok(())
}

async fn replace(manager: Manager) -> Result<(), Box<dyn Error>> {
    // What a first request needs is there before anything is measured.
    let small = manager.app("small")?;
    small.ready(PATIENCE).await?;

    let before = memory::resident();
    memory::reset_peak()?;
    let big = manager.app("big")?;
    until_revision(&big, "1").await;
    println!("{before} {}", memory::peak());

    let before = memory::resident();
    memory::reset_peak()?;
    println!("next");
    until_revision(&big, "2").await;
    println!("{before} {}", memory::peak());
    Ok(())
}

async fn until_revision(app: &App, wanted: &str) {
    let is_active = || {
        let status = app.status();
        let mut bundles = status.bundles.iter();
        bundles.any(|bundle| bundle.active_revision.as_deref() == Some(wanted))
    };
    while !is_active() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn parse(file: &str) -> Result<(), Box<dyn Error>> {
    let before = memory::resident();
    let value = Value::read_json(File::open(file)?)?;
    println!("{}", memory::resident().saturating_sub(before));
    drop(value);
    Ok(())
}
