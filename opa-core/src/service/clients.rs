use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

use super::ServiceError;
use crate::config::ServiceConfig;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The HTTP clients of a manager: one for each distinct way of TLS, however many apps use it.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Tls, reqwest::Client>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Tls {
    ca_cert: Option<PathBuf>,
    system_ca_required: bool,
    insecure: bool,
}

impl Clients {
    pub(super) fn get(&self, config: &ServiceConfig) -> Result<reqwest::Client, ServiceError> {
        let tls = Tls {
            ca_cert: config.tls.ca_cert.clone(),
            system_ca_required: config.tls.system_ca_required,
            insecure: config.allow_insecure_tls,
        };
        let mut clients = self.0.lock();
        if let Some(client) = clients.get(&tls) {
            return Ok(client.clone());
        }
        let client = tls.client()?;
        clients.insert(tls, client.clone());
        Ok(client)
    }
}

impl Tls {
    fn client(&self) -> Result<reqwest::Client, ServiceError> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tls_danger_accept_invalid_certs(self.insecure);
        if let Some(path) = &self.ca_cert {
            let named = |problem: String| {
                ServiceError::text(format!("ca_cert `{}`: {problem}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| named(e.to_string()))?;
            if authorities.is_empty() {
                // OPA's words.
                let problem = "unable to parse and append CA certificate to certificate pool";
                return Err(named(problem.into()));
            }
            client = if self.system_ca_required {
                client.tls_certs_merge(authorities)
            } else {
                client.tls_certs_only(authorities)
            };
        }
        client.build().map_err(ServiceError::new)
    }
}
