//! What the files of a bundle mean to the real `opa` and here: YAML's scalars, the versions of Rego,
//! and policies that are not in Rego.

use std::fs;
use std::path::Path;

use opa_core::Value as RegoValue;
use opa_core::bundle::{self, BundleErrorKind, Limits, read, read_path};
use opa_core::engine::{CompileOptions, Engine, EntrypointPath, Module, ModuleSet, Regorus};
use serde_json::{Value, json};
use tests::peers::{self, Opa};

/// Scalars of YAML, alone and in the corners where versions of YAML and libraries differ.
const SCALARS: &[&str] = &[
    "~",
    "null",
    "Null",
    "NULL",
    "nUll",
    "",
    "true",
    "True",
    "TRUE",
    "tRue",
    "false",
    "False",
    "yes",
    "Yes",
    "no",
    "NO",
    "on",
    "off",
    "y",
    "n",
    "Y",
    "0",
    "-0",
    "+1",
    "-1",
    "1",
    "12e3",
    "1e3",
    "1E+3",
    "1.",
    ".5",
    "-.5",
    "+.5",
    "1.5",
    "1_000",
    "0x1F",
    "0X1F",
    "0o17",
    "017",
    "08",
    "0b11",
    "-0x1",
    "+0o7",
    "1:30",
    "190:20:30",
    ".inf",
    "-.Inf",
    "+.INF",
    ".nan",
    ".NaN",
    "nan",
    "inf",
    "2001-01-01",
    "2001-12-14t21:59:43.10-05:00",
    "<<",
    "=",
    "'1'",
    "\"1\"",
    "\"\\x41\"",
    "!!str 1",
    "!!int '1'",
    "!!float 1",
    "!!bool 'true'",
    "!!null ''",
    "'it''s'",
    "a b",
    "a:b",
    "a#b",
    "a #b",
    "- 1",
    "1e400",
    "123456789012345678901234567890",
    "1.10",
    "0.1e1",
    "1e",
    "e1",
    "0x",
    "0o8",
    "--1",
    "+",
    "-",
    ".",
    "..",
    "|\n  x",
    ">\n  x\n  y",
    "\"a\\\n  b\"",
    "[1, yes]",
    "{a: on}",
    "@x",
    "`x",
    "%x",
    "&a x",
    "*a",
    "? x",
];

/// What stands at `a` when `a: <scalar>` is data; the error of either is none of the other's.
fn opa_reads(opa: &Opa, folder: &Path) -> Result<Value, String> {
    let found = opa.try_eval(folder, "data.a", &json!({}))?;
    Ok(found.unwrap_or(json!("(undefined)")))
}

