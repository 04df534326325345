use std::time::Duration;

use opa_core::config::{CredentialsConfig, S3Keys, Secret};
use serde_json::{Value, json};

use super::super::super::config::Batching;
use super::super::form::{Form, Format};
use super::super::options::testing::within;
use super::super::{Disk, Storage};
use super::sender::{Rate, Retry, Wrap};
use super::*;

fn policies() -> Policies {
    let path = |path| EntrypointPath::parse(path).unwrap();
    Policies {
        drop_decision: path("system/log/drop"),
        mask_decision: path("system/log/mask"),
        then: Further::default(),
    }
}

/// In an app with a service `store`.
fn outputs(value: &Value) -> Result<Vec<OutputSpec>, ConfigError> {
    let section = Section::from_json("plugins.eopa_dl", value);
    let eopa = Eopa::default();
    within(move |scope| eopa.outputs(&section, scope, &policies()))
}

fn output(value: Value) -> OutputSpec {
    let mut all = outputs(&json!({"output": value})).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Reads a section without an app.
fn read<T>(
    value: &Value,
    read: impl FnOnce(&mut Reader<'_>, &mut Vec<Warning>) -> Result<T, ConfigError>,
) -> (T, Vec<String>) {
    let section = Section::from_json("output", value);
    let mut reader = section.reader().unwrap();
    let mut warnings = Vec::new();
    let value = read(&mut reader, &mut warnings).unwrap();
    let unknown = reader.finish().unwrap();
    let texts = warnings.iter().chain(&unknown);
    (value, texts.map(|it| it.message().to_owned()).collect())
}

fn batching(at_count: usize, at_bytes: usize, at_period: Duration) -> Batching {
    Batching {
        at_count,
        at_bytes,
        at_period,
    }
}

#[tokio::test]
async fn one_output_or_several_have_names_of_their_own() {
    let http = json!({"type": "http", "url": "http://a.test"});
    let all = outputs(&json!({"output": [{"type": "console"}, http, http]})).unwrap();
    let names: Vec<_> = all.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["eopa_dl.console", "eopa_dl.http", "eopa_dl.http.2"]);
    assert!(matches!(all[0].way, Way::Console));
    assert!(matches!(all[1].way, Way::Output(_)));
    let one = output(json!({"type": "service", "service": "store", "resource": "a/b"}));
    assert_eq!(&*one.name, "eopa_dl.service");
    assert_eq!(one.batching.at_period, Duration::from_millis(10));
}

#[tokio::test]
async fn policies_of_an_output_are_asked_in_addition() {
    let own = output(json!({
        "type": "console", "mask_decision": "audit/mask", "drop_decision": "/audit/drop",
    }));
    let path = |path| Some(EntrypointPath::parse(path).unwrap());
    assert_eq!(own.policies.drop_decision, policies().drop_decision);
    assert_eq!(own.policies.then.mask_decision, path("audit/mask"));
    assert_eq!(own.policies.then.drop_decision, path("audit/drop"));
    assert_eq!(output(json!({"type": "console"})).policies, policies());
}

#[tokio::test]
async fn the_buffer_says_when_outputs_without_batches_start() {
    let of = |buffer: Value| {
        let output = json!({"type": "service", "service": "store"});
        let http = json!({"type": "http", "url": "http://a.test"});
        let all = outputs(&json!({"buffer": buffer, "output": [http, output]})).unwrap();
        (all[0].batching, all[0].buffer_bytes)
    };
    let (at_once, bytes) = of(Value::Null);
    assert_eq!(at_once.at_period, Duration::from_millis(1));
    assert_eq!(bytes, Some(524_288_000));
    let (limits, bytes) = of(json!({
        "type": "memory", "max_bytes": 1000, "flush_at_count": 7, "flush_at_bytes": 500,
        "flush_at_period": "1m30s",
    }));
    assert_eq!(limits, batching(7, 500, Duration::from_secs(90)));
    assert_eq!(bytes, Some(1000));
    let (limits, _) = of(json!({"flush_at_count": 7, "flush_at_bytes": 0}));
    assert_eq!(
        (limits.at_count, limits.at_period),
        (7, Duration::from_secs(1))
    );
}

#[tokio::test]
async fn the_buffer_says_where_events_wait() {
    let of = |buffer: Value| {
        let http = json!({"type": "http", "url": "http://a.test"});
        let lines = json!({"type": "http", "url": "http://a.test", "batching": {"at_count": 7}});
        let slow = json!({"type": "http", "url": "http://a.test", "retry": {"max_backoff": "9s"}});
        let all = outputs(&json!({"buffer": buffer, "output": [http, lines, slow]})).unwrap();
        let counts = [all[0].batching.at_count, all[1].batching.at_count];
        let seconds = |it: &OutputSpec| it.max_retry.map(|it| it.as_secs());
        (
            all[0].storage.clone(),
            counts,
            [seconds(&all[0]), seconds(&all[2])],
        )
    };
    let disk = |max_bytes| {
        let path = "/var/tmp/dl".into();
        Storage::Disk(Disk { path, max_bytes })
    };
    let usual = ([100, 7], [None, Some(9)]);
    for (buffer, storage, (counts, retries)) in [
        (json!({"type": ""}), Storage::Default, usual),
        (
            json!({"type": "disk", "path": "/var/tmp/dl"}),
            disk(None),
            usual,
        ),
        (
            json!({"type": "disk", "path": "/var/tmp/dl", "max_bytes": 5}),
            disk(Some(5)),
            usual,
        ),
        (
            json!({"type": "unbuffered"}),
            Storage::Unbuffered,
            ([1, 7], [Some(1), Some(9)]),
        ),
    ] {
        assert_eq!(of(buffer), (storage, counts, retries));
    }
}

#[test]
fn what_is_not_enabled_has_no_effect() {
    let value = json!({
        "url": "https://u.test", "oauth2": {"client_key": "a"},
        "tls": {"enabled": false, "skip_cert_verify": true},
    });
    let (http, warnings) = read(&value, http::Http::read);
    assert!(!http.service.allow_insecure_tls);
    assert_eq!(warnings, ["it has no effect without `enabled: true`"]);
    let value =
        json!({"url": "https://u.test", "tls": {"enabled": true, "skip_cert_verify": true}});
    let (http, warnings) = read(&value, http::Http::read);
    assert!(http.service.allow_insecure_tls && warnings.is_empty());
}

#[test]
fn batches_are_read() {
    let of = |value: Value| read(&json!({"batching": value}), Gathering::read);
    let form = |format, gzip| Form { format, gzip };
    let (all, warnings) = of(json!({
        "at_count": 5, "at_bytes": 600, "at_period": "250ms", "format": "array", "compress": true,
    }));
    assert_eq!(
        all.limits,
        Some(batching(5, 600, Duration::from_millis(250)))
    );
    assert_eq!(all.form, form(Format::Array, true));
    assert!(warnings.is_empty());
    let (none, _) = of(json!({}));
    assert_eq!(none.form, form(Format::Lines, false));
    assert_eq!(none.limits.unwrap().at_period, Duration::from_secs(10));
    assert_eq!(of(json!({"format": "none"})).0.form.format, Format::Each);
    let (old, warnings) = of(json!({"array": true}));
    assert_eq!(old.form.format, Format::Array);
    assert_eq!(warnings, ["`array` is deprecated: use `format: array`"]);
    let (other, warnings) = of(json!({"format": "xml"}));
    assert_eq!(other.form.format, Format::Lines);
    assert_eq!(warnings.len(), 1);
    assert_eq!(read(&json!({}), Gathering::read).0, Gathering::default());
}

#[test]
fn http_is_read() {
    let value = json!({
        "url": "https://u.test/p/?q=1", "timeout": "3s", "headers": {"X-A": "b"},
        "oauth2": {"enabled": false},
        "tls": {
            "ca_cert": "ca.pem", "cert": "c.pem", "private_key": "k.pem", "skip_cert_verify": true,
            "client_certs": null, "root_cas": null,
        },
        "retry": {
            "period": "2s", "max_attempts": 4, "max_backoff": "8s", "backoff_on": [429],
            "drop_on": [400, 404], "successful_on": [409],
        },
        "rate_limit": {"count": 3, "interval": "20ms"},
    });
    let (http, warnings) = read(&value, http::Http::read);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(http.service.url, "https://u.test/p/?q=1");
    assert_eq!(http.service.headers[0].0, "x-a");
    assert_eq!(http.service.tls.ca_cert, Some("ca.pem".into()));
    assert!(http.service.allow_insecure_tls);
    let own = opa_core::config::ClientTlsConfig::new("c.pem", "k.pem");
    assert_eq!(http.service.credentials, CredentialsConfig::ClientTls(own));
    assert_eq!(http.timeout, Duration::from_secs(3));
    let code = |code| ::http::StatusCode::from_u16(code).unwrap();
    let retry = Retry {
        period: Some(Duration::from_secs(2)),
        max_attempts: 4,
        max_backoff: Some(Duration::from_secs(8)),
        drop_on: vec![code(400), code(404)],
        successful_on: vec![code(409)],
    };
    assert_eq!(http.retry, retry);
    let rate = Rate {
        count: 3,
        interval: Duration::from_millis(20),
    };
    assert_eq!((http.rate, http.wrap), (Some(rate), Wrap::None));
}

#[test]
fn a_timeout_is_no_longer_than_a_delivery() {
    let value = json!({"url": "https://u.test", "timeout": "61s"});
    let (http, warnings) = read(&value, http::Http::read);
    assert_eq!(http.timeout, Duration::from_secs(60));
    assert_eq!(warnings, ["a delivery takes no longer than a minute"]);
}

#[test]
fn splunk_is_read() {
    let value = json!({
        "url": "https://u.test/x", "token": "s3cr3t", "tls": {},
        "batching": {"format": "array", "compress": true},
    });
    let (splunk, warnings) = read(&value, http::splunk);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(splunk.service.headers[0].0, "authorization");
    assert_eq!(splunk.service.headers[0].1, "Splunk s3cr3t");
    assert_eq!(splunk.wrap, Wrap::Splunk);
    assert_eq!(splunk.gathering.form.format, Format::Lines);
    assert!(!format!("{splunk:?}").contains("s3cr3t"));
}

#[test]
fn s3_is_read() {
    let with = |more: Value| {
        let mut value = json!({"bucket": "log", "region": "eu-central-1"});
        value
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        read(&value, s3::S3::read).0
    };
    let signing = |s3: &s3::S3| match &s3.service.credentials {
        CredentialsConfig::S3Signing(signing) => signing.clone(),
        other => panic!("{other:?}"),
    };
    let all = with(json!({
        "endpoint": "http://a.test:9000/", "force_path": true, "access_key_id": "id",
        "access_secret": "s3cr3t", "timeout": "2s", "tls": {"ca_cert": "ca.pem"},
        "batching": {"format": "none"},
    }));
    assert_eq!(all.service.url, "http://a.test:9000/log");
    let keys = S3Keys {
        access_key_id: "id".to_owned(),
        secret_access_key: Secret::new("s3cr3t"),
    };
    assert_eq!(signing(&all).keys, Some(keys));
    assert_eq!(signing(&all).region.as_deref(), Some("eu-central-1"));
    assert_eq!(all.timeout, Duration::from_secs(2));
    assert!(all.gathering.singly && !format!("{all:?}").contains("s3cr3t"));
    for (more, url) in [
        (json!({}), "https://log.s3.eu-central-1.amazonaws.com"),
        (
            json!({"force_path": true}),
            "https://s3.eu-central-1.amazonaws.com/log",
        ),
        (
            json!({"endpoint": "http://a.test:9000"}),
            "http://log.a.test:9000",
        ),
    ] {
        let s3 = with(more);
        assert_eq!(s3.service.url, url);
        assert_eq!(signing(&s3).keys, None);
    }
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_is_read() {
    use super::super::kafka::config::Mechanism;

    let value = json!({
        "urls": ["a.test", "b.test:1"], "topic": "log", "timeout": "4s", "tls": {"ca_cert": "c"},
        "sasl": [
            {"mechanism": "none"},
            {"mechanism": "scram-sha-256", "username": "u", "password": "p"},
        ],
        "batching": {"format": "array", "compress": true},
    });
    let ((settings, gathering), warnings) = read(&value, kafka::read);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(settings.target.brokers, ["a.test:9092", "b.test:1"]);
    let sasl = settings.target.sasl.unwrap();
    assert_eq!(
        (sasl.mechanism, &*sasl.username),
        (Mechanism::ScramSha256, "u")
    );
    assert_eq!(settings.target.tls.unwrap().ca_cert, Some("c".into()));
    assert_eq!(
        (settings.timeout, &*settings.topic),
        (Duration::from_secs(4), "log")
    );
    assert_eq!(settings.form, gathering.form);
    assert_eq!(settings.form.format, Format::Array);
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place() {
    let http = |key: &str, value: Value| {
        let mut http = json!({"type": "http", "url": "http://a.test"});
        http[key] = value;
        json!({"output": http})
    };
    let s3 = |key: &str, value: Value| {
        let mut s3 = json!({"type": "s3", "bucket": "b", "region": "r"});
        s3[key] = value;
        json!({"output": [{"type": "console"}, s3]})
    };
    let only = |value: Value| json!({"output": value});
    let buffer = |value: Value| json!({"buffer": value, "output": {"type": "console"}});
    let mut cases = vec![
        (json!({}), "plugins.eopa_dl: no outputs"),
        (only(json!([])), "plugins.eopa_dl: no outputs"),
        (
            only(json!("x")),
            "plugins.eopa_dl.output: expected an object",
        ),
        (only(json!({})), "plugins.eopa_dl.output.type: expected"),
        (
            only(json!([{"type": "console"}, {"type": "x"}])),
            "plugins.eopa_dl.output.1.type: unknown output type: \"x\"",
        ),
        (
            only(json!({"type": "gcs"})),
            "output.type: gcs` is not supported by this version",
        ),
        (
            only(json!({"type": "experimental"})),
            "output.type: experimental` is not supported by this version",
        ),
        (
            only(json!({"type": "console", "mask_decision": ""})),
            "plugins.eopa_dl.output.mask_decision: invalid mask_decision",
        ),
        (
            only(json!({"type": "console", "drop_decision": 1})),
            "plugins.eopa_dl.output.drop_decision: expected a string",
        ),
        (
            only(json!({"type": "service"})),
            "plugins.eopa_dl.output.service: expected",
        ),
        (
            only(json!({"type": "service", "service": "x"})),
            "plugins.eopa_dl.output.service: unknown service: \"x\"",
        ),
        (
            only(json!({"type": "service", "service": "store", "resource": "a/../b"})),
            "plugins.eopa_dl.output.resource: ",
        ),
        (
            buffer(json!({"type": "x"})),
            "plugins.eopa_dl.buffer.type: unknown buffer type: \"x\"",
        ),
        (
            buffer(json!({"type": "disk"})),
            "plugins.eopa_dl.buffer.path: expected the path of a directory",
        ),
        (
            buffer(json!({"type": "disk", "path": "a", "max_bytes": -1})),
            "buffer.max_bytes: expected 0 or more, found `-1`",
        ),
        (
            buffer(json!({"max_bytes": -1})),
            "buffer.max_bytes: expected 0 or more, found `-1`",
        ),
        (
            buffer(json!({"flush_at_count": "1"})),
            "buffer.flush_at_count: expected an integer",
        ),
        (
            buffer(json!({"flush_at_bytes": 1.5})),
            "buffer.flush_at_bytes: expected an integer",
        ),
        (
            buffer(json!({"flush_at_period": "x"})),
            "buffer.flush_at_period: expected a duration",
        ),
        (
            http("url", Value::Null),
            "plugins.eopa_dl.output.url: expected a URL",
        ),
        (
            http("url", json!("ftp://a")),
            "plugins.eopa_dl.output.url: expected a URL",
        ),
        (
            http("timeout", json!("0s")),
            "output.timeout: must be longer than `0s`",
        ),
        (
            http("headers", json!({"a b": "c"})),
            "output.headers.a b: expected the name",
        ),
        (
            http("oauth2", json!({"enabled": true})),
            "output.oauth2` is not supported",
        ),
        (
            http("tls", json!({"client_certs": []})),
            "output.tls.client_certs` is not supported",
        ),
        (
            http("tls", json!({"root_cas": "x"})),
            "output.tls.root_cas` is not supported",
        ),
        (
            http("tls", json!({"cert": "x"})),
            "output.tls.private_key: expected",
        ),
        (
            http("retry", json!({"max_attempts": -1})),
            "output.retry.max_attempts: expected 0",
        ),
        (
            http("retry", json!({"period": 1})),
            "output.retry.period: expected a string",
        ),
        (
            http("retry", json!({"max_backoff": "1"})),
            "output.retry.max_backoff: expected",
        ),
        (
            http("retry", json!({"drop_on": [1]})),
            "output.retry.drop_on.0: expected a status",
        ),
        (
            http("retry", json!({"backoff_on": ["x"]})),
            "output.retry.backoff_on.0: expected",
        ),
        (
            http("retry", json!({"successful_on": 1})),
            "output.retry.successful_on: expected",
        ),
        (
            http("rate_limit", json!({"interval": "1s"})),
            "output.rate_limit.count: expected",
        ),
        (
            http("rate_limit", json!({"count": 0, "interval": "1s"})),
            "output.rate_limit.count: expected 1 or more",
        ),
        (
            http("rate_limit", json!({"count": 1})),
            "output.rate_limit.interval: expected",
        ),
        (
            http("batching", json!({"at_count": -1})),
            "output.batching.at_count: expected 0",
        ),
        (
            http("batching", json!({"at_bytes": "x"})),
            "output.batching.at_bytes: expected",
        ),
        (
            http("batching", json!({"at_period": "x"})),
            "output.batching.at_period: expected",
        ),
        (
            http("batching", json!({"format": 1})),
            "output.batching.format: expected a string",
        ),
        (
            http("batching", json!({"array": 1})),
            "output.batching.array: expected a boolean",
        ),
        (
            http("batching", json!({"compress": 1})),
            "output.batching.compress: expected",
        ),
        (
            only(json!({"type": "splunk", "url": "http://a.test"})),
            "plugins.eopa_dl.output.token: expected",
        ),
        (
            only(json!({"type": "splunk", "url": "http://a.test", "token": "a\nb"})),
            "plugins.eopa_dl.output.token: expected a text",
        ),
        (
            only(json!({"type": "s3"})),
            "plugins.eopa_dl.output: output S3 missing required configs: bucket, region",
        ),
        (
            s3("region", Value::Null),
            "output.1: output S3 missing required configs: region",
        ),
        (
            s3("bucket", json!("a/b")),
            "output.1: `bucket`: expected a name, found `a/b`",
        ),
        (
            s3("endpoint", json!("a.test")),
            "output.1.endpoint: expected a URL",
        ),
        (
            s3("access_key_id", json!("x")),
            "output.1.access_secret: expected",
        ),
        (
            s3("access_secret", json!("x")),
            "output.1.access_key_id: expected",
        ),
        (
            s3("tls", json!({"cert": "c", "private_key": "k"})),
            "output.1.tls: a client certificate beside signatures",
        ),
    ];
    if cfg!(feature = "kafka") {
        let kafka = |key: &str, value: Value| {
            let mut kafka = json!({"type": "kafka", "urls": ["a.test"], "topic": "log"});
            kafka[key] = value;
            json!({"output": kafka})
        };
        let plain = json!({"mechanism": "PLAIN", "username": "u", "password": "p"});
        cases.extend([
            (kafka("urls", Value::Null), "output.urls: expected"),
            (
                kafka("urls", json!(["http://a"])),
                "output.urls.0: expected `host:port` without",
            ),
            (kafka("topic", Value::Null), "output.topic: expected"),
            (
                kafka("timeout", json!("x")),
                "output.timeout: expected a duration",
            ),
            (
                kafka("sasl", json!([{"mechanism": "x"}])),
                "output.sasl.0.mechanism: unsupported SASL mechanism: \"x\"",
            ),
            (
                kafka("sasl", json!([plain, plain])),
                "output.sasl.1: more than one SASL mechanism",
            ),
            (
                kafka("tls", json!({"ca_cert": "/none.pem"})),
                "output: tls: `/none.pem`",
            ),
        ]);
    } else {
        let kafka = json!({"type": "kafka"});
        cases.push((only(kafka), "output.type: this program was built without"));
    }
    for (section, wanted) in cases {
        let error = outputs(&section)
            .map(drop)
            .map_err(|error| error.to_string());
        let error = error.expect_err(&section.to_string());
        assert!(error.contains(wanted), "{section}: {error}");
    }
}
