//! The `decision_logs` section: what the real `opa` refuses is refused by ours in its words.

use opa_core::config::Section;
use opa_plugins::decision_logs::DecisionLogsConfig;
use serde_json::{Value, json};
use tests::peers;

/// Ours adds the place; OPA's own parser has other words for a wrong type.
fn ours(section: &Value) -> Result<(), String> {
    let section = Section::from_json("decision_logs", section);
    DecisionLogsConfig::read(&section, &["s"], &[], &mut Vec::new())
        .map(drop)
        .map_err(|error| error.message().to_owned())
}

fn reporting(reporting: Value) -> Value {
    json!({"reporting": reporting})
}

#[tokio::test]
async fn what_opa_refuses_is_refused_in_its_words() {
    let Some(opa) = peers::opa() else { return };
    for section in [
        json!({"plugin": "other"}),
        json!({"service": "other"}),
        reporting(json!({"trigger": "x"})),
        reporting(json!({"min_delay_seconds": 1})),
        reporting(json!({"max_delay_seconds": 1})),
        reporting(json!({"min_delay_seconds": 2, "max_delay_seconds": 1})),
        reporting(json!({"buffer_type": "x"})),
        reporting(json!({"buffer_type": "event", "buffer_size_limit_bytes": 1})),
        reporting(json!({"buffer_size_limit_events": 1})),
        reporting(json!({"buffer_size_limit_bytes": 1, "max_decisions_per_second": 1})),
        reporting(json!({"buffer_size_limit_bytes": 0})),
        reporting(json!({"buffer_type": "event", "buffer_size_limit_events": 0})),
        // Of two faults the same one is told.
        json!({"service": "other", "reporting": {"trigger": "x"}}),
        reporting(json!({"trigger": "x", "min_delay_seconds": 1})),
        reporting(json!({"buffer_type": "x", "min_delay_seconds": 1})),
    ] {
        let message = ours(&section).unwrap_err();
        let config =
            json!({"services": {"s": {"url": "http://127.0.0.1:1"}}, "decision_logs": section});
        let theirs = opa.try_serve(&config.to_string()).await.unwrap_err();
        assert!(
            theirs.contains(&message.replace('"', "\\\"")) || theirs.contains(&message),
            "{section}: {message}\n{theirs}"
        );
    }
    for section in [
        json!({"resource": "1a:b"}),
        json!({"resource": ":b"}),
        json!({"resource": "a b:c/d"}),
        json!({"resource": "a%zz"}),
        json!({"resource": "a\u{7f}"}),
        json!({"console": 1}),
        reporting(json!({"min_delay_seconds": 1.5, "max_delay_seconds": 2})),
        reporting(json!({"upload_size_limit_bytes": "1"})),
        json!({"request_context": {"http": {"headers": "a"}}}),
        json!({"mask_decision": ["a"]}),
    ] {
        let message = ours(&section).unwrap_err();
        let config =
            json!({"services": {"s": {"url": "http://127.0.0.1:1"}}, "decision_logs": section});
        assert!(
            opa.try_serve(&config.to_string()).await.is_err(),
            "{section}: {message}"
        );
    }
    for section in [
        json!({}),
        json!({"resource": "/a/b?c=d", "partition_name": "", "service": ""}),
        json!({"partition_name": "eu", "resource": ":b"}),
        json!({"resource": "a+1:b"}),
        json!({"resource": "/a:b"}),
        json!({"resource": "a/1:b"}),
        reporting(
            json!({"max_decisions_per_second": 0.5, "buffer_type": "event", "trigger": "immediate"}),
        ),
        reporting(json!({"upload_size_limit_bytes": -1, "trigger": "manual", "buffer_type": ""})),
        reporting(
            json!({"min_delay_seconds": 1.0, "max_delay_seconds": 1e0, "buffer_size_limit_bytes": null}),
        ),
        json!({"mask_decision": null, "drop_decision": "a/b", "request_context": {"http": null}}),
    ] {
        assert_eq!(ours(&section), Ok(()), "{section}");
        let config =
            json!({"services": {"s": {"url": "http://127.0.0.1:1"}}, "decision_logs": section});
        assert!(
            opa.try_serve(&config.to_string()).await.is_ok(),
            "{section}"
        );
    }
}
