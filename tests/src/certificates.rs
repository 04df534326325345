//! Certificates for servers on loopback and their clients, made for one test.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// An authority that issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, by that name.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A new one for nginx over TLS, with the directives by which nginx shows a certificate of it
    /// and checks those of clients: what it needs is in the folder, beside the authority's own
    /// `ca.pem`.
    ///
    /// # Panics
    /// When the files can't be written.
    pub fn for_nginx(folder: &Path) -> (Authority, String) {
        let authority = Authority::new("control authority");
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        authority.issue_into(folder, "server", "control");
        let at = folder.display();
        let directives = format!(
            "ssl_certificate {at}/server.pem;\n    ssl_certificate_key {at}/server.key;\n    \
             ssl_client_certificate {at}/ca.pem;"
        );
        (authority, directives)
    }

    /// Its own certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for 127.0.0.1 or a client, by that common name, and its key: both as PEM.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn issue(&self, name: &str) -> (String, String) {
        self.sign(named(name, &["127.0.0.1".to_owned()]))
    }

    fn sign(&self, mut params: CertificateParams) -> (String, String) {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// As [`issue`](Self::issue), into `<folder>/<file>.pem` and `<folder>/<file>.key`. Each is
    /// moved into place, so that nobody reads half of it.
    ///
    /// # Panics
    /// When the files can't be written.
    pub fn issue_into(&self, folder: &Path, file: &str, name: &str) {
        write(folder, file, self.issue(name));
    }

    /// As [`issue_into`](Self::issue_into), a certificate that is over after `until`.
    ///
    /// # Panics
    /// When the files can't be written.
    pub fn issue_into_until(&self, folder: &Path, file: &str, name: &str, until: SystemTime) {
        let mut params = named(name, &["127.0.0.1".to_owned()]);
        params.not_after = until.into();
        write(folder, file, self.sign(params));
    }
}

fn write(folder: &Path, file: &str, (certificate, key): (String, String)) {
    for (extension, text) in [("key", key), ("pem", certificate)] {
        let part = folder.join(format!("{file}.{extension}.part"));
        fs::write(&part, text).unwrap();
        fs::rename(part, folder.join(format!("{file}.{extension}"))).unwrap();
    }
}

fn named(name: &str, addresses: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(addresses).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
