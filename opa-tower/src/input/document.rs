use std::time::{Duration, SystemTime};

use http::{HeaderName, Version};
use opa_core::Value;
use opa_core::engine::InputPaths;

use super::headers::{Headers, is_cookie, is_name_shown, is_shown, text};
use super::{Request, Target};
use crate::settings::Settings;

/// Ours alone: it tells whether the policy sees all of the body.
pub(crate) const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

pub(super) fn document(
    request: &Request<'_>,
    target: &Target<'_>,
    settings: &Settings,
    inputs: &InputPaths,
) -> Value {
    let mut path = Vec::with_capacity(6);
    let mut document = Members::new(inputs, &mut path);
    document.object("attributes", |attributes| {
        fill_attributes(attributes, request, settings)
    });
    if request.facts.tells_body {
        document.value("parsed_body", || Value::NULL);
        document.value("truncated_body", || Value::from(false));
    }
    document.value("parsed_path", || target.parsed_path());
    document.value("parsed_query", || target.parsed_query());
    document.object("version", |version| {
        version.value("encoding", || Value::from("protojson"));
        version.value("ext_authz", || Value::from("v3"));
    });
    document.into_value()
}

fn fill_attributes<'a>(
    attributes: &mut Members<'_, 'a>,
    request: &Request<'a>,
    settings: &Settings,
) {
    if let Some(context) = settings.context_extensions() {
        attributes.value("contextExtensions", || context.clone());
    }
    attributes.value("metadataContext", Value::empty_object);
    attributes.object("request", |members| {
        members.object("http", |http| fill_http(http, request, settings));
        members.value("time", || timestamp(request.facts.time));
    });
    attributes.value("routeMetadataContext", Value::empty_object);
    if let Some(peer) = request.facts.peer {
        attributes.object("source", |source| {
            source.object("address", |address| {
                address.object("socketAddress", |socket| {
                    socket.value("address", || Value::from(peer.ip().to_string()));
                    socket.value("portValue", || Value::from(peer.port()));
                });
            });
        });
    }
}

fn fill_http<'a>(http: &mut Members<'_, 'a>, request: &Request<'a>, settings: &Settings) {
    http.object("headers", |headers| {
        fill_headers(headers, request, settings)
    });
    if let Some(host) = request.host() {
        http.value("host", || Value::from(host));
    }
    http.value("method", || Value::from(request.method.as_str()));
    if let Some(path) = request.path() {
        http.value("path", || Value::from(path));
    }
    if let Some(protocol) = protocol(request.facts.version) {
        http.value("protocol", || Value::from(protocol));
    }
    http.value("scheme", || Value::from(settings.scheme()));
}

fn fill_headers<'a>(members: &mut Members<'_, 'a>, request: &Request<'a>, settings: &Settings) {
    if let Some(host) = request.host() {
        members.value(":authority", || Value::from(host));
    }
    members.value(":method", || Value::from(request.method.as_str()));
    if let Some(path) = request.path() {
        members.value(":path", || Value::from(path));
    }
    members.value(":scheme", || Value::from(settings.scheme()));
    match request.headers {
        Headers::Own(headers) => {
            for name in headers.keys().filter(|name| is_shown(name)) {
                let values = headers.get_all(name).iter().filter_map(text);
                let name = name.as_str();
                members.value(name, || joined(values, separator(name, request)));
            }
        }
        Headers::Copied(fields) => {
            let fields = fields.by_name();
            for same in fields.chunk_by(|(one, _), (other, _)| one == other) {
                let Some((name, _)) = same.first().filter(|(name, _)| is_name_shown(name)) else {
                    continue;
                };
                let values = same.iter().map(|(_, value)| *value);
                members.value(name, || joined(values, separator(name, request)));
            }
        }
    }
}

