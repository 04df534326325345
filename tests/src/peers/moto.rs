//! moto, the mock of AWS's services, with its check of signatures switched on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::{Request, StatusCode};

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use super::s3::RunningS3;
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "moto",
    version: "5.2.5",
    install,
};

/// Lets a user do anything, form-encoded.
const POLICY: &str = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22\
    Allow%22%2C%22Action%22%3A%22*%22%2C%22Resource%22%3A%22*%22%7D%7D";

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::pip(folder, &format!("moto[server]=={}", RECIPE.version))?;
    Ok(folder.join("bin/moto_server"))
}

/// The installed script; its packages are two folders above.
#[derive(Clone, Debug)]
pub struct Moto {
    program: PathBuf,
}

impl Moto {
    pub(super) fn at(program: PathBuf) -> Moto {
        Moto { program }
    }

    /// Starts it with an empty bucket. It writes a line for each request to standard error.
    pub async fn start(&self) -> RunningS3 {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningS3, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let address = port.address();
        let mut process = Process::spawn("moto", |_| {
            let packages = self.program.ancestors().nth(2).unwrap_or(Path::new("."));
            let mut command = Command::new("python3");
            command
                .arg(&self.program)
                .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
                .env("PYTHONPATH", packages);
            Ok(command)
        })?;
        let probe = async || http_client::get(address, "/moto-api/").await.ok();
        process.until("answering", probe).await?;

        iam(address, "CreateUser").await;
        let policy = format!("PutUserPolicy&PolicyName=all&PolicyDocument={POLICY}");
        iam(address, &policy).await;
        let keys = iam(address, "CreateAccessKey").await;
        let between = |tag: &str| {
            let (_, rest) = keys
                .split_once(&format!("<{tag}>"))
                .expect("moto makes keys");
            let (value, _) = rest.split_once('<').expect("moto makes keys");
            value.to_owned()
        };
        let (access_key, secret_key) = (between("AccessKeyId"), between("SecretAccessKey"));
        // From now on every signature is checked.
        post(address, "/moto-api/reset-auth", "text/plain", "0").await;
        Ok(RunningS3::with_bucket(process, vec![port], &access_key, &secret_key).await)
    }
}

/// Asks its IAM, before it checks signatures.
async fn iam(address: SocketAddr, action: &str) -> String {
    let form = format!("Version=2010-05-08&UserName=test&Action={action}");
    post(address, "/", "application/x-www-form-urlencoded", &form).await
}

async fn post(address: SocketAddr, path: &str, kind: &str, body: &str) -> String {
    // The scope tells it which service is asked.
    let scope = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, \
         SignedHeaders=host, Signature=x";
    let request = Request::post(path)
        .header("authorization", scope)
        .header("content-type", kind)
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .expect("the request is sound");
    let response = http_client::send(address, request)
        .await
        .expect("moto answers");
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    String::from_utf8_lossy(response.body()).into_owned()
}
