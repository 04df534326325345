//! Ten thousand apps with logs and status, in a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use opa_core::{Manager, Value};
use tests::memory;
use tests::scripted::Scripted;

use super::{PATIENCE, runtime};
use crate::figures::{heading, line};
use crate::measure;
use crate::sink::Sink;

const APPS: u64 = 10_000;

/// For how long nothing happens while the processor time is taken.
const IDLE: Duration = Duration::from_secs(20);

pub(super) fn run() -> Result<(), String> {
    heading("10,000 apps, each with one decision, then idle");
    let mut sink = Sink::start()?;
    let plain = Member::start("-")?.measure(|| Ok(()))?;
    let url = sink.url().to_owned();
    let logged = Member::start(&url)?.measure(|| sink.until(APPS))?;
    for (what, taken) in [
        ("without logs and status", &plain),
        ("with logs and status", &logged),
    ] {
        line(
            what,
            format!("{:.2}", per_app(taken.resident)),
            "KiB resident per app",
        );
        line(
            what,
            format!("{:.3}", taken.idle_us / APPS as f64 / IDLE.as_secs_f64()),
            "µs of processor time per app and second",
        );
    }
    let more = taken_more(&plain, &logged);
    line("logs and status add", format!("{more:.2}"), "KiB per app");
    Ok(())
}

fn per_app(kib: u64) -> f64 {
    kib as f64 / APPS as f64
}

fn taken_more(plain: &Taken, logged: &Taken) -> f64 {
    per_app(logged.resident) - per_app(plain.resident)
}

struct Taken {
    resident: u64,
    idle_us: f64,
}

struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn start(url: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["fleet", &APPS.to_string(), url]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| error.to_string())?;
        let (input, output) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .ok_or("no pipes")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn measure(mut self, delivered: impl FnOnce() -> Result<(), String>) -> Result<Taken, String> {
        self.line()?;
        delivered()?;
        writeln!(self.input, "measure").map_err(|error| error.to_string())?;
        let line = self.line()?;
        let mut numbers = line.split_whitespace();
        let resident = numbers.next().and_then(|number| number.parse().ok());
        let idle_us = numbers.next().and_then(|number| number.parse().ok());
        let (resident, idle_us) = resident.zip(idle_us).ok_or(format!("unexpected: {line}"))?;
        Ok(Taken { resident, idle_us })
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match read.map_err(|error| error.to_string())? {
            0 => Err("the fleet is gone".to_owned()),
            _ => Ok(line),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Gone already, if at all.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the process with the apps.
pub(crate) fn member(apps: &str, url: &str) -> Result<(), String> {
    let apps: usize = apps.parse().map_err(|error| format!("{apps}: {error}"))?;
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let manager = manager(url)?;
    let leases = (0..apps).map(|app| manager.app(format!("app-{app}")));
    let leases: Vec<_> = leases
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        for app in &leases {
            app.ready(PATIENCE)
                .await
                .map_err(|error| error.to_string())?;
            app.decide("bench/allow", Value::empty_object()).await;
        }
        Ok::<_, String>(())
    })?;
    println!("decided");
    let mut line = String::new();
    let told = std::io::stdin().read_line(&mut line);
    told.map_err(|error| error.to_string())?;
    // What delivering has left behind is given back, or not.
    std::thread::sleep(Duration::from_secs(3));
    let (resident, before) = (memory::resident(), measure::process());
    std::thread::sleep(IDLE);
    println!("{resident} {}", (measure::process() - before).as_micros());
    Ok(())
}

fn manager(url: &str) -> Result<Manager, String> {
    let config = match url {
        "-" => String::new(),
        url => format!(
            "bundles: {{}}\nservices: {{logs: {{url: '{url}'}}}}\n\
             decision_logs: {{service: logs, reporting: {{min_delay_seconds: 1, max_delay_seconds: 2}}}}\nstatus: {{service: logs}}\n"
        ),
    };
    let builder = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .plugin(opa_plugins::decision_logs())
        .plugin(opa_plugins::status())
        .in_memory([], Value::empty_object());
    let manager = builder.and_then(|builder| builder.build());
    manager.map_err(|error| error.to_string())
}
