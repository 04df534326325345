//! Who gets to see credentials: the registry, and where it must, its token service.

use http::{Method, Response};
use tests::oci_registry::{OciRegistry, Seen, digest, status};

use super::*;

/// `user:pa:ss` in base64.
const BASIC: &str = "Basic dXNlcjpwYTpzcw==";

const SECRETS: &str =
    "headers: {x-team: red}, credentials: {bearer: {scheme: Basic, token: 'user:pa:ss'}}";

fn config(url: &str, service: &str) -> String {
    format!(
        "services: {{registry: {{url: '{url}', type: oci, {service}}}}}\n\
         bundles: {{b: {{resource: 'x/acme/authz:1.0', {POLLING}}}}}"
    )
}

async fn registry() -> OciRegistry {
    let registry = OciRegistry::start().await;
    registry.publish("acme/authz", "1.0", &bundle("1"));
    registry
}

fn redirect(code: u16, location: &str) -> Response<Bytes> {
    let response = Response::builder()
        .status(code)
        .header("location", location);
    response.body(Bytes::new()).unwrap()
}

fn unauthorized(challenge: &str) -> Response<Bytes> {
    let response = Response::builder().status(401);
    let response = response.header("www-authenticate", challenge);
    response.body(Bytes::new()).unwrap()
}

fn tells_secrets(seen: &Seen) -> bool {
    let mut values = seen.headers.values();
    values.any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.contains("dXNlcjpwYTpzcw") || value == "red" || value.starts_with("Bearer")
    })
}

#[tokio::test]
async fn the_registry_gets_the_services_credentials_and_headers() {
    let registry = registry().await;
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    app.ready(LONG).await.unwrap();
    let seen = registry.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    for one in &seen {
        assert_eq!(one.header("authorization"), Some(BASIC));
        assert_eq!(one.header("x-team"), Some("red"));
        let agent = one.header("user-agent").unwrap();
        assert!(agent.starts_with("Open-Policy-Agent/1.22.2 ("), "{agent}");
    }
    let accept = seen[0].header("accept").unwrap();
    assert!(
        accept.contains("application/vnd.oci.image.index.v1+json"),
        "{accept}"
    );
    // OPA's default scheme.
    let without = SECRETS.replace("scheme: Basic, ", "");
    let (_manager, app) = start(&config(&registry.url(), &without));
    app.ready(LONG).await.unwrap();
    let last = registry.seen().pop().unwrap();
    assert_eq!(
        last.header("authorization"),
        Some(&*BASIC.replace("Basic", "Bearer"))
    );
}

/// Registries keep their blobs with others. Another port is another origin.
#[tokio::test]
async fn where_a_redirect_leads_nothing_is_told() {
    for code in [301, 302, 303, 307, 308] {
        let (registry, storage) = (registry().await, registry().await);
        let path = format!("/v2/acme/authz/blobs/{}", digest(&bundle("1")));
        let away = format!("{}{path}", storage.url());
        registry.gate(move |seen| (seen.path == path).then(|| redirect(code, &away)));
        let (_manager, app) = start(&config(&registry.url(), SECRETS));
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        let seen = storage.seen();
        assert_eq!(seen.len(), 1, "{code}");
        assert!(!tells_secrets(&seen[0]), "{code}: {:?}", seen[0]);
    }
}

/// Whoever answers in between chooses what is asked for: not with the credentials.
#[tokio::test]
async fn nothing_is_told_on_the_way_back_either() {
    let (registry, between) = (registry().await, registry().await);
    let path = format!("/v2/acme/authz/blobs/{}", digest(&bundle("1")));
    let (away, back) = (
        format!("{}{path}", between.url()),
        format!("{}/back", registry.url()),
    );
    between.gate(move |_| Some(redirect(302, &back)));
    registry.gate(move |seen| match &*seen.path {
        "/back" => Some(unauthorized("Basic realm=\"x\"")),
        other => (other == path).then(|| redirect(302, &away)),
    });
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    until_failed(&app, "server replied with Unauthorized", Some(401)).await;
    let seen = registry.seen();
    let back: Vec<_> = seen.iter().filter(|one| one.path == "/back").collect();
    assert!(!back.is_empty());
    assert!(!back.into_iter().any(tells_secrets));
}

#[tokio::test]
async fn redirects_within_the_registry_keep_the_credentials_and_have_an_end() {
    let registry = registry().await;
    registry.gate(|seen| {
        let tag = seen.path.strip_suffix("/1.0")?;
        match seen.method {
            Method::HEAD => Some(redirect(307, &format!("{tag}/1.0?again"))),
            _ => None,
        }
    });
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    until_failed(&app, "server replied with Not Found", Some(404)).await;
    let seen = registry.seen();
    let again = seen
        .iter()
        .find(|one| one.path.ends_with("?again"))
        .unwrap();
    assert_eq!(again.header("authorization"), Some(BASIC));
    registry.gate(|seen| Some(redirect(307, &seen.path)));
    until_failed(&app, "stopped after 10 redirects", None).await;
}

/// A registry that wants tokens of `realm`, and takes the ones that are `valid`.
fn wants_token(registry: &OciRegistry, realm: &str, valid: &'static str) {
    let challenge = format!(
        "Bearer realm=\"{realm}/token\",service=\"reg.test\",scope=\"repository:acme/authz:pull\""
    );
    registry.gate(move |seen| match seen.header("authorization") {
        Some(token) if token == format!("Bearer {valid}") => None,
        _ => Some(unauthorized(&challenge)),
    });
}

