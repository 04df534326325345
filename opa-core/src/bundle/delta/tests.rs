use opa_rego::Value;

use super::super::{BundleErrorKind, BundleWriter, Update, Verification, read_update};
use super::*;
use crate::config::SigningConfig;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

fn base(roots: &[&str], data: &str) -> Bundle {
    let writer = BundleWriter::new()
        .revision("1")
        .roots(roots.iter().copied());
    let writer = writer.unwrap().data("", &json(data)).unwrap();
    let metadata = json(r#"{"by":"base"}"#);
    writer.metadata(metadata).unwrap().bundle().unwrap()
}

fn delta(roots: &[&str], operations: &str) -> Result<Delta, BundleError> {
    let manifest = Manifest::default().with_revision("2");
    let manifest = manifest.with_roots(roots.iter().copied()).unwrap();
    Delta::read(manifest, format!(r#"{{"data":{operations}}}"#).as_bytes())
}

fn apply(data: &str, operations: &str) -> Result<String, String> {
    let base = base(&[""], data);
    let before = base.data().to_json();
    let patched = delta(&[""], operations)
        .and_then(|delta| delta.apply("b", Some(&base), &Limits::default()));
    assert_eq!(base.data().to_json(), before, "the old one never changes");
    patched
        .map(|bundle| bundle.data().to_json())
        .map_err(|error| error.to_string())
}

#[test]
fn operations() {
    for (data, operations, expected) in [
        (
            r#"{"a":1}"#,
            r#"[{"op":"upsert","path":"/b","value":[2]}]"#,
            r#"{"a":1,"b":[2]}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"upsert","path":"a/","value":2}]"#,
            r#"{"a":2}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"upsert","path":"b/c/d","value":2}]"#,
            r#"{"a":1,"b":{"c":{"d":2}}}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"upsert","path":"b"}]"#,
            r#"{"a":1,"b":null}"#,
        ),
        (
            r#"{"a":{"b":1,"c":2}}"#,
            r#"[{"op":"remove","path":"a/b"}]"#,
            r#"{"a":{"c":2}}"#,
        ),
        (
            r#"{"a":{"b":1}}"#,
            r#"[{"op":"remove","path":"a"},{"op":"upsert","path":"a/x","value":1}]"#,
            r#"{"a":{"x":1}}"#,
        ),
        (
            r#"{"a":{"b":1}}"#,
            r#"[{"op":"replace","path":"a/b","value":{"x":[]}}]"#,
            r#"{"a":{"b":{"x":[]}}}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"replace","path":"/","value":{"x":1}}]"#,
            r#"{"x":1}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"upsert","path":"a/-","value":3}]"#,
            r#"{"a":[1,2,3]}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"upsert","path":"a/2","value":3}]"#,
            r#"{"a":[1,2,3]}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"upsert","path":"a/0","value":3}]"#,
            r#"{"a":[3,1,2]}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"replace","path":"a/1","value":3}]"#,
            r#"{"a":[1,3]}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"remove","path":"a/0"}]"#,
            r#"{"a":[2]}"#,
        ),
        (
            r#"{"a":[{"b":1}]}"#,
            r#"[{"op":"upsert","path":"a/0/b","value":2}]"#,
            r#"{"a":[{"b":2}]}"#,
        ),
        (
            r#"{}"#,
            r#"[{"op":"upsert","path":"a~1b/c%2Fd","value":1}]"#,
            r#"{"a/b":{"c/d":1}}"#,
        ),
        (
            r#"{}"#,
            r#"[{"op":"upsert","path":"a","value":{"b":1}},{"op":"upsert","path":"a/c","value":2},{"op":"remove","path":"a/b"}]"#,
            r#"{"a":{"c":2}}"#,
        ),
        (
            r#"{"a":1.50}"#,
            r#"[{"op":"upsert","path":"b","value":1.0}]"#,
            r#"{"a":1.50,"b":1.0}"#,
        ),
    ] {
        assert_eq!(
            apply(data, operations).as_deref(),
            Ok(expected),
            "{operations}"
        );
    }
}

#[test]
fn what_does_not_fit() {
    for (data, operation, expected) in [
        (
            "{}",
            r#"{"op":"add","path":"a","value":1}"#,
            "bad patch operation: add",
        ),
        ("{}", r#"{"path":"a","value":1}"#, "bad patch operation: "),
        (
            "{}",
            r#"{"op":"upsert","path":"%zz","value":1}"#,
            "error parsing patch path",
        ),
        (
            "{}",
            r#"{"op":"upsert","path":"","value":{}}"#,
            "error parsing patch path",
        ),
        (
            "{}",
            r#"{"op":"remove","path":"/"}"#,
            "storage_invalid_patch_error: root cannot be removed",
        ),
        (
            "{}",
            r#"{"op":"replace","path":"/","value":[]}"#,
            "storage_invalid_patch_error: root must be object",
        ),
        (
            "{}",
            r#"{"op":"remove","path":"a"}"#,
            "storage_not_found_error: document does not exist",
        ),
        (
            "{}",
            r#"{"op":"replace","path":"a","value":1}"#,
            "storage_not_found_error: document does not exist",
        ),
        (
            "{}",
            r#"{"op":"remove","path":"a/b"}"#,
            "storage_not_found_error: document does not exist",
        ),
        (
            r#"{"a":1}"#,
            r#"{"op":"upsert","path":"a/b","value":1}"#,
            "storage_not_found_error: document does not exist",
        ),
        (
            r#"{"a":1}"#,
            r#"{"op":"upsert","path":"a/b/c","value":1}"#,
            "storage_write_conflict_error: /a",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"upsert","path":"a/7/c","value":1}"#,
            "storage_write_conflict_error: /a",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"upsert","path":"a/7","value":1}"#,
            "storage_not_found_error: /a/7: array index out of range",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"upsert","path":"a/x","value":1}"#,
            "storage_not_found_error: /a/x: array index must be integer",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"remove","path":"a/-"}"#,
            "storage_invalid_patch_error: /a/-: invalid patch path",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"replace","path":"a/1","value":1}"#,
            "storage_invalid_patch_error: /a/1: invalid patch path",
        ),
        (
            r#"{"a":[1]}"#,
            r#"{"op":"remove","path":"a/01"}"#,
            "storage_not_found_error: /a/01: array index must be integer",
        ),
        (
            "{}",
            r#"{"op":1}"#,
            "bundle load failed on patch decode: expected `op` to be a string",
        ),
        (
            "{}",
            r#"{"op":"upsert","OP":"remove","path":"a"}"#,
            "bundle load failed on patch decode: expected `op` once",
        ),
        (
            "{}",
            "1",
            "bundle load failed on patch decode: expected an object",
        ),
    ] {
        let error = apply(data, &format!("[{operation}]")).unwrap_err();
        assert!(error.starts_with(expected), "{operation}: {error}");
    }
    let second = apply(
        "{}",
        r#"[{"op":"upsert","path":"a","value":1},{"op":"remove","path":"/b"}]"#,
    );
    assert_eq!(
        second.unwrap_err(),
        "storage_not_found_error: document does not exist (patch operation 2: remove `/b`)"
    );
}

