//! What a policy sees of a request, and which requests it is not asked about.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use opa_core::Value;
use opa_core::engine::InputPaths;
use opa_core::plugin::EventInput;
use opa_tower::input::InputRequest;
use opa_tower::{Decision, OpaLayer, PeerAddr, Reason, RequestBody, ResponseBody};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Log, Scripted, get, logged, serving};

/// Sends `request` to a service that answers with the body of the request.
async fn send<B>(layer: OpaLayer, request: Request<B>) -> Response<Bytes>
where
    B: Body<Data = Bytes, Error = Infallible>,
{
    let echo = |request: Request<RequestBody<B>>| async {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, Infallible>(Response::new(Full::from(body)))
    };
    let response: Response<ResponseBody<Full<Bytes>>> = layer
        .layer(service_fn(echo))
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn reason(response: &Response<Bytes>) -> Reason {
    response.extensions().get::<Decision>().unwrap().reason()
}

fn chunked(data: &'static str) -> impl Body<Data = Bytes, Error = Infallible> {
    let frames = (!data.is_empty()).then(|| Ok(Frame::data(Bytes::from(data))));
    StreamBody::new(futures_util::stream::iter(frames))
}

/// The document that the policy saw.
fn input(response: &Response<Bytes>) -> Value {
    let decision = response.extensions().get::<Decision>().unwrap();
    decision.result().unwrap().get("input").unwrap().clone()
}

/// The document in the log.
fn logged_input(log: &Log) -> Value {
    match log.only().input {
        EventInput::Built(value) => value,
        EventInput::Deferred(deferred) => deferred.build(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_415_unless_the_route_says_so() {
    let (_manager, app, log) = logged(Scripted::answering("true")).await;
    let post = || {
        Request::post("/")
            .body(Full::<Bytes>::from("secret"))
            .unwrap()
    };
    let response = send(OpaLayer::new(app.clone()), post()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(reason(&response), Reason::BodyUnseen);
    let event = log.only();
    assert_eq!(event.reason, Reason::BodyUnseen);
    assert!(
        matches!(event.input, EventInput::Deferred(_)),
        "the log has the request"
    );
    let response = send(OpaLayer::new(app).body_unseen(), post()).await;
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::OK, &b"secret"[..])
    );
}

/// Skipper showed the policy an empty body when the length was not announced.
#[tokio::test]
async fn ghsa_659f_rgp5_w4wf_a_body_of_unknown_length_is_a_body() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    // Also one that turns out to be empty: nobody knows when the policy is asked.
    for data in ["secret", ""] {
        let request = Request::post("/").body(chunked(data)).unwrap();
        let response = send(OpaLayer::new(app.clone()), request).await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let request = Request::post("/").body(chunked(data)).unwrap();
        let response = send(OpaLayer::new(app.clone()).body_unseen(), request).await;
        assert_eq!(
            (response.status(), &response.body()[..]),
            (StatusCode::OK, data.as_bytes())
        );
    }
}

#[tokio::test]
async fn headers_alone_announce_a_body_too() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    for (name, value, status) in [
        ("content-length", "0", 200),
        ("content-length", "1", 415),
        ("content-length", "00", 415),
        ("content-length", "+0", 415),
        ("transfer-encoding", "chunked", 415),
        ("transfer-encoding", "identity", 415),
    ] {
        let request = Request::post("/")
            .header(name, value)
            .body(Empty::new())
            .unwrap();
        let response = send(OpaLayer::new(app.clone()), request).await;
        assert_eq!(response.status().as_u16(), status, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_policy_is_told_that_there_is_no_body_to_see() {
    let (_manager, app) = serving(Scripted::showing()).await;
    let request = Request::post("/").body(Full::<Bytes>::from("{}")).unwrap();
    let response = send(OpaLayer::new(app).body_unseen(), request).await;
    let input = input(&response);
    assert_eq!(input.get("parsed_body"), Some(&Value::NULL));
    assert_eq!(input.get("truncated_body"), Some(&Value::from(false)));
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_400_whatever_the_policy_reads() {
    let nothing = InputPaths::only(Vec::<Vec<String>>::new());
    let (_manager, app, log) = logged(Scripted::answering("true").reading(nothing)).await;
    let requests = [
        get("/%ff"),
        get("/a/%"),
        get("/?%zz"),
        get("/?a=%ff"),
        Request::get("/")
            .header("x", &b"a\xff"[..])
            .body(Empty::new())
            .unwrap(),
        Request::get("/")
            .header("host", "a")
            .header("host", "b")
            .body(Empty::new())
            .unwrap(),
        Request::get("http://a/")
            .header("host", "b")
            .body(Empty::new())
            .unwrap(),
    ];
    for request in requests {
        let shown = format!("{request:?}");
        let response = send(OpaLayer::new(app.clone()), request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{shown}");
        assert_eq!(reason(&response), Reason::MalformedRequest);
        assert!(response.body().is_empty());
        let event = log.only();
        assert_eq!(event.reason, Reason::MalformedRequest);
        assert!(event.error.is_some() && event.path.is_some());
    }
    assert_eq!(app.decision_counts().of(Reason::MalformedRequest), 7);
}

#[tokio::test]
async fn ten_thousand_headers_are_431() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    let mut request = get("/");
    for number in 0..10_000 {
        request.headers_mut().append("x", number.into());
    }
    let response = send(OpaLayer::new(app.clone()), request).await;
    assert_eq!(
        response.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    assert_eq!(reason(&response), Reason::TooManyHeaders);
    assert_eq!(app.decision_counts().of(Reason::TooManyHeaders), 1);
}

#[tokio::test]
async fn a_semicolon_in_a_query_is_data() {
    let (_manager, app) = serving(Scripted::showing()).await;
    let response = send(OpaLayer::new(app), get("/?a=1;b=2&c")).await;
    let query = input(&response).get("parsed_query").unwrap().to_json();
    assert_eq!(query, r#"{"a":["1;b=2"],"c":[""]}"#);
}

#[tokio::test]
async fn the_route_adds_its_context() {
    let (_manager, app) = serving(Scripted::showing()).await;
    let layer = OpaLayer::new(app)
        .context("team", "red")
        .context("tier", "1")
        .context("team", "blue");
    let other = layer.clone().context("team", "green");
    let context = |response: &Response<Bytes>| {
        input(response)
            .at(&["attributes", "contextExtensions"])
            .unwrap()
            .to_json()
    };
    let response = send(layer.clone(), get("/")).await;
    assert_eq!(context(&response), r#"{"team":"blue","tier":"1"}"#);
    // A clone's settings are its own.
    assert_eq!(
        context(&send(other, get("/")).await),
        r#"{"team":"green","tier":"1"}"#
    );
}

#[tokio::test]
async fn the_clients_address_comes_from_an_extension_or_a_closure() {
    let (_manager, app, log) = logged(Scripted::showing()).await;
    let address = |response: &Response<Bytes>| {
        let socket = input(response)
            .at(&["attributes", "source", "address", "socketAddress"])
            .cloned();
        socket.map(|socket| socket.to_json())
    };
    let peer: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
    let mut request = get("/");
    request.extensions_mut().insert(PeerAddr(peer));
    let response = send(OpaLayer::new(app.clone()), request.clone()).await;
    assert_eq!(
        address(&response).as_deref(),
        Some(r#"{"address":"2001:db8::1","portValue":7}"#)
    );
    assert_eq!(log.only().requested_by.as_deref(), Some("[2001:db8::1]:7"));

    let layer = OpaLayer::new(app).source_address(|parts| {
        let forwarded = parts.headers.get("x-forwarded-for")?.to_str().ok()?;
        Some(SocketAddr::new(forwarded.parse().ok()?, 0))
    });
    request
        .headers_mut()
        .insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
    let response = send(layer.clone(), request).await;
    assert_eq!(
        address(&response).as_deref(),
        Some(r#"{"address":"192.0.2.1","portValue":0}"#)
    );
    assert_eq!(address(&send(layer, get("/")).await), None);
}

#[tokio::test]
async fn the_policy_is_given_the_parts_it_reads_and_the_log_the_whole() {
    let method = InputPaths::only([["attributes", "request", "http", "method"]]);
    let (_manager, app, log) = logged(Scripted::showing().reading(method)).await;
    let request = Request::get("/a?b")
        .header("x", "1")
        .body(Empty::new())
        .unwrap();
    let response = send(OpaLayer::new(app.clone()).context("a", "b"), request).await;
    let seen = input(&response).to_json();
    assert_eq!(
        seen,
        r#"{"attributes":{"request":{"http":{"method":"GET"}}}}"#
    );
    let whole = logged_input(&log);

    let (_manager, app, log) = logged(Scripted::showing()).await;
    let request = Request::get("/a?b")
        .header("x", "1")
        .body(Empty::new())
        .unwrap();
    let response = send(OpaLayer::new(app).context("a", "b"), request).await;
    assert_eq!(logged_input(&log), input(&response));
    // But for the time, the whole that is built later is the whole that is built at once.
    assert_eq!(without_time(&whole), without_time(&input(&response)));
}

fn without_time(input: &Value) -> String {
    let mut input = input.to_serde();
    input["attributes"]["request"]["time"].take();
    input.to_string()
}

#[tokio::test]
async fn the_log_has_the_request_as_it_was_judged() {
    let answer =
        r#"{"allowed": true, "headers": {"x-user": "a"}, "request_headers_to_remove": ["x"]}"#;
    let nothing = InputPaths::only(Vec::<Vec<String>>::new());
    let (_manager, app, log) = logged(Scripted::answering(answer).reading(nothing)).await;
    let request = Request::get("/")
        .header("x", "1")
        .body(Empty::<Bytes>::new())
        .unwrap();
    send(OpaLayer::new(app), request).await;
    let headers = logged_input(&log)
        .at(&["attributes", "request", "http", "headers"])
        .cloned();
    let headers = headers.unwrap();
    assert_eq!(
        (headers.get("x"), headers.get("x-user")),
        (Some(&Value::from("1")), None)
    );
}

#[tokio::test]
async fn a_configuration_may_want_nothing_told_of_the_body() {
    let manager = crate::support::builder(Scripted::showing())
        .config_yaml("plugins: {envoy_ext_authz_grpc: {skip-request-body-parse: true}}")
        .build()
        .unwrap();
    let app = crate::support::ready_app(&manager, "orders").await;
    let input = input(&send(OpaLayer::new(app), get("/")).await);
    assert_eq!(
        (input.get("parsed_body"), input.get("truncated_body")),
        (None, None)
    );
    assert!(input.get("parsed_path").is_some());
}

#[tokio::test]
async fn a_builder_makes_another_document_for_policy_and_log() {
    #[derive(Clone)]
    struct User(&'static str);

    let nothing = InputPaths::only(Vec::<Vec<String>>::new());
    let (_manager, app, log) = logged(Scripted::showing().reading(nothing)).await;
    let layer = OpaLayer::new(app)
        .context("a", "b")
        .input(|request: &InputRequest<'_>| {
            let user = request.parts().extensions.get::<User>().unwrap().0;
            let path = request.envoy_document().get("parsed_path").unwrap().clone();
            Value::object([(Value::from(user), path)])
        });
    let mut request = get("/a");
    request.extensions_mut().insert(User("ann"));
    let response = send(layer.clone(), request).await;
    assert_eq!(input(&response).to_json(), r#"{"ann":["a"]}"#);
    assert_eq!(logged_input(&log), input(&response));
    // It is not asked about what can't be read.
    assert_eq!(
        send(layer, get("/%ff")).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_time_of_the_request_is_the_one_of_its_event() {
    let (_manager, app, log) = logged(Scripted::showing()).await;
    let input = input(&send(OpaLayer::new(app), get("/")).await);
    let time = input.at(&["attributes", "request", "time"]).unwrap();
    let since = log
        .only()
        .timestamp
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(time.get("seconds"), Some(&Value::from(since.as_secs())));
}
