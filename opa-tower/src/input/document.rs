use std::time::{Duration, SystemTime};

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderName, Version};
use opa_core::engine::InputPaths;
use opa_core::Value;

use super::request::text;
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
    document.object("attributes", |attributes| fill_attributes(attributes, request, settings));
    document.value("parsed_body", || Value::NULL);
    document.value("parsed_path", || target.parsed_path());
    document.value("parsed_query", || target.parsed_query());
    document.value("truncated_body", || Value::from(false));
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
        members.value("time", || timestamp(request.time));
    });
    attributes.value("routeMetadataContext", Value::empty_object);
    if let Some(peer) = request.peer {
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
    http.object("headers", |headers| fill_headers(headers, request, settings));
    if let Some(host) = request.host() {
        http.value("host", || Value::from(host));
    }
    http.value("method", || Value::from(request.method.as_str()));
    if let Some(path) = request.path() {
        http.value("path", || Value::from(path));
    }
    if let Some(protocol) = protocol(request.version) {
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
    for name in request.headers.keys().filter(|name| **name != HOST && *name != PARTIAL_BODY) {
        let separator = match request.version {
            Version::HTTP_2 | Version::HTTP_3 if name == COOKIE => "; ",
            _ => ",",
        };
        members.value(name.as_str(), || joined(request.headers, name, separator));
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Value {
    let mut values = headers.get_all(name).iter().filter_map(text);
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
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let members = [("seconds", since.as_secs()), ("nanos", since.subsec_nanos().into())];
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
        Self { inputs, path, entries: Vec::with_capacity(8) }
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
