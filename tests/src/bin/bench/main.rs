//! The benchmark suite: figures as ratios against the peers in the same run.
//!
//! ```not_rust
//! cargo build --release -p examples --bin serve
//! cargo run --release -p tests --bin bench -- logs [decision] [cost] [fleet] [outage]
//! ```
//!
//! Without names of parts all of them run; `outage` has options of its own (see its module). On a machine that does something else meanwhile
//! the figures mean little. Peers are fetched as in tests; one that can't be had is left out, and the report says
//! so.

mod figures;
mod logs;
mod measure;
mod peer;
mod requests;
mod sink;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["logs", parts @ ..] => logs::run(parts),
        // What the suite starts of itself.
        ["sink"] => sink::serve(),
        ["fleet", apps, url] => logs::fleet_member(apps, url),
        _ => Err("expected `logs`, and names of its parts or none".to_owned()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
