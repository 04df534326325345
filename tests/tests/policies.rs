//! The fixed policies against real peers alone: what the fixtures expect is what Envoy with its
//! plugin answers, and the newer OPA decides alike.

use serde_json::Value;
use tests::envoy_stack::EnvoyPeers;
use tests::{peers, policies};

#[tokio::test]
async fn envoy_answers_as_the_fixtures_say_and_opa_decides_alike() {
    let (Some(opa), Some(peers)) = (peers::opa(), EnvoyPeers::fetch()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for policy in policies::all() {
        let bundle = policy.build(&opa, folder.path());
        let mut stack = peers.start(&bundle, policy.path(), policy.context()).await;
        for case in policy.cases() {
            let case_name = format!("{}: {}", policy.name(), case.name());
            let outcome = stack.send(case.request()).await;
            let status = outcome.response.status().as_u16();
            if status != case.status() {
                wrong.push(format!(
                    "{case_name}: {status} instead of {}",
                    case.status()
                ));
            }
            let decided = opa.try_eval(&bundle, &policy.query(), &outcome.event["input"]);
            if !alike(&outcome.event, &decided) {
                wrong.push(format!(
                    "{case_name}: the plugin {}, OPA {decided:?}",
                    outcome.event
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the plugin's event tells the same decision as OPA's own evaluation of its input.
fn alike(event: &Value, decided: &Result<Option<Value>, String>) -> bool {
    match event.get("error").and_then(Value::as_str) {
        None => decided.as_ref() == Ok(&event.get("result").cloned()),
        Some("undefined decision") => decided == &Ok(None),
        // A decision that the plugin can't make an answer of: its event doesn't tell it.
        Some(error) if error.starts_with("failed to get response ") => {
            matches!(decided, Ok(Some(_)))
        }
        Some(_) => decided.is_err(),
    }
}