#[test]
fn scalars_of_yaml_are_those_of_opa() {
    let Some(opa) = peers::opa() else { return };
    let mut complaints = Vec::new();
    let mut stricter = Vec::new();
    for scalar in SCALARS {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("data.yml"), format!("a: {scalar}\n")).unwrap();
        let theirs = opa_reads(&opa, folder.path());
        let ours = read_path(folder.path(), &Limits::default());
        let ours = ours
            .map(|bundle| bundle.data().get("a").map(RegoValue::to_serde))
            .map_err(|error| error.to_string());
        match (theirs, ours) {
            (Ok(theirs), Ok(Some(ours))) if same(&theirs, &ours) => {}
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => stricter.push((*scalar, error)),
            (theirs, ours) => complaints.push(format!("{scalar:?}: OPA {theirs:?}, here {ours:?}")),
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let refused: Vec<_> = stricter.iter().map(|(scalar, _)| *scalar).collect();
    assert_eq!(refused, STRICTER, "{stricter:?}");
}

/// What OPA takes and we refuse.
const STRICTER: &[&str] = &[];

/// Numbers by value: `opa eval` prints some of them otherwise.
fn same(theirs: &Value, ours: &Value) -> bool {
    theirs == ours
        || theirs
            .as_f64()
            .is_some_and(|number| ours.as_f64() == Some(number))
}

/// Rego v2 in a bundle whose manifest says so, or asked for by imports.
#[test]
fn no_module_of_rego_v2_means_something_else_here() {
    let Some(opa) = peers::opa() else { return };
    let sources = [
        "p := 1",
        "p if input.x",
        "p if not input.x",
        "p contains x if some x in [1, 2]",
        "p := [x | every x in [1] { x == 1 }; x := 3]",
        "p if { x := 1; not x == 2 }",
        "p if { not x == 2; x := 1 }",
        "p if { 1 == 1 and 2 == 2 }",
        "p if { 1 == 2 or 2 == 2 }",
        "p if not { 1 == 2 }",
        "p if not { false }",
        "p if { not (1 == 2) }",
        "p if { not ({1, 2} == {1}) }",
        "p := {1 | not {2}}",
        "and := 1\np := and",
        "p := input.and",
        "p := {\"and\": 1}.and",
        "p { true }",
        "p = 1",
        "import rego.v1\np if true",
        "import rego.v2\np if { 1 == 1 and 2 == 2 }",
        "import rego.v2\np if true",
        "import future.keywords\np if true",
        "import future.keywords\np if not { false }",
        "import future.keywords.in\np if 1 in [1]",
        "import future.keywords.and\np if { 1 == 1 and 2 == 2 }",
        "import future.keywords.not\np if not { false }",
        "import future.keywords.and\np := [x | x := 1]",
        "import rego.v3\np := 1",
    ];
    let mut complaints = Vec::new();
    let (mut agreed, mut refused) = (0, 0);
    for version in [json!(0), json!(1), json!(2)] {
        for source in sources {
            // Without an import, `if` is no keyword in v0, which regorus overlooks.
            if version == 0 && source.starts_with("p if") {
                continue;
            }
            let module = format!("package a\n\n{source}\n");
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.rego"), &module).unwrap();
            let manifest = json!({"rego_version": version, "roots": ["a"]});
            fs::write(folder.path().join(".manifest"), manifest.to_string()).unwrap();
            let theirs = opa.try_eval(folder.path(), "data.a.p", &json!({"and": 5}));
            let ours = evaluate(folder.path(), &json!({"and": 5}));
            match (&theirs, &ours) {
                (Ok(theirs), Ok(ours)) if theirs == ours => agreed += 1,
                (Err(_), Err(_)) => {}
                (Ok(_), Err(why)) if why.contains("does not have it") => refused += 1,
                _ => complaints.push(format!(
                    "v{version} {source:?}: OPA {theirs:?}, here {ours:?}"
                )),
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(
        agreed > 30 && refused > 10,
        "{agreed} agreed, {refused} refused"
    );
}

fn evaluate(folder: &Path, input: &Value) -> Result<Option<Value>, String> {
    let bundle = read_path(folder, &Limits::default()).map_err(|error| error.to_string())?;
    let modules = bundle.modules().iter();
    let modules = ModuleSet::new(modules.map(|file| {
        Module::new(
            file.path().clone(),
            file.source().clone(),
            file.rego_version(),
        )
    }));
    let engine = Regorus::new(Regorus::default_limits());
    let policy = engine
        .compile(&modules, &CompileOptions::default())
        .map_err(|error| error.to_string())?;
    let bound = policy
        .bind(bundle.data())
        .map_err(|error| error.to_string())?;
    let path = EntrypointPath::parse("a/p").unwrap();
    let entrypoint = bound.prepare(&path).map_err(|error| error.to_string())?;
    let mut ctx = opa_core::engine::EvalContext::new(opa_core::engine::Budget::default());
    match bound.eval(&entrypoint, &RegoValue::from(input.clone()), &mut ctx) {
        opa_core::engine::Outcome::Value(value) => Ok(Some(value.to_serde())),
        opa_core::engine::Outcome::Undefined => Ok(None),
        other => Err(format!("{other:?}")),
    }
}

/// Where OPA takes a version we may refuse it, never the other way round, and never another one.
#[test]
fn versions_of_rego_are_told_as_in_opa() {
    let Some(opa) = peers::opa() else { return };
    let versions = [
        "0",
        "1",
        "2",
        "3",
        "-1",
        "\"1\"",
        "1.5",
        "1.0",
        "1e0",
        "null",
        "true",
        "[]",
        "99999999999999999999",
    ];
    let mut complaints = Vec::new();
    for version in versions {
        for manifest in [
            format!("{{\"rego_version\": {version}}}"),
            format!("{{\"file_rego_versions\": {{\"/a.rego\": {version}}}}}"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            // Of each version something else.
            let source = "package a\n\np := \"v1\" { false }\np = \"v0\" { true }\n";
            for (source, what) in [(source, "v0"), ("package a\n\np if true\n", "v1")] {
                fs::write(folder.path().join("a.rego"), source).unwrap();
                fs::write(folder.path().join(".manifest"), &manifest).unwrap();
                let theirs = opa.try_eval(folder.path(), "data.a.p", &json!({}));
                let ours = evaluate(folder.path(), &json!({}));
                match (&theirs, &ours) {
                    (Ok(theirs), Ok(ours)) if theirs == ours => {}
                    (_, Err(_)) if theirs.is_err() || version == "null" => {}
                    _ => {
                        complaints.push(format!("{manifest} {what}: OPA {theirs:?}, here {ours:?}"))
                    }
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// What `opa build` makes for other machines than Rego's is refused, and says why.
#[test]
fn policies_that_are_not_in_rego_are_refused() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources");
    fs::create_dir(&sources).unwrap();
    fs::write(
        sources.join("a.rego"),
        "package a\n\nallow := input.x == 1\n",
    )
    .unwrap();
    for (target, why) in [
        (
            "wasm",
            "`wasm` resolvers, whose policies this version cannot evaluate",
        ),
        ("plan", "policies that are not in Rego are not supported"),
    ] {
        let archive = folder.path().join(format!("{target}.tar.gz"));
        opa.build_with(
            &sources,
            &archive,
            &["--target", target, "--entrypoint", "a/allow"],
        );
        match read(fs::File::open(&archive).unwrap(), &Limits::default()) {
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    BundleErrorKind::Unsupported,
                    "{target}: {error}"
                );
                assert!(error.to_string().contains(why), "{target}: {error}");
            }
            // A plan may stand beside the policy that it was made of.
            Ok(bundle) => assert!(target == "plan" && bundle.modules().len() == 1),
        }
    }
    let plan_alone = pack(&[("plan.json", "{}"), ("data.json", "{}")]);
    let proto = pack(&[(".manifest.pb", "\n\u{1}1"), ("a.rego", "package a")]);
    for (archive, why) in [
        (
            plan_alone,
            "policies that are not in Rego are not supported",
        ),
        (proto, "manifests in protobuf are not supported"),
    ] {
        let error = bundle::read_update(
            &archive,
            &Limits::default(),
            &bundle::Verification::default(),
        );
        let error = error.unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Unsupported);
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn pack(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}
