use serde_json::json;

use super::*;

fn none(_: &str) -> Option<String> {
    None
}

fn read(
    section: &serde_json::Value,
    environment: fn(&str) -> Option<String>,
) -> Result<Options, ConfigError> {
    let section = Section::from_json("output", section);
    let mut warnings = Vec::new();
    let read = Options::read(&section, Environment(environment), &mut warnings);
    assert!(warnings.is_empty(), "{warnings:?}");
    read
}

#[test]
fn the_defaults_are_the_specifications() {
    let options = read(&json!({}), none).unwrap();
    assert_eq!(options.target.protocol, Protocol::Http);
    assert_eq!(
        options.target.endpoint.as_str(),
        "http://localhost:4318/v1/logs"
    );
    assert_eq!(options.timeout, Duration::from_secs(10));
    assert!(options.headers.is_empty() && !options.target.gzip);
    let grpc = read(&json!({"protocol": "grpc"}), none).unwrap();
    assert_eq!(grpc.target.endpoint.as_str(), "http://localhost:4317/");
}

#[test]
fn the_path_is_added_to_an_endpoint_once() {
    for (endpoint, wanted) in [
        ("https://a.test", "https://a.test/v1/logs"),
        ("https://a.test/x/", "https://a.test/x/v1/logs"),
        ("https://a.test/x/v1/logs", "https://a.test/x/v1/logs"),
    ] {
        let options = read(&json!({"endpoint": endpoint}), none).unwrap();
        assert_eq!(options.target.endpoint.as_str(), wanted);
    }
}

fn full(name: &str) -> Option<String> {
    let value = match name {
        "OTEL_EXPORTER_OTLP_PROTOCOL" => "grpc",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL" => "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT" => "https://all.test",
        "OTEL_EXPORTER_OTLP_HEADERS" => "api-key=s%2Cx, b = 2",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT" => "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION" => "gzip",
        "OTEL_EXPORTER_OTLP_CERTIFICATE" => "/ca.pem",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" => "/own.pem",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY" => "/own.key",
        "OTEL_RESOURCE_ATTRIBUTES" => "service.name=a,zone=eu",
        "OTEL_SERVICE_NAME" => "b",
        // Empty is not set.
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn the_environment_says_what_the_section_does_not() {
    let options = read(&json!({}), full).unwrap();
    assert_eq!(options.target.protocol, Protocol::Http);
    assert_eq!(options.target.endpoint.as_str(), "https://all.test/v1/logs");
    assert_eq!(options.headers["api-key"], "s,x");
    assert_eq!(options.headers["b"], "2");
    assert_eq!(options.timeout, Duration::from_millis(2500));
    assert!(options.target.gzip);
    let tls = Tls {
        ca_cert: Some("/ca.pem".into()),
        own: Some(("/own.pem".into(), "/own.key".into())),
    };
    assert_eq!(options.target.tls, tls);
    let attributes = [("service.name", "b"), ("zone", "eu")];
    let attributes = attributes.map(|(name, value)| record::attribute(name, value));
    assert_eq!(options.resource, attributes);

    let section = json!({
        "protocol": "grpc", "endpoint": "https://own.test:4317", "timeout_seconds": 0.5,
        "compression": "none", "headers": {"x-own": "1"}, "tls": {"ca_cert": "/b.pem"},
        "resource": {"service.name": "c"}, "max_request_bytes": 10,
    });
    let options = read(&section, full).unwrap();
    assert_eq!(options.target.protocol, Protocol::Grpc);
    assert_eq!(options.target.endpoint.as_str(), "https://own.test:4317/");
    assert_eq!(options.headers.len(), 1);
    assert_eq!(options.timeout, Duration::from_millis(500));
    assert!(!options.target.gzip);
    assert_eq!(options.target.tls.own, None);
    assert_eq!(options.resource[0], record::attribute("service.name", "c"));
    assert_eq!(options.max_request_bytes, 10);
}

#[test]
fn secrets_of_the_environment_are_for_no_endpoint_of_the_section() {
    let options = read(&json!({"endpoint": "https://elsewhere.test"}), full).unwrap();
    assert!(options.headers.is_empty());
    assert_eq!(options.target.tls.own, None);
    assert_eq!(options.target.tls.ca_cert, Some("/ca.pem".into()));
}

#[test]
fn headers_are_not_shown() {
    let section = json!({"headers": {"authorization": "Bearer s3cret"}});
    let options = read(&section, none).unwrap();
    assert!(!format!("{options:?}").contains("s3cret"));
}

#[test]
fn wrong_options_are_errors_with_their_place() {
    for (section, wanted) in [
        (
            json!({"protocol": "http/json"}),
            "output.protocol: `http/json` is not supported",
        ),
        (
            json!({"protocol": "udp"}),
            "output.protocol: expected `http/protobuf` or `grpc`",
        ),
        (
            json!({"endpoint": "localhost:4317"}),
            "output.endpoint: expected an `http`",
        ),
        (
            json!({"endpoint": "http://u:p@a.test"}),
            "output.endpoint: a user in a URL",
        ),
        (
            json!({"headers": {"a b": "c"}}),
            "output.headers.a b: expected the name",
        ),
        (
            json!({"headers": {"Host": "c"}}),
            "output.headers.Host: the header `Host`",
        ),
        (
            json!({"timeout_seconds": 0}),
            "output.timeout_seconds: expected more than 0",
        ),
        (
            json!({"compression": "zstd"}),
            "output.compression: expected `none` or `gzip`",
        ),
        (
            json!({"tls": {"ca_cert": "/a"}}),
            "output.tls: the endpoint is no `https` URL",
        ),
        (json!({"tls": {"cert": "/a"}}), "output.tls.private_key"),
        (
            json!({"max_request_bytes": 0}),
            "output.max_request_bytes: expected 1 or more",
        ),
        (json!({"resource": {"a": 1}}), "output.resource.a"),
    ] {
        let error = read(&section, none).unwrap_err().to_string();
        assert!(error.contains(wanted), "{section}: {error}");
    }
    let wrong = |name: &str| (name == "OTEL_EXPORTER_OTLP_TIMEOUT").then(|| "10s".to_owned());
    let error = read(&json!({}), wrong).unwrap_err().to_string();
    let wanted = "output: OTEL_EXPORTER_OTLP_TIMEOUT: expected milliseconds, found `10s`";
    assert!(error.contains(wanted), "{error}");
}