/// What is between the values of a header.
fn separator(name: &str, request: &Request<'_>) -> &'static str {
    match request.facts.version {
        Version::HTTP_2 | Version::HTTP_3 if is_cookie(name) => "; ",
        _ => ",",
    }
}

fn joined<'a>(mut values: impl Iterator<Item = &'a str>, separator: &str) -> Value {
    match (values.next().unwrap_or_default(), values.next()) {
        (only, None) => Value::from(only),
        (first, Some(second)) => {
            let mut joined = [first, second].join(separator);
            for value in values {
                joined.push_str(separator);
                joined.push_str(value);
            }
            Value::from(joined)
        }
    }
}

fn protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_09 => Some("HTTP/0.9"),
        Version::HTTP_10 => Some("HTTP/1.0"),
        Version::HTTP_11 => Some("HTTP/1.1"),
        Version::HTTP_2 => Some("HTTP/2"),
        Version::HTTP_3 => Some("HTTP/3"),
        _ => None,
    }
}

/// `google.protobuf.Timestamp` as the plugin shows messages: members that are 0 are left out.
fn timestamp(time: SystemTime) -> Value {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let members = [
        ("seconds", since.as_secs()),
        ("nanos", since.subsec_nanos().into()),
    ];
    let set = members.into_iter().filter(|(_, number)| *number != 0);
    Value::object(set.map(|(name, number)| (Value::from(name), Value::from(number))))
}

/// The members of an object of the document that `inputs` can read.
struct Members<'a, 'p> {
    inputs: &'a InputPaths,
    /// From the document's root to this object.
    path: &'a mut Vec<&'p str>,
    entries: Vec<(Value, Value)>,
}

impl<'a, 'p> Members<'a, 'p> {
    fn new(inputs: &'a InputPaths, path: &'a mut Vec<&'p str>) -> Self {
        Self {
            inputs,
            path,
            entries: Vec::with_capacity(8),
        }
    }

    fn value(&mut self, name: &'p str, value: impl FnOnce() -> Value) {
        self.path.push(name);
        let wanted = self.inputs.reads(self.path);
        self.path.pop();
        if wanted {
            self.entries.push((Value::from(name), value()));
        }
    }

    fn object(&mut self, name: &'p str, fill: impl FnOnce(&mut Members<'_, 'p>)) {
        self.path.push(name);
        if self.inputs.reads(self.path) {
            let mut members = Members::new(self.inputs, self.path);
            fill(&mut members);
            let object = members.into_value();
            self.entries.push((Value::from(name), object));
        }
        self.path.pop();
    }

