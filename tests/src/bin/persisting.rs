//! A process that keeps the bundles of many apps on disk until it is killed.
//!
//! Arguments: the URL of the bundle service, the persistence directory, how many apps there are. It
//! ends by itself with its standard input, so that none outlives its test.

use std::io::Read;

use opa_core::Manager;
use tests::scripted::Scripted;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, directory, apps] = arguments.as_slice() else {
        return Err("expected a URL, a directory and a number".into());
    };
    let config = format!(
        "services: {{control: {{url: '{url}'}}}}\n\
         persistence_directory: '{directory}'\n\
         bundles: {{b: {{resource: '{{{{ .bundlename }}}}', persist: true, polling: \
           {{min_delay_seconds: 1, max_delay_seconds: 1, long_polling_timeout_seconds: 10}}}}}}",
    );
    let manager = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .build()?;
    let leases = manager.app_set((0..apps.parse::<usize>()?).map(|n| format!("app-{n}")))?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    drop(leases);
    Ok(())
}
