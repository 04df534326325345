//! What memory it takes to activate a bundle, at the most.

use std::io::Write;

use tests::activating::{Activating, end, part, users};
use tests::bundle_server::{Answer, BundleServer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_activating");

/// How much data a bundle has, in bytes of JSON.
const SIZE: usize = 16 << 20;

fn bundle(revision: &str, data: &str) -> Vec<u8> {
    let manifest = format!("{{\"revision\":\"{revision}\"}}");
    let files = [
        (".manifest", manifest.as_bytes()),
        ("data.json", data.as_bytes()),
    ];
    [part(files), end()].concat()
}

/// What the value of `json` takes, in KiB: in a process that reads it from a file.
fn final_size(json: &str) -> u64 {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    Activating::start(PROGRAM, &["parse", path]).numbers()[0]
}

/// How far above what was resident before, and the final size of the data, a process goes that
/// activates data and replaces it: as parts of the data's size.
async fn excess(engine: &str, random: bool) -> [f64; 2] {
    let server = BundleServer::start_counting().await;
    let data = [1, 2].map(|seed| users(SIZE, random, seed));
    let bundles = [bundle("1", &data[0]), bundle("2", &data[1])];
    let compressed = bundles[0].len();
    let [small, first, second] = [bundle("0", "{}"), bundles[0].clone(), bundles[1].clone()];
    server.answer("/small", Answer::Bundle(small));
    server.answer("/big", Answer::Bundle(first));
    let engine = engine.to_owned();
    let measuring = tokio::task::spawn_blocking(move || {
        let size = final_size(&data[0]);
        let mut process = Activating::start(PROGRAM, &["replace", &engine, &server.url()]);
        let first = process.numbers();
        assert_eq!(process.line(), "next");
        server.answer("/big", Answer::Bundle(second));
        let second = process.numbers();
        let mut shown = format!(
            "{engine}: {} MiB of JSON ({} MiB compressed), whose value takes {} MiB:",
            SIZE >> 20,
            compressed >> 20,
            size >> 10
        );
        let factors = [("activated", first), ("replaced", second)].map(|(what, figures)| {
            let (before, peak) = (figures[0], figures[1]);
            let above = peak.saturating_sub(before);
            let excess = above.saturating_sub(size) as f64 * 1024.0 / SIZE as f64;
            shown += &format!(
                " {what}: {} MiB before, {} MiB more at the most (the value and {excess:.2} times \
                 the JSON);",
                before >> 10,
                above >> 10
            );
            excess
        });
        // Past the capture of libtest: the figures are for whoever reads the log.
        let written = writeln!(std::io::stderr(), "{shown}");
        written.unwrap();
        factors
    });
    measuring.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn activating_takes_the_final_size_and_little_more() {
    for random in [false, true] {
        let factors = excess("scripted", random).await;
        assert!(factors.iter().all(|factor| *factor <= 1.2), "{factors:?}");
    }
    excess("regorus", true).await;
}
