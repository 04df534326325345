//! Etags, answers of 304 and redirects that no careful server sends.

use std::time::Duration;

use opa_core::bundle;
use opa_core::plugin::State;
use opa_core::{App, Manager};
use tests::bundle_server::{Answer, BundleServer};

use super::world::{
    Watch, builder, bundle as bundle_of, status, until, until_failed, until_version, version,
};

fn not_modified(headers: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 304 Not Modified\r\n{headers}\r\n").into_bytes())
}

/// 200 with these header lines and the bundle.
fn ok(headers: &str, version: &str) -> Answer {
    let bundle = bundle_of(version);
    let length = bundle.len();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n");
    Answer::Raw([head.as_bytes(), &bundle].concat())
}

struct Shop {
    server: BundleServer,
    app: App,
    _manager: Manager,
}

impl Shop {
    async fn open(answer: Answer) -> Shop {
        let server = BundleServer::start().await;
        server.answer("/shop", answer);
        let manager = builder([("shop", server.url())]).build().unwrap();
        let app = manager.app("shop").unwrap();
        Shop {
            server,
            app,
            _manager: manager,
        }
    }

    /// `If-None-Match` of the next request that comes.
    async fn next_if_none_match(&self) -> Option<String> {
        let asked = self.server.requests().len();
        until("it is asked", || self.server.requests().len() > asked).await;
        let request = self.server.requests().swap_remove(asked);
        request.header("if-none-match").map(str::to_owned)
    }
}

#[tokio::test]
async fn a_304_to_one_who_has_nothing_activates_nothing() {
    let shop = Shop::open(not_modified("")).await;
    for _ in 0..2 {
        assert_eq!(shop.next_if_none_match().await, None);
        assert_eq!(version(&shop.app).await, None);
        assert_ne!(shop.app.state(), State::Ready);
        let status = status(&shop.app);
        assert_eq!(status.last_successful_activation, None);
        assert_eq!(status.active_revision, None);
    }
    shop.server.answer("/shop", Answer::Bundle(bundle_of("1")));
    until_version(&shop.app, "1").await;
}

#[tokio::test]
async fn a_304_leaves_the_etag_that_came_with_the_bytes() {
    let shop = Shop::open(ok("etag: \"first\"\r\n", "1")).await;
    until_version(&shop.app, "1").await;
    let steady = Watch::over(&shop.app, Some("1"));
    let activated = status(&shop.app).last_successful_activation;
    // Another one would name what the app doesn't have.
    let wanted = "\"first\"";
    for headers in ["", "etag: \"second\"\r\n", "", "etag: W/\"third\"\r\n"] {
        shop.server.answer("/shop", not_modified(headers));
        // The one that brings the answer, and the one after it.
        shop.next_if_none_match().await;
        assert_eq!(shop.next_if_none_match().await.as_deref(), Some(wanted));
        let status = status(&shop.app);
        assert_eq!(status.message, None, "{headers}");
        assert_eq!(status.last_successful_activation, activated, "{headers}");
    }
    steady.end("304").await;
    shop.server.answer("/shop", Answer::Bundle(bundle_of("2")));
    until_version(&shop.app, "2").await;
}

#[tokio::test]
async fn an_etag_is_sent_back_as_it_came() {
    let large = format!("\"{}\"", "e".repeat(20 * 1024));
    let cases = [
        ("W/\"weak\"", Some("W/\"weak\"")),
        ("no quotes", Some("no quotes")),
        ("\"\"", Some("\"\"")),
        // As OPA: a header without a value is none.
        ("", None),
        (&large, Some(&*large)),
    ];
    let mut taken = Vec::new();
    for (etag, wanted) in cases {
        let (etag, wanted) = (etag.to_owned(), wanted.map(str::to_owned));
        taken.push(tokio::spawn(is_sent_back(etag, wanted)));
    }
    for one in taken {
        one.await.unwrap();
    }
}

