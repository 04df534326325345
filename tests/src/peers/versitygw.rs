//! The Versity S3 gateway over a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use super::s3::{RunningS3, S3_REGION};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "versitygw",
    version: "v1.8.0",
    install,
};

const ACCESS_KEY: &str = "AKIDVERSITY";
const SECRET_KEY: &str = "versity/secret+key";

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let version = RECIPE.version;
    let module = format!("github.com/versity/versitygw/cmd/versitygw@{version}");
    fetch::run(
        fetch::step("go")
            .args(["install", &module])
            .env("GOBIN", folder),
    )?;
    Ok(folder.join("versitygw"))
}

/// The installed gateway.
#[derive(Clone, Debug)]
pub struct Versitygw {
    program: PathBuf,
}

impl Versitygw {
    pub(super) fn at(program: PathBuf) -> Versitygw {
        Versitygw { program }
    }

    /// Starts it with an empty bucket. It writes a line for each request to standard output:
    /// [`accesses`].
    pub async fn start(&self) -> RunningS3 {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningS3, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let mut process = Process::spawn("versitygw", |folder| {
            let make = |name| {
                let made = folder.join(name);
                fs::create_dir(&made).map(|()| made)
            };
            let (data, attributes, users) = (make("data")?, make("attributes")?, make("users")?);
            let mut command = Command::new(&self.program);
            command
                .args(["--port", &port.address().to_string()])
                .args(["--region", S3_REGION, "--iam-dir"])
                // Without users of its own it knows nobody else, which is a 404.
                .arg(users)
                .arg("posix")
                // Not every file system has extended attributes.
                .arg("--sidecar")
                .arg(attributes)
                .arg(data)
                .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                .env("ROOT_SECRET_KEY", SECRET_KEY);
            Ok(command)
        })?;
        let probe = async || http_client::get(port.address(), "/").await.ok();
        process.until("answering", probe).await?;
        Ok(RunningS3::with_bucket(process, vec![port], ACCESS_KEY, SECRET_KEY).await)
    }
}

/// The statuses that the gateway answered to `GET` of a path, in order.
pub fn accesses(gateway: &mut RunningS3, path: &str) -> Vec<u16> {
    let stdout = gateway.process().stdout();
    let answered = |line: &str| {
        let fields: Vec<_> = line.split(" | ").map(str::trim).collect();
        match *fields.as_slice() {
            [_, "vgw", status, _, _, "GET", asked, ..] if asked == path => status.parse().ok(),
            _ => None,
        }
    };
    stdout.lines().filter_map(answered).collect()
}
