//! A server whose certificate is over, from the real nginx.

use std::fs;
use std::time::{Duration, SystemTime};

use opa_core::plugin::State;
use opa_core::{App, FailureClass, Manager};
use tempfile::TempDir;
use tests::bundle_server::{Answer, BundleServer};
use tests::certificates::Authority;
use tests::peers::{self, RunningNginx};

use super::world::{
    LONG, Watch, build, builder, builder_with, bundle, measure, said, status, until, until_failed,
    until_version,
};

/// What is said of a certificate by an authority that isn't trusted.
const UNTRUSTED: &str = "invalid peer certificate: UnknownIssuer";

/// What is said of a certificate that is over.
const EXPIRED: &str = "invalid peer certificate: certificate expired";

struct Control {
    folder: TempDir,
    authority: Authority,
    nginx: RunningNginx,
}

impl Control {
    /// nginx whose certificate is over at `until`. Each request has a connection of its own: one
    /// that is open is not looked at again. It reads the files for each, since their names have a
    /// variable; it is empty for an address. It would resume any session, by tickets and ids.
    async fn start(until: SystemTime, more: &str) -> Option<Control> {
        let nginx = peers::nginx()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let authority = Authority::new("control authority");
        fs::write(path.join("ca.pem"), authority.pem()).unwrap();
        authority.issue_into_until(path, "server", "control", until);
        fs::create_dir_all(path.join("root")).unwrap();
        let at = path.display();
        let directives = format!(
            "ssl_certificate {at}/server$ssl_server_name.pem;\n    \
             ssl_certificate_key {at}/server$ssl_server_name.key;\n    \
             ssl_session_tickets on;\n    ssl_session_cache shared:all:1m;\n    \
             keepalive_timeout 0;\n    \
             {more}"
        );
        let nginx = nginx.serve_tls(&path.join("root"), &directives).await;
        Some(Control {
            folder,
            authority,
            nginx,
        })
    }

    fn publish(&self, app: &str, version: &str) {
        let part = self.folder.path().join("part");
        fs::write(&part, bundle(version)).unwrap();
        peers::renew(&part);
        fs::rename(part, self.folder.path().join("root").join(app)).unwrap();
    }

    /// A certificate for another hour.
    fn renew(&self) {
        let until = SystemTime::now() + Duration::from_secs(3600);
        let path = self.folder.path();
        self.authority
            .issue_into_until(path, "server", "control", until);
    }

    /// The options of a service.
    fn options(&self) -> String {
        let (url, path) = (self.nginx.secure_url(), self.folder.path().display());
        format!(
            "url: '{url}', tls: {{ca_cert: {path}/ca.pem}}, \
             credentials: {{bearer: {{token: s3cret}}}}"
        )
    }

    fn manager(&self) -> Manager {
        let names = ["shop", "late"];
        let services = names.map(|name| (name, self.options()));
        builder_with(services).build().unwrap()
    }
}

fn failed(app: &App) -> bool {
    matches!(app.state(), State::Failed { .. })
}

#[tokio::test]
async fn an_expired_certificate_is_not_trusted_until_it_is_replaced() {
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let Some(control) = Control::start(yesterday, "").await else {
        return;
    };
    control.publish("shop", "1");
    let manager = control.manager();
    let app = manager.app("shop").unwrap();
    until_failed(&app, EXPIRED, None).await;
    assert!(failed(&app));
    assert_eq!(status(&app).class, Some(FailureClass::Tls));
    control.renew();
    until_version(&app, "1").await;
    assert_eq!(status(&app).message, None);
}

#[tokio::test]
async fn a_certificate_that_expires_while_it_is_in_use_leaves_the_last_good_bundle() {
    // Long enough for a first bundle, short enough to wait for.
    let soon = SystemTime::now() + Duration::from_secs(5);
    let Some(control) = Control::start(soon, "").await else {
        return;
    };
    control.publish("shop", "1");
    let (other, other_of_twin) = (BundleServer::start().await, BundleServer::start().await);
    let services = ["shop", "late"].map(|name| (name, control.options()));
    let elsewhere = ("elsewhere", format!("url: '{}'", other.url()));
    let manager = build(builder_with(services.into_iter().chain([elsewhere]))).await;
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let steady = Watch::over(&app, Some("1"));
    until_failed(&app, EXPIRED, None).await;
    control.publish("shop", "2");
    control.publish("late", "2");
    let late = manager.app("late").unwrap();
    until_failed(&late, EXPIRED, None).await;
    assert!(failed(&late));
    assert_eq!(app.state(), State::Ready);
    let twin = build(builder([("elsewhere", other_of_twin.url())])).await;
    let row = format!("a certificate expires | yes | bundle_error: {}", said(&app));
    measure(&row, &manager, &twin, [&other, &other_of_twin]).await;
    steady.end("an expired certificate").await;
    control.renew();
    for app in [&app, &late] {
        until_version(app, "2").await;
        assert_eq!(status(app).message, None);
    }
}

/// Connections come and go all the time; the sessions before could be resumed.
#[tokio::test]
async fn a_certificate_replaced_by_an_untrusted_one_is_noticed_with_the_next_connection() {
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
        let only = format!("ssl_protocols {protocol};");
        let Some(control) = Control::start(in_an_hour, &only).await else {
            return;
        };
        control.publish("shop", "1");
        let manager = control.manager();
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        let steady = Watch::over(&app, Some("1"));
        let polled = || control.nginx.accesses().len() >= 4;
        until("some polls", polled).await;
        let path = control.folder.path();
        Authority::new("another").issue_into(path, "server", "control");
        control.publish("shop", "2");
        until_failed(&app, UNTRUSTED, None).await;
        assert_eq!(app.state(), State::Ready);
        let asked = control.nginx.accesses().len();
        let before = status(&app).last_request;
        until("more polls", || status(&app).last_request > before).await;
        assert_eq!(control.nginx.accesses().len(), asked, "no request is sent");
        steady.end(protocol).await;
        control.renew();
        until_version(&app, "2").await;
        assert_eq!(status(&app).message, None);
    }
}

/// OPA follows it, too.
#[tokio::test]
async fn a_redirect_to_plain_http_takes_no_token_along() {
    let plain = BundleServer::start().await;
    plain.answer("/shop", Answer::Bundle(bundle("1")));
    let moved = format!("location = /shop {{ return 302 {}/shop; }}", plain.url());
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let Some(control) = Control::start(in_an_hour, &moved).await else {
        return;
    };
    let manager = control.manager();
    let app = manager.app("shop").unwrap();
    until_version(&app, "1").await;
    for request in plain.requests() {
        assert_eq!(request.header("authorization"), None);
        let text = format!("{request:?}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
