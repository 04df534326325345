//! Bundles that we write, in the hands of the real OPA, and those that `opa build` writes, in ours.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use opa_core::Value as RegoValue;
use opa_core::bundle::{BundleWriter, Limits, ModuleFile, read};
use serde_json::{Map, Value, json};
use tests::comparison::{Judge, Known, NOTHING};
use tests::echo;
use tests::peers::{self, Opa};
use tests::policies::{self, Policy, REVISION};

/// The same files packed by both, and the bundle of each.
struct Packed {
    policy: Policy,
    theirs: PathBuf,
    ours: PathBuf,
}

fn pack(opa: &Opa, folder: &Path) -> Vec<Packed> {
    let sources = folder.join("sources");
    let both = |policy: Policy| {
        let files = policy.lay_out(&sources);
        let theirs = folder.join(format!("{}-theirs.tar.gz", policy.name()));
        let ours = folder.join(format!("{}-ours.tar.gz", policy.name()));
        opa.build(&files, &theirs, REVISION);
        let writer = BundleWriter::from_directory(&files)
            .unwrap()
            .revision(REVISION);
        fs::write(&ours, writer.to_vec().unwrap()).unwrap();
        Packed {
            policy,
            theirs,
            ours,
        }
    };
    policies::all().into_iter().map(both).collect()
}

const FILES: &str = "`opa build` makes one data file of all; we keep the files";

/// What differs in all that `opa` tells of a bundle: manifest, files by package, built-ins.
const TOLD: &[Known] = &[
    Known::everywhere("/namespaces/data", r#"["/data.json"]"#, NOTHING, FILES),
    Known::everywhere(
        "/namespaces/data.orders",
        r#"["/orders/policy.rego"]"#,
        r#"["/orders/policy.rego","/orders/data.json"]"#,
        FILES,
    ),
    Known::everywhere(
        "/namespaces/data.tenant",
        r#"["/tenant/policy.rego"]"#,
        r#"["/tenant/policy.rego","/tenant/data.json"]"#,
        FILES,
    ),
];

#[test]
fn opa_sees_the_same_in_both() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut judge = Judge::new(TOLD);
    for Packed {
        policy,
        theirs,
        ours,
    } in pack(&opa, folder.path())
    {
        let told = opa.inspect(&ours);
        assert_eq!(told["manifest"]["revision"], REVISION, "{}", policy.name());
        judge.compare(policy.name(), &opa.inspect(&theirs), &told);
    }
    let complaints = judge.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn opa_decides_the_same_by_both() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut decided, mut failed) = (0, 0);
    for Packed {
        policy,
        theirs,
        ours,
    } in pack(&opa, folder.path())
    {
        for case in policy.cases() {
            let decide = |bundle| opa.try_eval(bundle, &policy.query(), &input(&case.request()));
            match (decide(&theirs), decide(&ours)) {
                (Ok(theirs), Ok(ours)) => {
                    assert_eq!(ours, theirs, "{}: {}", policy.name(), case.name());
                    decided += usize::from(ours.is_some());
                }
                (Err(_), Err(_)) => failed += 1,
                (theirs, ours) => panic!("{}: {theirs:?}, {ours:?}", case.name()),
            }
        }
    }
    // The conflict alone is an error; a bundle that OPA can't read would be one in every case.
    assert_eq!(failed, 1);
    assert!(decided > 100, "only {decided} decisions");
}

/// As much of an input document as decides.
fn input(request: &Request<Bytes>) -> Value {
    let path = request.uri().path().trim_start_matches('/');
    let headers: Map<_, _> = echo::lists(request.headers())
        .into_iter()
        .map(|(name, values)| (name, json!(values.join(","))))
        .collect();
    let query = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let query: Map<_, _> = query
        .map(|(name, value)| (name.to_owned(), json!([value])))
        .collect();
    json!({
        "attributes": {"request": {"http": {
            "method": request.method().as_str(),
            "path": request.uri().to_string(),
            "headers": headers,
        }}},
        "parsed_path": path.split('/').collect::<Vec<_>>(),
        "parsed_query": query,
    })
}

#[test]
fn we_read_the_same_in_both() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut judge = Judge::new(&[]);
    for Packed {
        policy,
        theirs,
        ours,
    } in pack(&opa, folder.path())
    {
        let (theirs, ours) = (contents(&theirs), contents(&ours));
        assert_eq!(theirs["manifest"]["revision"], REVISION);
        assert!(
            !theirs["modules"].as_array().unwrap().is_empty(),
            "{}",
            policy.name()
        );
        judge.compare(policy.name(), &theirs, &ours);
    }
    let complaints = judge.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// All that a bundle has for us.
fn contents(file: &Path) -> Value {
    let bundle = read(fs::File::open(file).unwrap(), &Limits::default()).unwrap();
    let module = |module: &ModuleFile| {
        json!({
            "path": &**module.path(),
            "source": &**module.source(),
            "package": module.package(),
            "version": format!("{:?}", module.rego_version()),
        })
    };
    json!({
        "manifest": bundle.manifest().to_value().to_serde(),
        "data": bundle.data().to_serde(),
        "modules": bundle.modules().iter().map(module).collect::<Vec<_>>(),
    })
}

/// Roots keep bundles apart: without ours, OPA would refuse two in one server.
#[tokio::test]
async fn opa_downloads_and_activates_ours_side_by_side() {
    let (Some(opa), Some(nginx)) = (peers::opa(), peers::nginx()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, policy) in [
        ("orders", "allow if input.n > data.orders.least"),
        ("bills", "allow := false"),
    ] {
        let bundle = BundleWriter::new()
            .revision(format!("{name}-1"))
            .roots([name])
            .unwrap()
            .module("policy.rego", format!("package {name}\n\n{policy}\n"))
            .unwrap()
            .data(name, &RegoValue::from(json!({"least": 10})))
            .unwrap();
        fs::write(
            folder.path().join(format!("{name}.tar.gz")),
            bundle.to_vec().unwrap(),
        )
        .unwrap();
    }
    let nginx = nginx.serve(folder.path()).await;
    let configuration = json!({
        "services": {"nginx": {"url": nginx.url()}},
        "bundles": {
            "orders": {"resource": "orders.tar.gz"},
            "bills": {"resource": "bills.tar.gz"},
        },
        "decision_logs": {"console": true},
    });
    let running = opa.serve(&configuration.to_string()).await;
    assert_eq!(
        running.decide("orders/allow", &json!({"n": 11})).await,
        Some(json!(true))
    );
    assert_eq!(
        running.decide("orders/allow", &json!({"n": 10})).await,
        None
    );
    assert_eq!(
        running.decide("bills/allow", &json!({})).await,
        Some(json!(false))
    );
    assert_eq!(
        running.decision_logs()[0]["bundles"],
        json!({"orders": {"revision": "orders-1"}, "bills": {"revision": "bills-1"}})
    );
}
