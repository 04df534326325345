use super::*;
use serde_json::{Value, json};
use std::time::Duration;

type Read = Result<(Option<DecisionLogsConfig>, Vec<String>), String>;

fn read_with(section: Value, services: &[&str]) -> Read {
    let section = Section::from_json("decision_logs", &section);
    let mut warnings = Vec::new();
    let config = DecisionLogsConfig::read(&section, services, &["mine"], &mut warnings);
    let warnings = warnings.iter().map(|it| it.message().to_owned()).collect();
    config
        .map(|config| (config, warnings))
        .map_err(|error| error.to_string())
}

fn read(section: Value) -> DecisionLogsConfig {
    let (config, warnings) = read_with(section, &["first", "second"]).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    config.unwrap()
}

#[test]
fn defaults_are_those_of_opa() {
    for section in [
        json!({}),
        json!({"reporting": {}, "service": "", "resource": null}),
    ] {
        let config = read(section);
        assert_eq!(config.service.as_deref(), Some("first"));
        assert_eq!(config.resource, "/logs");
        assert_eq!(config.mask_decision.as_str(), "system/log/mask");
        assert_eq!(config.drop_decision.as_str(), "system/log/drop");
        assert_eq!(config.reporting, ReportingConfig::default());
        assert!(!config.console && !config.nd_builtin_cache && config.plugin.is_none());
        assert_eq!(config.request_headers, Vec::<String>::new());
    }
}

#[test]
fn the_first_service_is_taken_only_if_there_is_nothing_else() {
    for (section, service) in [
        (json!({"console": true}), None),
        (json!({"plugin": "mine"}), None),
        (
            json!({"console": true, "service": "second"}),
            Some("second"),
        ),
        (
            json!({"plugin": "mine", "service": "second"}),
            Some("second"),
        ),
        (json!({"console": false}), Some("first")),
    ] {
        assert_eq!(
            read(section.clone()).service.as_deref(),
            service,
            "{section}"
        );
    }
    assert_eq!(read_with(json!({}), &[]), Ok((None, vec![])));
}