fn gives_token(realm: &OciRegistry, token: &'static str) {
    realm.gate(move |seen| match seen.header("authorization") {
        Some(BASIC) => Some(Response::new(format!("{{\"token\": \"{token}\"}}").into())),
        _ => Some(status(401)),
    });
}

#[tokio::test]
async fn tokens_are_asked_for_with_the_credentials_and_kept_until_they_are_refused() {
    let (registry, realm) = (registry().await, OciRegistry::start().await);
    wants_token(&registry, &realm.url(), "t1");
    gives_token(&realm, "t1");
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    app.ready(LONG).await.unwrap();
    until("three polls", || async {
        registry.count(&Method::HEAD, "") >= 4
    })
    .await;
    let asked = realm.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let query = "/token?service=reg.test&scope=repository%3Aacme%2Fauthz%3Apull";
    assert_eq!(asked[0].path, query);
    // The realm is another origin: the headers of the service are none of its business.
    assert_eq!(asked[0].header("x-team"), None);

    // It expires, and another one is asked for.
    wants_token(&registry, &realm.url(), "t2");
    gives_token(&realm, "t2");
    registry.publish("acme/authz", "1.0", &bundle("2"));
    until_version(&app, "2").await;
    assert_eq!(realm.seen().len(), 2);

    // The token service knows the user no longer.
    wants_token(&registry, &realm.url(), "t3");
    realm.gate(|_| Some(status(401)));
    let why = "`acme/authz/manifests/1.0`: token of `127.0.0.1`: server replied with Unauthorized";
    until_failed(&app, why, Some(401)).await;
    assert_eq!(version(&app).await.as_deref(), Some("2"));

    // A token that the registry refuses is not asked for again and again in one poll.
    gives_token(&realm, "t0");
    let why = "`acme/authz/manifests/1.0`: server replied with Unauthorized";
    until_failed(&app, why, Some(401)).await;
    for answer in ["", "{}", "{\"token\": 1}"] {
        realm.gate(move |_| Some(Response::new(answer.into())));
        until_failed(&app, "the answer has no usable token", None).await;
    }
    realm.gate(|_| Some(Response::new(vec![b' '; 200_000].into())));
    until_failed(&app, "the answer is larger than 131072 bytes", None).await;
}

/// The real one has the same proof for the registry and for the token service, and gets in.
#[tokio::test]
async fn opa_shows_the_same_credentials_in_the_same_places() {
    let Some(opa) = peers::opa() else { return };
    let (registry, realm) = (registry().await, OciRegistry::start().await);
    // It copies the whole image.
    registry.blob("acme/authz", b"{}", "{}");
    wants_token(&registry, &realm.url(), "t");
    gives_token(&realm, "t");
    let shown = || {
        let of = |one: &OciRegistry| {
            let seen = one.seen();
            let first = seen.first().unwrap();
            let proof = first.header("authorization").unwrap().to_owned();
            (first.method.clone(), proof)
        };
        (of(&registry), of(&realm))
    };
    let configuration = config(&registry.url(), SECRETS);
    let running = opa.serve(&configuration).await;
    assert_eq!(
        running.decide("version", &json!({})).await,
        Some(json!("1"))
    );
    let theirs = shown();
    drop(running);
    registry.forget();
    realm.forget();
    let (_manager, app) = start(&configuration);
    app.ready(LONG).await.unwrap();
    assert_eq!(shown(), theirs);
}

/// What was a token is nothing to a registry that now wants the credentials themselves.
#[tokio::test]
async fn a_token_that_is_refused_is_forgotten() {
    let (registry, realm) = (registry().await, OciRegistry::start().await);
    wants_token(&registry, &realm.url(), "t");
    gives_token(&realm, "t");
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    app.ready(LONG).await.unwrap();
    registry.gate(|seen| match seen.header("authorization") {
        Some(BASIC) => None,
        _ => Some(unauthorized("Basic realm=\"x\"")),
    });
    registry.publish("acme/authz", "1.0", &bundle("2"));
    until_version(&app, "2").await;
}

/// Not even one with the same name as the registry's, if somebody else names it.
#[tokio::test]
async fn only_the_registry_itself_names_the_token_service() {
    let (registry, other) = (registry().await, OciRegistry::start().await);
    let realm = OciRegistry::start().await;
    gives_token(&realm, "t");
    wants_token(&other, &realm.url(), "t");
    let away = format!("{}/x", other.url());
    registry.gate(move |_| Some(redirect(307, &away)));
    let (_manager, app) = start(&config(&registry.url(), SECRETS));
    until_failed(&app, "server replied with Unauthorized", Some(401)).await;
    assert!(realm.seen().is_empty());
    assert!(!other.seen().iter().any(tells_secrets));

    // Nor does it name an address of this network that is not its own.
    registry.gate(|_| {
        Some(unauthorized(
            "Bearer realm=\"http://169.254.169.254/token\"",
        ))
    });
    let why =
        "the registry's token realm is a loopback, link-local, private, or unspecified address";
    until_failed(&app, why, None).await;
}

/// Without credentials it is asked for a token that anybody gets.
#[tokio::test]
async fn a_public_registry_gives_a_token_to_nobody() {
    let (registry, realm) = (registry().await, OciRegistry::start().await);
    wants_token(&registry, &realm.url(), "t");
    realm.gate(|seen| match seen.header("authorization") {
        None => Some(Response::new("{\"access_token\": \"t\"}".into())),
        Some(_) => Some(status(400)),
    });
    let (_manager, app) = start(&config(&registry.url(), ""));
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
}
