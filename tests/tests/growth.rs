//! What more apps cost: no task, timer, thread or connection each. Memory is printed.

use std::io::Write;
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::{App, Manager, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;

const APPS: usize = 1_000;

fn status_line(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or("x 0");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// Waits until the last answers have come and their tasks are gone; a test that never gets there
/// fails with what it last saw.
async fn until_at_most(limit: usize, what: &str, count: impl Fn() -> usize) {
    let falls = async {
        while count() > limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fell = tokio::time::timeout(Duration::from_secs(30), falls).await;
    assert!(fell.is_ok(), "{} {what}, more than {limit}", count());
}

#[test]
fn a_thousand_polling_apps_add_no_task_thread_or_connection_each() {
    // The server has a runtime of its own, so that its tasks are not counted.
    let servers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = servers.block_on(BundleServer::start_counting());
    let data = Value::object([("a".into(), Value::from(1))]);
    let bundle = BundleWriter::new()
        .data("", &data)
        .unwrap()
        .to_vec()
        .unwrap();
    for app in 0..=APPS {
        server.answer(
            &format!("/bundles/app-{app}"),
            Answer::Bundle(bundle.clone()),
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = format!("services: {{control: {{url: '{}'}}}}", server.url());
        let manager = Manager::builder()
            .config_yaml(&config)
            .engine(Scripted::data())
            .build()
            .unwrap();
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };

        let first = manager.app("app-0").unwrap();
        first.ready(Duration::from_secs(60)).await.unwrap();
        let tasks_with_one = tasks();
        let memory_with_one = status_line("VmRSS:");

        let apps: Vec<App> = (1..=APPS)
            .map(|app| manager.app(format!("app-{app}")).unwrap())
            .collect();
        for app in &apps {
            app.ready(Duration::from_secs(60)).await.unwrap();
        }
        // Idle connections that the client keeps have a task each, however many apps there are.
        // There can be a few more than downloads at a time: a download may begin before the last
        // one has given its connection back.
        let idle = 20;
        until_at_most(idle, "connections", || server.connections()).await;
        until_at_most(tasks_with_one + idle, "tasks", tasks).await;
        let (connections, threads) = (server.connections(), status_line("Threads:"));
        let memory = status_line("VmRSS:").saturating_sub(memory_with_one);
        // Past the capture of libtest: the figure is for whoever reads the log.
        let shown = writeln!(
            std::io::stderr(),
            "{APPS} more apps: {memory} KiB of memory ({} bytes each), {tasks_with_one} -> \
             {} tasks, {threads} threads, {connections} connections",
            memory * 1024 / APPS,
            tasks(),
        );
        shown.unwrap();
        assert!(threads < 100, "{threads} threads");
        assert_eq!(server.request_count(), APPS + 1, "one request each");
    });
}