#[test]
fn all_options_are_read() {
    let config = read(json!({
        "console": true,
        "plugin": "mine",
        "service": "second",
        "resource": "/eu/logs",
        "mask_decision": "/a/mask",
        "drop_decision": "a/drop",
        "request_context": {"http": {"headers": ["X-A", "b"]}},
        "nd_builtin_cache": true,
        "reporting": {
            "buffer_type": "event",
            "buffer_size_limit_events": 5,
            "upload_size_limit_bytes": 100,
            "min_delay_seconds": 1,
            "max_delay_seconds": 2,
            "max_decisions_per_second": 0.5,
            "trigger": "immediate",
        },
    }));
    let expected = DecisionLogsConfig {
        plugin: Some("mine".into()),
        service: Some("second".into()),
        resource: "/eu/logs".into(),
        console: true,
        mask_decision: EntrypointPath::parse("a/mask").unwrap(),
        drop_decision: EntrypointPath::parse("a/drop").unwrap(),
        request_headers: vec!["X-A".into(), "b".into()],
        nd_builtin_cache: true,
        reporting: ReportingConfig {
            buffer: BufferConfig::Event { limit_events: 5 },
            upload_size_limit_bytes: 100,
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(2),
            max_decisions_per_second: Some(0.5),
            trigger: Trigger::Immediate,
        },
        when_full: WhenFull::DropOldest,
        durability: Durability::Async,
        audit: Audit::Off,
        outputs: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn the_partition_wins_over_the_resource() {
    for (section, resource, url) in [
        (json!({}), "/logs", "http://s/v1/logs"),
        (
            json!({"partition_name": "eu"}),
            "/logs/eu",
            "http://s/v1/logs/eu",
        ),
        (
            json!({"partition_name": "eu", "resource": "/a"}),
            "/logs/eu",
            "http://s/v1/logs/eu",
        ),
        (json!({"resource": "/a/b/"}), "/a/b/", "http://s/v1/a/b"),
        (json!({"resource": "a?x=1"}), "a?x=1", "http://s/v1/a?x=1"),
    ] {
        let config = read(section.clone());
        assert_eq!(config.resource, resource, "{section}");
        assert_eq!(config.upload_url("http://s/v1/"), url, "{section}");
    }
}

#[test]
fn sizes_are_clamped_with_a_warning() {
    for (asked, limit, warning) in [
        (json!(90), 90, None),
        (json!(4_294_967_296_u64), 4_294_967_296, None),
        (
            json!(1),
            90,
            Some(
                "the configured `upload_size_limit_bytes` (1) has been set to the minimum limit (90)",
            ),
        ),
        (
            json!(-5),
            90,
            Some(
                "the configured `upload_size_limit_bytes` (-5) has been set to the minimum limit (90)",
            ),
        ),
        (
            json!(4_294_967_297_u64),
            4_294_967_296,
            Some(
                "the configured `upload_size_limit_bytes` (4294967297) has been set to the maximum limit (4294967296)",
            ),
        ),
    ] {
        let section = json!({"reporting": {"upload_size_limit_bytes": asked}});
        let (config, warnings) = read_with(section, &["s"]).unwrap();
        assert_eq!(config.unwrap().reporting.upload_size_limit_bytes, limit);
        assert_eq!(warnings.first().map(String::as_str), warning);
    }
}

#[test]
fn messages_are_those_of_opa() {
    for (section, path, message) in [
        (
            json!({"plugin": "other"}),
            "plugin",
            r#"invalid plugin name "other" in decision_logs"#,
        ),
        (
            json!({"service": "other"}),
            "service",
            r#"invalid service name "other" in decision_logs"#,
        ),
        (
            json!({"mask_decision": ""}),
            "mask_decision",
            "invalid mask_decision in decision_logs: invalid decision path ``: it has no segment",
        ),
        (
            json!({"drop_decision": "/"}),
            "drop_decision",
            "invalid drop_decision in decision_logs: invalid decision path `/`: it has no segment",
        ),
        (
            json!({"resource": "a%zz"}),
            "resource",
            r#"invalid resource path "a%zz": invalid URL escape"#,
        ),
        (
            json!({"resource": "a%zz?sig=secret"}),
            "resource",
            r#"invalid resource path "a%zz": invalid URL escape"#,
        ),
        (
            json!({"resource": "1a:b"}),
            "resource",
            r#"invalid resource path "1a:b": first path segment in URL cannot contain colon"#,
        ),
        (
            json!({"console": 1}),
            "console",
            "expected a boolean, found a number",
        ),
        (
            json!({"request_context": {"http": {"headers": "a"}}}),
            "request_context.http.headers",
            "expected an array, found a string",
        ),
        (
            json!({"reporting": {"trigger": "x"}}),
            "reporting.trigger",
            r#"invalid decision_log config: invalid trigger mode "x" (want "periodic", "manual" or "immediate")"#,
        ),
        (
            json!({"reporting": {"min_delay_seconds": 1}}),
            "reporting.min_delay_seconds",
            "reporting configuration missing 'max_delay_seconds' in decision_logs",
        ),
        (
            json!({"reporting": {"max_delay_seconds": 1}}),
            "reporting.max_delay_seconds",
            "reporting configuration missing 'min_delay_seconds' in decision_logs",
        ),
        (
            json!({"reporting": {"min_delay_seconds": 2, "max_delay_seconds": 1}}),
            "reporting.max_delay_seconds",
            "max reporting delay must be >= min reporting delay in decision_logs",
        ),
        // OPA accepts these and uploads without a pause.
        (
            json!({"reporting": {"min_delay_seconds": 0, "max_delay_seconds": 1}}),
            "reporting.min_delay_seconds",
            "'min_delay_seconds' must be at least 1",
        ),
        (
            json!({"reporting": {"min_delay_seconds": 1, "max_delay_seconds": 31_536_001}}),
            "reporting.max_delay_seconds",
            "'max_delay_seconds' must be at most 31536000",
        ),
        (
            json!({"reporting": {"buffer_type": "x"}}),
            "reporting.buffer_type",
            r#"invalid buffer type "x", expected "event" or "size""#,
        ),
        (
            json!({"reporting": {"buffer_type": "event", "buffer_size_limit_bytes": 1}}),
            "reporting.buffer_size_limit_bytes",
            "invalid decision_log config, 'buffer_size_limit_bytes' isn't supported for the event buffer type",
        ),
        (
            json!({"reporting": {"buffer_size_limit_events": 1}}),
            "reporting.buffer_size_limit_events",
            "invalid decision_log config, 'buffer_size_limit_events' isn't supported for the size buffer type",
        ),
        (
            json!({"reporting": {"buffer_size_limit_bytes": 1, "max_decisions_per_second": 1}}),
            "reporting.buffer_size_limit_bytes",
            "invalid decision_log config, specify either 'buffer_size_limit_bytes' or 'max_decisions_per_second'",
        ),
        (
            json!({"reporting": {"buffer_size_limit_bytes": 0}}),
            "reporting.buffer_size_limit_bytes",
            "invalid decision_log config, 'buffer_size_limit_bytes' must be higher than 0",
        ),
        (
            json!({"reporting": {"buffer_type": "event", "buffer_size_limit_events": -1}}),
            "reporting.buffer_size_limit_events",
            "invalid decision_log config, 'buffer_size_limit_entries' must be higher than 0",
        ),
    ] {
        let error = read_with(section.clone(), &["s"]).unwrap_err();
        assert_eq!(
            error,
            format!("decision_logs.{path}: {message}"),
            "{section}"
        );
    }
}

#[test]
fn unknown_options_are_warned_about() {
    let section =
        json!({"x": 1, "reporting": {"y": 1}, "request_context": {"z": 1, "http": {"w": 1}}});
    let (_, warnings) = read_with(section, &["s"]).unwrap();
    let expected = [
        "request_context.http.w",
        "request_context.z",
        "reporting.y",
        "x",
    ];
    let expected = expected
        .map(|it| format!("unknown configuration option \"decision_logs.{it}\" encountered"));
    assert_eq!(warnings, expected);
}

#[test]
fn what_happens_to_what_has_no_room_is_read() {
    let hold = |millis| WhenFull::Hold {
        deadline: Duration::from_millis(millis),
    };
    for (section, when_full, audit) in [
        (
            json!({"when_full": "drop_oldest"}),
            WhenFull::DropOldest,
            Audit::Off,
        ),
        (
            json!({"when_full": "drop_newest", "audit": false}),
            WhenFull::DropNewest,
            Audit::Off,
        ),
        (
            json!({"when_full": "sample", "audit": true}),
            WhenFull::Sample,
            Audit::On,
        ),
        (
            json!({"when_full": "hold", "audit": "required"}),
            hold(1_000),
            Audit::Required,
        ),
        (
            json!({"when_full": "hold", "hold_deadline_ms": 30_000}),
            hold(30_000),
            Audit::Off,
        ),
    ] {
        let config = read(section.clone());
        assert_eq!(
            (config.when_full, config.audit),
            (when_full, audit),
            "{section}"
        );
    }
    for (section, message) in [
        (
            json!({"when_full": "x"}),
            "decision_logs.when_full: expected `drop_oldest`",
        ),
        (
            json!({"when_full": "hold", "hold_deadline_ms": 0}),
            "must be between 1 and 30000",
        ),
        (
            json!({"hold_deadline_ms": 5}),
            "it is for `when_full: hold` only",
        ),
        (
            json!({"audit": "yes"}),
            "expected `true`, `false` or `required`",
        ),
    ] {
        let error = read_with(section, &["first"]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn durability_decides_what_is_done_without_room() {
    let hold = |millis| WhenFull::Hold {
        deadline: Duration::from_millis(millis),
    };
    for (section, durability, when_full) in [
        (json!({}), Durability::Async, WhenFull::DropOldest),
        (
            json!({"durability": "async", "when_full": "deny"}),
            Durability::Async,
            WhenFull::Deny,
        ),
        (
            json!({"durability": "before_response"}),
            Durability::BeforeResponse,
            hold(1000),
        ),
        (
            json!({"durability": "before_response", "hold_deadline_ms": 5}),
            Durability::BeforeResponse,
            hold(5),
        ),
        (
            json!({"durability": "before_response", "when_full": "drop_newest"}),
            Durability::BeforeResponse,
            WhenFull::DropNewest,
        ),
    ] {
        let config = read(section.clone());
        assert_eq!(
            (config.durability, config.when_full),
            (durability, when_full),
            "{section}"
        );
    }
    for (section, text) in [
        (
            json!({"durability": "x"}),
            "decision_logs.durability: expected `async` or `before_response`, found `x`",
        ),
        (
            json!({"when_full": "deny", "hold_deadline_ms": 5}),
            "it is for `when_full: hold` only",
        ),
    ] {
        let error = read_with(section, &["first"]).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}