    fn into_value(self) -> Value {
        Value::object(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::OwnedRequest;
    use super::*;
    use std::net::SocketAddr;

    use http::request::Parts;

    fn whole(parts: &Parts, settings: &Settings) -> Value {
        part(parts, settings, &InputPaths::all())
    }

    fn part(parts: &Parts, settings: &Settings, inputs: &InputPaths) -> Value {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_795_511_683, 367_768_000);
        let request = Request::new(parts, settings, time, true);
        let built = document(&request, &request.read().unwrap(), settings, inputs);
        // The log builds it of a copy, or of a copy's.
        let copy = OwnedRequest::of(&request);
        let copy = OwnedRequest::of(&copy.borrow());
        let copy = copy.borrow();
        let of_copy = document(&copy, &copy.target().unwrap(), settings, inputs);
        assert_eq!(of_copy, built);
        built
    }

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn headers(request: http::request::Builder) -> Value {
        let document = whole(&parts(request), &Settings::default());
        document
            .at(&["attributes", "request", "http", "headers"])
            .unwrap()
            .clone()
    }

    fn from_peer(request: http::request::Builder) -> (Parts, Settings) {
        let peer: SocketAddr = "127.0.0.1:48024".parse().unwrap();
        let mut parts = parts(request);
        parts.extensions.insert(crate::PeerAddr(peer));
        let mut settings = Settings::default();
        settings.set_context("a".into(), "b".into());
        (parts, settings)
    }

    /// The input of opa-envoy-plugin 1.15.2 in its decision log when Envoy 1.40 sent it the
    /// request, without `destination`, `http.id` and the two headers that Envoy adds.
    const RECORDED: &str = r#"{"attributes":{"contextExtensions":{"a":"b"},"metadataContext":{},
        "request":{"http":{"headers":{":authority":"127.0.0.1:18977",":method":"GET",
        ":path":"//My/%2561path/a%2Fb;x?q=1&q=a+b%20c&z&=e",":scheme":"http","accept":"*/*",
        "cookie":"a=1,b=2","user-agent":"curl/7.88.1","x-u":"a,b, c"},"host":"127.0.0.1:18977",
        "method":"GET","path":"//My/%2561path/a%2Fb;x?q=1&q=a+b%20c&z&=e","protocol":"HTTP/1.1",
        "scheme":"http"},"time":{"nanos":367768000,"seconds":1795511683}},
        "routeMetadataContext":{},
        "source":{"address":{"socketAddress":{"address":"127.0.0.1","portValue":48024}}}},
        "parsed_body":null,"parsed_path":["My","%61path","a","b;x"],
        "parsed_query":{"":["e"],"q":["1","a b c"],"z":[""]},"truncated_body":false,
        "version":{"encoding":"protojson","ext_authz":"v3"}}"#;

    fn recorded_request() -> http::request::Builder {
        http::Request::get("//My/%2561path/a%2Fb;x?q=1&q=a+b%20c&z&=e")
            .header("Host", "127.0.0.1:18977")
            .header("User-Agent", "curl/7.88.1")
            .header("Accept", "*/*")
            .header("X-U", "a")
            .header("x-u", "b, c")
            .header("Cookie", "a=1")
            .header("Cookie", "b=2")
    }

    #[test]
    fn the_document_is_the_one_that_the_plugin_builds_behind_envoy() {
        let (parts, settings) = from_peer(recorded_request());
        assert_eq!(
            whole(&parts, &settings),
            Value::from_json(RECORDED.as_bytes()).unwrap()
        );
    }

    #[test]
    fn cve_2021_32777_all_values_of_a_repeated_header_are_shown() {
        let repeated = ["a", "", "b,c", "d"]
            .into_iter()
            .fold(http::Request::get("/"), |request, value| {
                request.header("X-Role", value)
            });
        assert_eq!(
            headers(repeated).get("x-role"),
            Some(&Value::from("a,,b,c,d"))
        );
    }

    #[test]
    fn cookies_that_http_2_has_split_are_one_cookie_header_again() {
        let request = |version| {
            let request = http::Request::get("http://h/").version(version);
            request
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("x", 1)
                .header("x", 2)
        };
        let of_http_2 = headers(request(Version::HTTP_2));
        assert_eq!(of_http_2.get("cookie"), Some(&Value::from("a=1; b=2")));
        assert_eq!(of_http_2.get("x"), Some(&Value::from("1,2")));
        let of_http_1 = headers(request(Version::HTTP_11));
        assert_eq!(of_http_1.get("cookie"), Some(&Value::from("a=1,b=2")));
    }

    #[test]
    fn headers_between_those_of_one_name_change_nothing() {
        let mixed = http::Request::get("/").header("x", 1).header("a", 1);
        let mixed = mixed.header("x", 2).header("y", "").header("x", 3);
        let shown = headers(mixed.header("a", 2));
        let of = |name: &str| shown.get(name).and_then(Value::as_str).unwrap();
        assert_eq!((of("x"), of("a"), of("y")), ("1,2,3", "1,2", ""));
    }

    #[test]
    fn a_client_cannot_tell_what_the_policy_sees_of_the_body() {
        let shown = headers(http::Request::get("/").header("X-Envoy-Auth-Partial-Body", "false"));
        assert_eq!(shown.get("x-envoy-auth-partial-body"), None);
    }

    #[test]
    fn the_host_is_the_authority_and_no_header() {
        let absolute =
            http::Request::get("http://example.org:80?q").header("host", "example.org:80");
        let document = whole(&parts(absolute), &Settings::default());
        let http = document.at(&["attributes", "request", "http"]).unwrap();
        assert_eq!(http.get("host"), Some(&Value::from("example.org:80")));
        assert_eq!(http.get("path"), Some(&Value::from("/?q")));
        assert_eq!(
            http.at(&["headers", ":authority"]),
            Some(&Value::from("example.org:80"))
        );
        assert_eq!(http.at(&["headers", "host"]), None);
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let document = whole(&parts(http::Request::get("/")), &Settings::default());
        for path in [
            &["attributes", "contextExtensions"][..],
            &["attributes", "source"],
            &["attributes", "request", "http", "host"],
            &["attributes", "request", "http", "headers", ":authority"],
        ] {
            assert_eq!(document.at(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_servers_word_not_the_clients() {
        let claimed = parts(http::Request::get("https://h/").version(Version::HTTP_2));
        let document = whole(&claimed, &Settings::default());
        assert_eq!(
            document.at(&["attributes", "request", "http", "scheme"]),
            Some(&"http".into())
        );
        let mut tls = Settings::default();
        tls.scheme = http::uri::Scheme::HTTPS;
        let document = whole(&claimed, &tls);
        assert_eq!(
            document.at(&["attributes", "request", "http", "scheme"]),
            Some(&"https".into())
        );
    }

    #[test]
    fn a_configuration_may_want_nothing_told_of_the_body() {
        let (parts, settings) = (parts(http::Request::get("/")), Settings::default());
        let request = Request::new(&parts, &settings, SystemTime::UNIX_EPOCH, false);
        let target = request.read().unwrap();
        let document = document(&request, &target, &settings, &InputPaths::all());
        assert_eq!(
            (document.get("parsed_body"), document.get("truncated_body")),
            (None, None)
        );
    }

    #[test]
    fn members_of_a_time_that_are_zero_are_left_out() {
        let time =
            |nanos| timestamp(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)).to_json();
        assert_eq!(time(0), "{}");
        assert_eq!(time(5), r#"{"nanos":5}"#);
        assert_eq!(time(2_000_000_000), r#"{"seconds":2}"#);
    }

    /// What a policy that reads `path` of the document finds is the same in a part.
    #[test]
    fn each_part_is_as_in_the_whole_and_nothing_else_is_built() {
        let (parts, settings) = from_peer(recorded_request());
        let document = whole(&parts, &settings);
        for path in [
            &["attributes", "request", "http", "method"][..],
            &["attributes", "request", "http", "headers", "x-u"],
            &["attributes", "request", "http", "headers", "x-missing"],
            &["attributes", "request", "http", "headers", ":path"],
            &["attributes", "request", "http", "headers"],
            &["attributes", "request", "http", "path"],
            &["attributes", "request", "time", "seconds"],
            &[
                "attributes",
                "source",
                "address",
                "socketAddress",
                "portValue",
            ],
            &["attributes", "contextExtensions", "a"],
            &["attributes", "nothing"],
            &["parsed_path", "0"],
            &["parsed_path"],
            &["parsed_query", "q"],
            &["parsed_body"],
            &["truncated_body"],
            &["version", "encoding"],
        ] {
            let part = part(&parts, &settings, &InputPaths::only([path.iter().copied()]));
            assert_eq!(part.at(path), document.at(path), "{path:?}");
            let (root, others) = (
                part.as_object().unwrap().len(),
                document.as_object().unwrap().len(),
            );
            assert!(root <= 1 && others > 1, "{path:?}: {part}");
        }
        let nothing = InputPaths::only(Vec::<Vec<String>>::new());
        assert_eq!(part(&parts, &settings, &nothing), Value::empty_object());
        let method = InputPaths::only([["attributes", "request", "http", "method"]]);
        let expected = r#"{"attributes":{"request":{"http":{"method":"GET"}}}}"#;
        assert_eq!(part(&parts, &settings, &method).to_json(), expected);
    }
}