#[test]
fn an_empty_patch_changes_the_revision_alone() {
    let base = base(&["a"], r#"{"a":1}"#);
    for operations in ["[]", "null"] {
        let delta = delta(&["a"], operations).unwrap();
        let patched = delta.apply("b", Some(&base), &Limits::default()).unwrap();
        assert_eq!(patched.manifest().revision(), "2");
        assert_eq!(patched.manifest().metadata(), base.manifest().metadata());
        assert_eq!(patched.data_digest(), base.data_digest());
        assert_eq!(patched.data().to_json(), r#"{"a":1}"#);
    }
}

#[test]
fn the_manifest_is_the_deltas_and_equal_changes_have_equal_names() {
    let base = base(&[""], r#"{"a":1}"#);
    let patched = |operations| {
        let delta = delta(&[""], operations).unwrap();
        delta.apply("b", Some(&base), &Limits::default()).unwrap()
    };
    let once = patched(r#"[{"op":"upsert","path":"a","value":2}]"#);
    let again = patched(r#"[{"op":"upsert","path":"a","value":2}]"#);
    let other = patched(r#"[{"op":"upsert","path":"a","value":3}]"#);
    assert_eq!(once.manifest().metadata(), None);
    assert_eq!(once.data_digest(), again.data_digest());
    assert_ne!(once.data_digest(), other.data_digest());
    assert_ne!(once.data_digest(), base.data_digest());
}

#[test]
fn roots_bound_what_changes() {
    for path in ["b", "", "ab", "%61b/x"] {
        let operations = format!(r#"[{{"op":"upsert","path":"{path}","value":1}}]"#);
        let error = delta(&["a/b", "ab/c"], &operations).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Roots, "{path}");
        assert_eq!(
            error.to_string(),
            format!("manifest roots [a/b ab/c] do not permit data patch at path '{path}'")
        );
    }
    // A root whose name is the escaped name of another bundle's.
    let error = delta(&["%61"], r#"[{"op":"upsert","path":"%61/x","value":1}]"#).unwrap_err();
    assert_eq!(error.kind(), BundleErrorKind::Roots);

    let base = base(&["a", "b"], r#"{"a":1}"#);
    let other = delta(&["a"], r#"[{"op":"remove","path":"a"}]"#).unwrap();
    assert_eq!(
        other
            .apply("authz", Some(&base), &Limits::default())
            .unwrap_err()
            .to_string(),
        "delta bundle 'authz' has wasm resolvers or manifest roots that are different from those \
         in the store"
    );
    let same = delta(&["b", "a"], r#"[{"op":"remove","path":"a"}]"#).unwrap();
    let patched = same
        .apply("authz", Some(&base), &Limits::default())
        .unwrap();
    assert_eq!(patched.data().to_json(), "{}");
}

#[test]
fn the_first_bundle_may_be_a_delta() {
    let delta = delta(&["a"], r#"[{"op":"upsert","path":"a/b","value":1}]"#).unwrap();
    let patched = delta.apply("b", None, &Limits::default()).unwrap();
    assert_eq!(patched.data().to_json(), r#"{"a":{"b":1}}"#);
    assert_eq!(patched.manifest().roots(), ["a"]);
}

#[test]
fn limits_hold_over_many_deltas() {
    let mut bundle = base(&[""], "{}");
    let limits = Limits::default().with_total_bytes(10_000);
    let text = "x".repeat(900);
    // What replaces the same value over and over stays small.
    for _ in 0..50 {
        let change = delta(
            &[""],
            &format!(r#"[{{"op":"upsert","path":"a","value":"{text}"}}]"#),
        );
        bundle = change.unwrap().apply("b", Some(&bundle), &limits).unwrap();
    }
    let grow = |number| {
        delta(
            &[""],
            &format!(r#"[{{"op":"upsert","path":"{number}","value":"{text}"}}]"#),
        )
        .unwrap()
    };
    let grown = (0..50).try_fold(bundle, |bundle, number| {
        grow(number).apply("b", Some(&bundle), &limits)
    });
    assert_eq!(grown.unwrap_err().kind(), BundleErrorKind::Limit);
}

#[test]
fn hostile_patches_are_cheap() {
    let limits = Limits::default();
    let deep = "a/".repeat(20_000);
    let nested = delta(
        &[""],
        &format!(r#"[{{"op":"upsert","path":"{deep}","value":1}}]"#),
    )
    .unwrap();
    let error = nested.apply("b", None, &limits).unwrap_err();
    assert!(
        error.to_string().starts_with("patch nests deeper"),
        "{error}"
    );

    let almost = "a/".repeat(9_999);
    let operations = format!(
        r#"[{{"op":"upsert","path":"{almost}","value":{{}}}},{{"op":"remove","path":"{almost}"}}]"#
    );
    let almost = std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            delta(&[""], &operations)
                .unwrap()
                .apply("b", None, &limits)
                .unwrap()
                .data()
                .depth()
        })
        .unwrap();
    assert_eq!(almost.join().unwrap(), 9_999);

    // Each operation moves the whole array.
    let long = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(200_000));
    let base = base(&[""], &long);
    let first: Vec<_> = (0..10_000)
        .map(|_| r#"{"op":"upsert","path":"a/0","value":0}"#)
        .collect();
    let error = delta(&[""], &format!("[{}]", first.join(","))).unwrap();
    let error = error.apply("b", Some(&base), &limits).unwrap_err();
    assert!(
        error.to_string().starts_with("patch moves too many items"),
        "{error}"
    );
}

#[test]
fn what_is_not_touched_is_shared() {
    let base = base(&[""], r#"{"a":{"big":["x"]},"b":{"c":1}}"#);
    let delta = delta(&[""], r#"[{"op":"upsert","path":"b/c","value":2}]"#).unwrap();
    let patched = delta.apply("b", Some(&base), &Limits::default()).unwrap();
    let text = |bundle: &Bundle| {
        bundle
            .data()
            .at(&["a", "big", "0"])
            .unwrap()
            .as_str()
            .unwrap()
            .as_ptr()
    };
    assert_eq!(text(&base), text(&patched));
}

/// An archive of any files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::default(),
    ));
    for (name, content) in files {
        super::super::writer::append(&mut tar, name.as_bytes(), content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn an_archive_is_a_delta_if_it_has_a_patch() {
    let read = |files: &[(&str, &str)]| {
        read_update(
            &archive(files),
            &Limits::default(),
            &Verification::default(),
        )
        .map(|update| matches!(update, Update::Delta(_)))
        .map_err(|error| error.to_string())
    };
    let patch = (
        "/patch.json",
        r#"{"data":[{"op":"upsert","path":"a","value":1}]}"#,
    );
    assert_eq!(read(&[patch]), Ok(true));
    assert_eq!(
        read(&[("/patch.json", "{}")]),
        Ok(true),
        "also an empty one"
    );
    assert_eq!(
        read(&[("/.manifest", "{}"), patch, ("README.md", "")]),
        Ok(true)
    );
    assert_eq!(read(&[patch, ("/.manifest", "{}")]), Ok(true));
    assert_eq!(read(&[("/data.json", "{}")]), Ok(false));
    for (name, content, found) in [
        ("/data.json", "{}", "data files"),
        ("/x/data.yml", "{}", "data files"),
        ("/a.rego", "package a", "policy files"),
        ("/policy.wasm", "", "wasm files"),
        ("/plan.json", "{}", "other files"),
        ("/.signatures.json", "{}", "signatures"),
    ] {
        let expected =
            format!("delta bundle expected to contain only patch file but {found} found: `{name}`");
        assert_eq!(read(&[patch, (name, content)]).unwrap_err(), expected);
        assert_eq!(
            read(&[(name, content), patch]).unwrap_err(),
            expected,
            "whichever comes first"
        );
    }
    let twice = read(&[patch, ("/x/patch.json", "{}")]).unwrap_err();
    assert_eq!(
        twice,
        "bundle contains multiple patch files: \"/patch.json\" and \"/x/patch.json\""
    );
    assert!(
        read(&[("/patch.json", "{}{}")])
            .unwrap_err()
            .contains("patch decode")
    );
    assert!(
        read(&[patch, ("/.manifest", r#"{"roots":["b"]}"#)])
            .unwrap_err()
            .contains("do not permit")
    );
}

#[test]
fn where_signatures_are_wanted_deltas_are_refused_unless_exempt() {
    let patch = archive(&[("/patch.json", "{}")]);
    let read = |verification: &Verification| {
        read_update(&patch, &Limits::default(), verification).map_err(|error| error.to_string())
    };
    let refused = "delta bundles do not support signature verification";
    let key = crate::config::KeyConfig::new(
        crate::config::Secret::new("s"),
        crate::config::KeyAlgorithm::HS256,
    );
    let keys = std::collections::BTreeMap::from([("k".to_owned(), key)]);
    let with = |signing| Verification::new(keys.clone(), signing);
    assert!(read(&with(None)).is_ok());
    assert_eq!(read(&with(None).require(true)).unwrap_err(), refused);
    assert_eq!(
        read(&with(Some(SigningConfig::default()))).unwrap_err(),
        refused
    );
    let exempt = SigningConfig {
        allow_unsigned_delta_bundles: true,
        ..SigningConfig::default()
    };
    assert!(read(&with(Some(exempt.clone()))).is_ok());
    assert_eq!(
        read(&with(Some(exempt)).require(true)).unwrap_err(),
        refused,
        "code has the last word"
    );
}

#[test]
fn a_delta_that_is_written_is_read() {
    let manifest = Manifest::default().with_roots(["a"]).unwrap();
    let patch = json(r#"{"data":[{"op":"remove","path":"a"}]}"#);
    let archive = delta_archive(&manifest, &patch).unwrap();
    let update = read_update(&archive, &Limits::default(), &Verification::default()).unwrap();
    assert!(matches!(update, Update::Delta(delta) if delta.manifest().roots() == ["a"]));
    let outside = json(r#"{"data":[{"op":"remove","path":"b"}]}"#);
    assert!(delta_archive(&manifest, &outside).is_err());
}
