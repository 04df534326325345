use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use opa_rego::RegoVersion;

use super::super::{
    ArchiveBytes, Bundle, BundleErrorKind, BundleWriter, Limits, Union, Update, Verification,
    read_shared,
};
use super::*;

const DATA: &str = r#"{"users":{"ann":{"roles":["a","b"]}}}"#;

fn data(json: &str) -> Value {
    Value::from_json(json.as_bytes()).unwrap()
}

fn writer(revision: &str) -> BundleWriter {
    BundleWriter::new().revision(revision)
}

fn try_load(writer: &BundleWriter, limits: &Limits, store: &Store) -> Result<Bundle, BundleError> {
    let archive = ArchiveBytes::from(writer.to_vec().unwrap());
    read_shared(&archive, limits, &Verification::default(), store).map(Update::into_bundle)
}

fn load(writer: &BundleWriter, store: &Store) -> Bundle {
    try_load(writer, &Limits::default(), store).unwrap()
}

#[test]
fn what_different_bundles_have_in_common_is_held_once_and_forgotten_when_unused() {
    let store = Store::default();
    let common = |revision: &str| {
        let writer = writer(revision).data("x", &data(DATA)).unwrap();
        writer.module("a.rego", "package a\np := 1").unwrap()
    };
    let one = load(&common("1"), &store);
    let two = load(&common("2").module("b.rego", "package b").unwrap(), &store);
    assert_ne!(one.revision(), two.revision());
    assert!(Value::ptr_eq(one.data(), two.data()));
    assert!(Arc::ptr_eq(&one.modules()[0].text, &two.modules()[0].text));
    assert_eq!(store.used(), (2, 1, 1));

    // Another tree of the same file.
    let three = common("3").data("y", &data("[1]")).unwrap();
    let three = load(&three, &store);
    assert!(Value::ptr_eq(
        one.data().get("x").unwrap(),
        three.data().get("x").unwrap()
    ));
    assert_eq!(store.used(), (2, 2, 2));

    drop((two, three));
    assert_eq!(store.used(), (1, 1, 1));
    drop(one);
    assert_eq!(store.used(), (0, 0, 0));
    assert_eq!(
        load(&common("4"), &store).data().to_json(),
        format!(r#"{{"x":{DATA}}}"#)
    );
}

#[test]
fn equal_unions_have_one_tree() {
    let store = Store::default();
    let bundles = |revision: &str| {
        let part = |name: &str| {
            let writer = writer(revision).roots([format!("x/{name}")]).unwrap();
            Arc::new(load(
                &writer.data(format!("x/{name}"), &data(DATA)).unwrap(),
                &store,
            ))
        };
        BTreeMap::from([(Arc::from("a"), part("a")), (Arc::from("b"), part("b"))])
    };
    let (one, two) = (bundles("1"), bundles("2"));
    let (one, two) = (
        Union::shared(&one, &store).unwrap(),
        Union::shared(&two, &store).unwrap(),
    );
    assert!(Value::ptr_eq(one.data(), two.data()));
    assert!(Value::ptr_eq(
        one.data().at(&["x", "a"]).unwrap(),
        one.data().at(&["x", "b"]).unwrap()
    ));
}

#[test]
fn a_file_that_somebody_holds_is_still_too_large_for_another() {
    let store = Store::default();
    let bundle = writer("1").data("", &data(DATA)).unwrap();
    let held = load(&bundle, &store);
    let small = Limits::default().with_file_bytes(DATA.len() as u64 - 1);
    let error = try_load(&bundle, &small, &store).unwrap_err();
    assert_eq!(error.kind(), BundleErrorKind::Limit);
    let small = Limits::default().with_total_bytes(1_000);
    let error = try_load(&bundle, &small, &store).unwrap_err();
    assert_eq!(error.kind(), BundleErrorKind::Limit);
    assert_eq!(store.used().1, 1, "{}", held.data());
}

#[test]
fn the_same_bytes_are_read_again_for_another_format() {
    let file = |name: &str| {
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        let content = br#"{"a": {}}"#;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive
            .append_data(&mut header, name, &content[..])
            .unwrap();
        let archive = archive.into_inner().unwrap().finish().unwrap();
        ArchiveBytes::from(archive)
    };
    let store = Store::default();
    let read = |name| {
        let archive = file(name);
        read_shared(
            &archive,
            &Limits::default(),
            &Verification::default(),
            &store,
        )
    };
    let json = read("data.json").unwrap().into_bundle();
    let yaml = read("data.yaml").unwrap().into_bundle();
    assert_eq!(json.data(), yaml.data());
    assert!(!Value::ptr_eq(json.data(), yaml.data()));
    assert_eq!(store.used(), (0, 2, 2));
}

#[test]
fn a_module_has_the_version_of_its_own_bundle() {
    let store = Store::default();
    let bundle = |version| {
        let writer = BundleWriter::new().rego_version(version);
        load(&writer.module("a.rego", "package a").unwrap(), &store)
    };
    let (old, new) = (bundle(RegoVersion::V0), bundle(RegoVersion::V1));
    let (old, new) = (&old.modules()[0], &new.modules()[0]);
    assert!(Arc::ptr_eq(&old.text, &new.text));
    assert_eq!(
        (old.rego_version(), new.rego_version()),
        (RegoVersion::V0, RegoVersion::V1)
    );
}

#[test]
fn a_module_outside_of_the_roots_is_refused_whoever_holds_it() {
    let store = Store::default();
    let held = load(&writer("1").module("a.rego", "package a").unwrap(), &store);
    // The writer refuses it too, so the roots come later.
    let other = writer("2").module("a.rego", "package a").unwrap();
    let refused = other.roots(["b"]).unwrap().to_vec();
    assert_eq!(refused.unwrap_err().kind(), BundleErrorKind::Roots);
    drop(held);
}

#[test]
fn racing_equal_work_is_done_once() {
    const THREADS: usize = 8;
    let slots = Slots::<u8, Arc<usize>>::default();
    let (about_to, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(THREADS);
    let results: Vec<Arc<usize>> = thread::scope(|scope| {
        let work = || {
            start.wait();
            about_to.fetch_add(1, Ordering::SeqCst);
            let make = || {
                while about_to.load(Ordering::SeqCst) < THREADS {
                    thread::yield_now();
                }
                Ok::<_, Infallible>(Arc::new(made.fetch_add(1, Ordering::SeqCst)))
            };
            let Ok(result) = slots.get_or_make(1, make);
            result
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert!(
        results
            .iter()
            .all(|result| Arc::ptr_eq(result, &results[0]))
    );
}

#[test]
fn other_work_does_not_wait() {
    let slots = Slots::<u8, Arc<u8>>::default();
    let (reached, wait) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let slots = &slots;
        scope.spawn(move || {
            slots.get_or_make(1, || {
                reached.send(()).unwrap();
                ended.recv().map(|()| Arc::new(1))
            })
        });
        wait.recv().unwrap();
        assert_eq!(
            slots.get_or_make(2, || Ok::<_, Infallible>(Arc::new(2))),
            Ok(Arc::new(2))
        );
        end.send(()).unwrap();
    });
}

#[test]
fn who_fails_leaves_the_work_to_the_next() {
    let slots = Slots::<u8, Arc<u8>>::default();
    assert_eq!(slots.get_or_make(1, || Err("broken")), Err("broken"));
    let panics = AssertUnwindSafe(|| slots.get_or_make(1, || -> Result<_, ()> { panic!("bad") }));
    assert!(catch_unwind(panics).is_err());
    assert_eq!(
        slots.get_or_make(1, || Ok::<_, ()>(Arc::new(1))),
        Ok(Arc::new(1))
    );
}

#[test]
fn unused_slots_go() {
    let slots = Slots::<usize, Arc<usize>>::default();
    let held: Vec<_> = (0..10_000)
        .map(|key| {
            slots
                .get_or_make(key, || Ok::<_, ()>(Arc::new(key)))
                .unwrap()
        })
        .filter(|key| **key % 100 == 0)
        .collect();
    assert_eq!(slots.used(), held.len());
    let slots = slots.0.lock().slots.len();
    assert!(slots < 3 * held.len(), "{slots} slots");
}