async fn is_sent_back(etag: String, wanted: Option<String>) {
    let shop = Shop::open(ok(&format!("etag: {etag}\r\n"), "1")).await;
    until_version(&shop.app, "1").await;
    assert_eq!(shop.next_if_none_match().await, wanted, "{etag:.20}");
    shop.server.answer("/shop", not_modified(""));
    assert_eq!(shop.next_if_none_match().await, wanted, "{etag:.20}");
    assert_eq!(shop.next_if_none_match().await, wanted, "{etag:.20}");
    // To one who named nothing it is no answer.
    let is_error = status(&shop.app).message.is_some();
    assert_eq!(is_error, wanted.is_none(), "{etag:.20}");
    assert_eq!(version(&shop.app).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_etag_of_a_bundle_that_was_not_taken_is_not_kept() {
    let shop = Shop::open(Answer::Bundle(bundle_of("1"))).await;
    until_version(&shop.app, "1").await;
    let good = bundle::etag(&bundle_of("1"));
    let broken = "HTTP/1.1 200 OK\r\netag: \"broken\"\r\ncontent-length: 6\r\n\r\nbroken";
    shop.server.answer("/shop", Answer::Raw(broken.into()));
    until_failed(&shop.app, "archive read failed", None).await;
    for _ in 0..3 {
        assert_eq!(shop.next_if_none_match().await.as_deref(), Some(&*good));
    }
    // The old one again: the error is over, and the bundle was never left.
    shop.server.answer("/shop", Answer::Bundle(bundle_of("1")));
    until("the error is over", || status(&shop.app).message.is_none()).await;
    assert_eq!(version(&shop.app).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_redirect_loop_ends_and_the_last_good_bundle_serves() {
    let shop = Shop::open(Answer::Bundle(bundle_of("1"))).await;
    until_version(&shop.app, "1").await;
    let steady = Watch::over(&shop.app, Some("1"));
    let before = shop.server.requests().len();
    shop.server
        .answer("/shop", Answer::Status(302, "location: /round\r\n"));
    shop.server
        .answer("/round", Answer::Status(302, "location: /shop\r\n"));
    until_failed(&shop.app, "stopped after 10 redirects", None).await;
    until("several attempts", || {
        shop.server.requests().len() > before + 40
    })
    .await;
    steady.end("a redirect loop").await;
    // Ten redirects and the request itself: no attempt has more.
    let requests = shop.server.requests().split_off(before);
    let pauses = requests.windows(2);
    let pauses = pauses.filter(|pair| pair[1].at - pair[0].at >= Duration::from_millis(50));
    assert!((pauses.count() + 1) * 11 >= requests.len() - 11);
    shop.server.answer("/shop", Answer::Bundle(bundle_of("2")));
    until_version(&shop.app, "2").await;
}

#[tokio::test]
async fn a_redirect_to_another_server_takes_no_token_along() {
    let (control, elsewhere) = (BundleServer::start().await, BundleServer::start().await);
    elsewhere.answer("/shop", Answer::Bundle(bundle_of("1")));
    let location = format!("location: {}/shop\r\n", elsewhere.url());
    let head = format!("HTTP/1.1 307 x\r\n{location}content-length: 0\r\n\r\n");
    control.answer("/shop", Answer::Raw(head.into_bytes()));
    let config = format!(
        "services: {{control: {{url: '{}', credentials: {{bearer: {{token: s3cret}}}}}}}}\n\
         bundles: {{b: {{resource: shop, polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
        control.url()
    );
    let manager = Manager::builder()
        .config_yaml(&config)
        .engine(tests::scripted::Scripted::data())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    until_version(&app, "1").await;
    until("a second time", || elsewhere.requests().len() > 1).await;
    for request in control.requests() {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    }
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None);
        let text = format!("{request:?}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let etag = bundle::etag(&bundle_of("1"));
    let last = elsewhere.requests().pop().unwrap();
    assert_eq!(last.header("if-none-match"), Some(&*etag));
}
