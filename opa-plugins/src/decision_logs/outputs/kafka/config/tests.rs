use serde_json::{Value, json};

use super::*;

fn read(value: &Value) -> Result<Settings, ConfigError> {
    let section = Section::from_json("output", value);
    let mut warnings = Vec::new();
    let settings = Settings::read(&section, &mut warnings)?;
    assert!(warnings.is_empty(), "{warnings:?}");
    Ok(settings)
}

#[test]
fn all_options_are_read() {
    let read = read(&json!({
        "brokers": ["a.test", "b.test:9093"], "topic": "log", "format": "lines",
        "compression": "gzip", "timeout_seconds": 2.5, "max_request_bytes": 500,
        "tls": {"ca_cert": "ca.pem"},
        "sasl": {"mechanism": "scram-sha-512", "username": "u", "password": "p"},
    }));
    let wanted = Settings {
        target: Target {
            brokers: vec!["a.test:9092".to_owned(), "b.test:9093".to_owned()],
            tls: Some(TlsFiles {
                ca_cert: Some("ca.pem".into()),
                ..TlsFiles::default()
            }),
            sasl: Some(Sasl {
                mechanism: Mechanism::ScramSha512,
                username: "u".to_owned(),
                password: Secret::new("p"),
            }),
        },
        topic: "log".to_owned(),
        form: Form {
            format: Format::Lines,
            gzip: false,
        },
        compression: Compression::Gzip,
        timeout: Duration::from_millis(2500),
        max_request_bytes: 500,
    };
    assert_eq!(read, Ok(wanted));
}

#[test]
fn the_defaults() {
    let read = read(&json!({"brokers": ["[::1]"], "topic": "log", "sasl": {"mechanism": "none"}}));
    let read = read.unwrap();
    assert_eq!(read.target.brokers, ["[::1]:9092"]);
    assert_eq!((&read.target.tls, &read.target.sasl), (&None, &None));
    assert_eq!(read.form, Form::default());
    assert_eq!(read.compression, Compression::NoCompression);
    assert_eq!(read.timeout, DEFAULT_TIMEOUT);
    assert_eq!(read.max_request_bytes, DEFAULT_MAX_REQUEST_BYTES);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let with = |key: &str, value: Value| {
        let mut section = json!({"brokers": ["a.test"], "topic": "log"});
        section[key] = value;
        section
    };
    for (section, wanted) in [
        (json!({"topic": "log"}), "output.brokers: expected"),
        (with("brokers", json!([])), "output.brokers: expected"),
        (
            with("brokers", json!("a")),
            "output.brokers: expected an array",
        ),
        (
            with("brokers", json!(["a", "kafka://a.test:9092"])),
            "output.brokers.1: expected `host:port` without a scheme or path, found `kafka://",
        ),
        (
            with("brokers", json!(["a:b"])),
            "output.brokers.0: expected `host:port`, found `a:b`",
        ),
        (
            with("brokers", json!([":1"])),
            "output.brokers.0: expected `host:port`, found `:1`",
        ),
        (
            with("brokers", json!([""])),
            "output.brokers.0: expected `host:port`, found ``",
        ),
        (
            json!({"brokers": ["a"]}),
            "output.topic: expected the name of a topic",
        ),
        (
            with("topic", json!("a b")),
            "output.topic: expected the name of a topic, found `a b`",
        ),
        (
            with("format", json!("xml")),
            "output.format: expected `none`, `lines` or `array`",
        ),
        (
            with("compression", json!("zstd")),
            "output.compression: expected `none` or `gzip`",
        ),
        (
            with("timeout_seconds", json!(0)),
            "output.timeout_seconds: expected more than 0",
        ),
        (
            with("timeout_seconds", json!(-1)),
            "output.timeout_seconds: expected more than 0",
        ),
        (
            with("max_request_bytes", json!(0)),
            "output.max_request_bytes: expected 1 or more",
        ),
        (
            with("tls", json!({"cert": "c"})),
            "output.tls.private_key: expected",
        ),
        (with("sasl", json!({})), "output.sasl.mechanism: expected"),
        (
            with("sasl", json!({"mechanism": "GSSAPI"})),
            "output.sasl.mechanism: unsupported SASL mechanism: \"GSSAPI\"",
        ),
        (
            with("sasl", json!({"mechanism": "PLAIN", "username": "u"})),
            "output.sasl.password: expected",
        ),
        (
            json!({"brokers": ["[::1]:1"], "topic": "log", "tls": {}}),
            "output.brokers.0: expected a name or an IPv4 address",
        ),
    ] {
        let error = read(&section).unwrap_err().to_string();
        assert!(error.contains(wanted), "{section}: {error}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let sasl = json!({"mechanism": "PLAIN", "username": "u", "password": "s3cr3t"});
    let section = json!({"brokers": ["a.test"], "topic": "log", "sasl": sasl});
    let shown = format!("{:?}", read(&section).unwrap());
    assert!(!shown.contains("s3cr3t"), "{shown}");
}
