use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use opa_rego::RegoVersion;
use tar::Header;

use super::*;
use crate::bundle::BundleWriter;

/// Builds archives that no decent writer would.
#[derive(Default)]
struct Hostile(Vec<u8>);

impl Hostile {
    fn entry(self, name: &[u8], content: &[u8]) -> Self {
        self.typed(EntryType::Regular, name, content)
    }

    fn typed(self, kind: EntryType, name: &[u8], content: &[u8]) -> Self {
        self.lying(kind, name, content.len() as u64, content)
    }

    /// An entry whose header declares a size of its own.
    fn lying(mut self, kind: EntryType, name: &[u8], size: u64, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        for (to, from) in header.as_old_mut().name.iter_mut().zip(name) {
            *to = *from;
        }
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| length.to_string().len() + rest == *length);
            bytes.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.typed(EntryType::XHeader, b"x", &bytes)
    }

    fn tar(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn archive(self) -> Vec<u8> {
        gzip(&self.tar())
    }

    fn read(self) -> Result<Bundle, BundleError> {
        read(self.archive().as_slice(), &Limits::default())
    }

    fn fault(self) -> (BundleErrorKind, String) {
        fault(&self.archive(), &Limits::default())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn fault(archive: &[u8], limits: &Limits) -> (BundleErrorKind, String) {
    let error = read(archive, limits).unwrap_err();
    (error.kind(), error.to_string())
}

fn hostile() -> Hostile {
    Hostile::default()
}

#[test]
fn spellings_of_real_writers() {
    // As `opa build`, as `tar -czf x .`, as `tar -czf x *`.
    for prefix in ["/", "./", ""] {
        let name = |name: &str| format!("{prefix}{name}").into_bytes();
        let bundle = hostile()
            .typed(
                EntryType::XGlobalHeader,
                b"pax_global_header",
                b"19 comment=0123456\n",
            )
            .typed(EntryType::Directory, &name(""), b"")
            .typed(EntryType::Directory, &name("a/"), b"")
            .entry(&name("a/data.json"), b"\xef\xbb\xbf{\"x\": 1.50}")
            .entry(&name("a/data.yml"), b"y: [yes]\n")
            .entry(
                &name("a/p.rego"),
                b"\xef\xbb\xbfpackage a.p\n\nallow := true\n",
            )
            .entry(&name("a/p_test.rego"), b"package a.p_test")
            .entry(&name("README"), b"\xff")
            .entry(&name(".manifest"), br#"{"revision":"r","roots":["a"]}"#)
            .entry(&name(".signatures.json"), br#"{"signatures": ["x"]}"#)
            .read()
            .unwrap();
        assert_eq!(bundle.manifest().revision(), "r");
        assert_eq!(bundle.data().to_json(), r#"{"a":{"x":1.50,"y":["yes"]}}"#);
        assert!(bundle.is_signed());
        let paths: Vec<&str> = bundle
            .modules()
            .iter()
            .map(|module| &**module.path())
            .collect();
        assert_eq!(paths, ["/a/p.rego", "/a/p_test.rego"]);
        let module = &bundle.modules()[0];
        assert_eq!(&**module.source(), "package a.p\n\nallow := true\n");
        assert_eq!(module.package(), ["a", "p"]);
        assert_eq!(module.rego_version(), RegoVersion::V1);
    }
}

#[test]
fn rego_versions_of_single_files() {
    let manifest = br#"{"rego_version":0,"file_rego_versions":{"/new/*":1}}"#;
    let versions = |prefix: &str| {
        let bundle = hostile()
            .entry(b".manifest", manifest)
            .entry(format!("{prefix}new/a.rego").as_bytes(), b"package a")
            .entry(format!("{prefix}old/b.rego").as_bytes(), b"package b")
            .read()
            .unwrap();
        bundle
            .modules()
            .iter()
            .map(|module| module.rego_version())
            .collect::<Vec<_>>()
    };
    assert_eq!(versions("/"), [RegoVersion::V1, RegoVersion::V0]);
    // As in OPA, the pattern is for the name as the archive spells it.
    assert_eq!(versions("./"), [RegoVersion::V0, RegoVersion::V0]);
}

#[test]
fn the_manifest_may_come_last() {
    let wrong = hostile()
        .entry(b"a.rego", b"package b[\"c-d\"]")
        .entry(b".manifest", br#"{"roots":["a","b/c"]}"#);
    assert_eq!(
        wrong.fault(),
        (
            BundleErrorKind::Roots,
            "manifest roots [a b/c] do not permit 'package b[\"c-d\"]' in module '/a.rego'".into()
        )
    );
    let wrong = hostile()
        .entry(b"data.json", br#"{"a":{},"c":1}"#)
        .entry(b".manifest", br#"{"roots":["a","b/c"]}"#);
    assert_eq!(
        wrong.fault(),
        (
            BundleErrorKind::Roots,
            "manifest roots [a b/c] do not permit data at path '/c' \
             (hint: check bundle directory structure)"
                .into()
        )
    );
}

#[test]
fn hostile_names() {
    for name in [
        "../evil.rego",
        "a/../../evil.rego",
        "//evil.rego",
        "a//evil.rego",
        "a/./evil.rego",
        "..\\evil.rego",
        "C:/evil.rego",
        "\\\\host\\evil.rego",
        "../README",
    ] {
        let (kind, message) = hostile().entry(name.as_bytes(), b"package evil").fault();
        assert_eq!(kind, BundleErrorKind::Entry, "{name}");
        assert!(message.contains(&name.replace('\\', "\\\\")), "{message}");
    }
    let in_pax = hostile()
        .pax(&[("path", b"a/../b.rego")])
        .entry(b"ok.rego", b"package a");
    assert_eq!(in_pax.fault().0, BundleErrorKind::Entry);
    let in_pax = hostile()
        .pax(&[("path", b"a\0b.rego")])
        .entry(b"ok.rego", b"package a");
    assert_eq!(in_pax.fault().0, BundleErrorKind::Entry);
    let in_gnu = hostile()
        .typed(EntryType::GNULongName, b"././@LongLink", b"a/../b.rego\0")
        .entry(b"ok.rego", b"package a");
    assert_eq!(in_gnu.fault().0, BundleErrorKind::Entry);
}

#[test]
fn duplicates() {
    let twice = hostile()
        .entry(b"a.rego", b"package a")
        .entry(b"/a.rego", b"package b");
    assert_eq!(
        twice.fault(),
        (
            BundleErrorKind::Entry,
            "bundle contains `/a.rego` twice".into()
        )
    );
    let manifests = hostile()
        .entry(b".manifest", b"{}")
        .entry(b"x/.manifest", b"{}");
    assert_eq!(
        manifests.fault(),
        (
            BundleErrorKind::Entry,
            "bundle contains multiple manifest files: \"/.manifest\" and \"/x/.manifest\"".into()
        )
    );
    let signatures = hostile()
        .entry(b".signatures.json", b"{}")
        .entry(b"x/.signatures.json", b"{}");
    assert!(
        signatures
            .fault()
            .1
            .starts_with("bundle contains multiple signatures files")
    );
    // What is not read may be there twice.
    assert!(
        hostile()
            .entry(b"README", b"")
            .entry(b"README", b"")
            .read()
            .is_ok()
    );
}

#[test]
fn links_and_devices() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::new(b'Z'),
    ] {
        let named = hostile().typed(kind, b"a/data.json", b"");
        assert_eq!(
            named.fault(),
            (
                BundleErrorKind::Entry,
                "bundle entry `a/data.json` refused: expected a regular file, no link and no device"
                    .into()
            )
        );
        let other = hostile()
            .typed(kind, b"..data", b"")
            .typed(kind, b"../x", b"");
        assert!(other.read().is_ok(), "{kind:?}");
    }
}

#[test]
fn what_is_not_supported_says_so() {
    let (kind, message) = hostile().entry(b"patch.json", b"{}").fault();
    assert_eq!(kind, BundleErrorKind::Unsupported);
    assert_eq!(
        message,
        "bundle has `/patch.json`, but delta bundles are not supported: expected a snapshot bundle"
    );
    for name in [
        &b"policy.wasm"[..],
        b"plan.json",
        b"/x/plan.pb",
        b".manifest.pb",
    ] {
        let alone = hostile().entry(name, b"\0asm").entry(b"data.json", b"{}");
        assert_eq!(alone.fault().0, BundleErrorKind::Unsupported);
    }
    // Beside policies in Rego, OPA itself makes nothing of them.
    let beside = hostile()
        .entry(b"policy.wasm", b"\0asm")
        .entry(b"plan.json", b"{}")
        .entry(b"a.rego", b"package a");
    assert_eq!(beside.read().unwrap().modules().len(), 1);
    let resolved = hostile()
        .entry(b"policy.wasm", b"\0asm")
        .entry(b"a.rego", b"package a")
        .entry(
            b".manifest",
            br#"{"wasm":[{"entrypoint":"a/b","module":"/policy.wasm"}]}"#,
        );
    assert_eq!(resolved.fault().0, BundleErrorKind::Unsupported);
}

#[test]
fn content_that_does_not_parse_names_its_file() {
    for (name, content, expected) in [
        (
            "a.rego",
            &b"package \xff"[..],
            "/a.rego: expected text in UTF-8",
        ),
        (
            "a.rego",
            b"# nothing\nallow := true",
            "/a.rego:2: rego_parse_error: package expected",
        ),
        (
            "data.json",
            b"{\"a\":",
            "bundle load failed on /data.json: ",
        ),
        ("data.json", b"{} {}", "bundle load failed on /data.json: "),
        ("data.json", b"", "bundle load failed on /data.json: "),
        ("data.json", b"\xff", "bundle load failed on /data.json: "),
        (
            "x/data.yaml",
            b"a: [",
            "bundle load failed on /x/data.yaml: yaml: line ",
        ),
        (
            "x/data.yaml",
            b"\xff",
            "bundle load failed on /x/data.yaml: ",
        ),
        (
            "data.json",
            b"[1]",
            "bundle load failed on /data.json: root value must be object",
        ),
        (".manifest", b"", "bundle load failed on manifest decode: "),
        (
            ".manifest",
            b"\xff",
            "bundle load failed on manifest decode: ",
        ),
    ] {
        let (_, message) = hostile().entry(name.as_bytes(), content).fault();
        assert!(message.starts_with(expected), "{message}");
    }
    let deep = format!("{{\"a\":{}}}", "[".repeat(1_000_000));
    assert_eq!(
        hostile().entry(b"data.json", deep.as_bytes()).fault().0,
        BundleErrorKind::Data
    );
}

#[test]
fn an_empty_data_file_places_nothing() {
    let bundle = hostile()
        .entry(b"data.yaml", b"# nothing yet\n")
        .entry(b"a/data.json", b"null")
        .read()
        .unwrap();
    assert_eq!(bundle.data().to_json(), "{}");
}

#[test]
fn long_names() {
    let name = format!("/{}/policy.rego", ["directory"; 100].join("/"));
    let gnu = hostile()
        .typed(
            EntryType::GNULongName,
            b"././@LongLink",
            format!("{name}\0").as_bytes(),
        )
        .typed(EntryType::GNULongLink, b"././@LongLink", b"ignored\0")
        .entry(b"short", b"package a");
    assert_eq!(&**gnu.read().unwrap().modules()[0].path(), name);
    let pax = hostile()
        .pax(&[
            ("mtime", b"1.5"),
            ("SCHILY.xattr.x", b"\n\0\n"),
            ("path", name.as_bytes()),
        ])
        .entry(b"short", b"package a");
    assert_eq!(&**pax.read().unwrap().modules()[0].path(), name);
    let both = hostile()
        .pax(&[("path", b"pax.rego")])
        .typed(EntryType::GNULongName, b"././@LongLink", b"gnu.rego\0")
        .entry(b"short", b"package a");
    assert_eq!(&**both.read().unwrap().modules()[0].path(), "/gnu.rego");
    // It counts for the next entry only.
    let next = hostile()
        .pax(&[("path", b"pax.rego")])
        .typed(EntryType::Directory, b"d/", b"")
        .entry(b"a.rego", b"package a");
    assert_eq!(&**next.read().unwrap().modules()[0].path(), "/a.rego");
}

#[test]
fn extended_headers_that_lie() {
    let huge = 1 << 40;
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let (error, message) = hostile().lying(kind, b"x", huge, b"").fault();
        assert_eq!(error, BundleErrorKind::Limit);
        assert!(
            message.contains("extended header of 1099511627776 bytes"),
            "{message}"
        );
    }
    for records in [&b"not pax"[..], b"99 path=a\n", b"10 path=a\n10 pa"] {
        let malformed = hostile()
            .typed(EntryType::XHeader, b"x", records)
            .entry(b"a.rego", b"");
        assert!(malformed.fault().1.contains("malformed extended header"));
    }
    let two_sizes = hostile()
        .pax(&[("size", b"3")])
        .entry(b"a.rego", b"package a");
    assert!(two_sizes.fault().1.contains("two different sizes"));
    let sparse = hostile()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"b.rego")])
        .entry(b"a.rego", b"package a");
    assert_eq!(sparse.fault().0, BundleErrorKind::Entry);
    let dangling = hostile()
        .entry(b"a.rego", b"package a")
        .pax(&[("path", b"b.rego")]);
    assert!(dangling.fault().1.contains("without an entry"));
}

#[test]
fn sizes_that_lie() {
    let limits = Limits::default().with_file_bytes(10);
    let archive = hostile().entry(b"/a.rego", b"package abc").archive();
    assert_eq!(
        fault(&archive, &limits),
        (
            BundleErrorKind::Limit,
            "bundle file /a.rego size (11 bytes) exceeds configured size_limit_bytes (10 bytes)"
                .into()
        )
    );
    let limits = Limits::default().with_file_bytes(11);
    assert!(read(archive.as_slice(), &limits).is_ok());
    // Declares more than there is, up to what no machine has.
    for size in [10_000, 1 << 30] {
        let lying = hostile().lying(EntryType::Regular, b"a.rego", size, b"package a");
        assert_eq!(lying.fault().0, BundleErrorKind::Archive);
    }
    for size in [1 << 31, u64::MAX / 2, u64::MAX] {
        let lying = hostile().lying(EntryType::Regular, b"a.rego", size, b"package a");
        assert!(matches!(
            lying.fault().0,
            BundleErrorKind::Limit | BundleErrorKind::Archive
        ));
        let skipped = hostile().lying(EntryType::Regular, b"README", size, b"x");
        assert!(matches!(
            skipped.fault().0,
            BundleErrorKind::Limit | BundleErrorKind::Archive
        ));
    }
    // Declares less: what follows is no header.
    let lying = hostile().lying(EntryType::Regular, b"a.rego", 9, &[b'x'; 2_000]);
    assert_eq!(lying.fault().0, BundleErrorKind::Archive);
}

#[test]
fn limits_of_the_whole() {
    let archive = || {
        hostile()
            .entry(b"README", &[b'x'; 5_000])
            .typed(EntryType::Directory, b"a/", b"")
            .entry(b"a/data.json", b"1")
            .archive()
    };
    let unpacked = 3 * 512 + 5_120 + 512 + 1_024;
    let limits = Limits::default().with_total_bytes(unpacked).with_entries(3);
    assert!(read(archive().as_slice(), &limits).is_ok());
    assert_eq!(
        fault(&archive(), &limits.with_total_bytes(unpacked - 1)),
        (
            BundleErrorKind::Limit,
            "bundle is larger than 8191 bytes uncompressed, the limit of all files together".into()
        )
    );
    assert_eq!(
        fault(&archive(), &limits.with_entries(2)),
        (
            BundleErrorKind::Limit,
            "bundle has more than 2 entries, the limit".into()
        )
    );
}

/// Counts what is read from it.
struct Counted<R>(R, Rc<Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

/// A gzip stream of some bytes and then a GiB of zeros; there is no need to hold it in memory.
fn bomb(head: &[u8]) -> impl Read {
    let mut compress = Compress::new(Compression::fast(), false);
    let mut block = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(64 << 10);
        compress
            .compress_vec(bytes, &mut out, FlushCompress::Full)
            .unwrap();
        out
    };
    let head = block(head);
    // After a full flush equal input compresses to equal bytes.
    let zeros: &'static [u8] = block(&vec![0; 1 << 20]).leak();
    let blocks = std::iter::repeat_n(zeros, 1_024);
    let body = blocks.fold(Box::new(io::empty()) as Box<dyn Read>, |body, zeros| {
        Box::new(body.chain(zeros))
    });
    let gzip_header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    io::Cursor::new(gzip_header)
        .chain(io::Cursor::new(head))
        .chain(body)
}

#[test]
fn gzip_bombs_are_left_as_soon_as_a_limit_is_passed() {
    let gib = 1 << 30;
    let header = |name: &[u8], size| hostile().lying(EntryType::Regular, name, size, b"").0;
    let limits = Limits::default()
        .with_file_bytes(1 << 20)
        .with_total_bytes(4 << 20);
    for (head, expected) in [
        // In a file, in a file that is skipped, after the end, and at the start.
        (
            header(b"a/data.json", gib),
            "exceeds configured size_limit_bytes",
        ),
        (header(b"README", gib), "limit of all files together"),
        (hostile().tar(), "limit of all files together"),
        (Vec::new(), "limit of all files together"),
    ] {
        let consumed = Rc::new(Cell::new(0));
        let error = read(Counted(bomb(&head), Rc::clone(&consumed)), &limits).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Limit);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(consumed.get() < 256 << 10, "{} bytes read", consumed.get());
    }
}

#[test]
fn empty_members_without_end_are_left_too() {
    let members = gzip(b"").repeat(10_000);
    let limits = Limits::default().with_total_bytes(100_000);
    assert_eq!(fault(&members, &limits).0, BundleErrorKind::Limit);
}

#[test]
fn damaged_archives() {
    let archive = hostile().entry(b"a.rego", b"package a").archive();
    for end in 0..archive.len() {
        let error = read(&archive[..end], &Limits::default()).unwrap_err();
        assert_eq!(
            error.kind(),
            BundleErrorKind::Archive,
            "cut at {end}: {error}"
        );
    }
    let mut wrong_checksum = archive.clone();
    let at = wrong_checksum.len() - 8;
    wrong_checksum[at] ^= 1;
    for bytes in [
        b"not gzip at all, but long enough to be one".to_vec(),
        hostile().entry(b"a.rego", b"package a").tar(),
        gzip(b"gzip, but not tar"),
        gzip(&[b'x'; 2_048]),
        wrong_checksum,
        [&archive[..], b"trailing garbage"].concat(),
    ] {
        let error = read(bytes.as_slice(), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Archive, "{error}");
        assert!(
            error.to_string().starts_with("archive read failed"),
            "{error}"
        );
    }
}

#[test]
fn the_end_of_the_archive() {
    let tar = || hostile().entry(b"a.rego", b"package a").tar();
    // Members of gzip follow each other, tar fills up with zeros, some writers leave out the end.
    let (first, second) = (tar()[..700].to_vec(), tar()[700..].to_vec());
    let members = [gzip(&first), gzip(&second), gzip(&[0; 10_240])].concat();
    assert!(read(members.as_slice(), &Limits::default()).is_ok());
    let without_end = gzip(&tar()[..1_024]);
    assert_eq!(
        read(without_end.as_slice(), &Limits::default())
            .unwrap()
            .modules()
            .len(),
        1
    );
    // A second archive behind the end would be seen by some readers and not by others.
    let concatenated = gzip(&[tar(), tar()].concat());
    let (kind, message) = fault(&concatenated, &Limits::default());
    assert_eq!(kind, BundleErrorKind::Archive);
    assert!(
        message.contains("content after the end of the archive"),
        "{message}"
    );
}

#[test]
fn errors_of_the_source_are_not_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "reset by peer",
            ))
        }
    }
    let archive = hostile().entry(b"a.rego", b"package a").archive();
    for length in [0, 5, archive.len() / 2] {
        let error = read(archive[..length].chain(Failing), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Io);
        assert_eq!(error.to_string(), "bundle read failed: reset by peer");
    }
}

/// The small, fast and well mixed generator "splitmix64".
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

#[test]
fn mutated_bundles_never_panic_and_stay_in_their_bounds() {
    let writer = BundleWriter::new()
        .roots(["a", "b"])
        .and_then(|writer| {
            writer.module(
                "a/p.rego",
                "package a[\"x\"]\nimport rego.v1\nallow := true\n",
            )
        })
        .and_then(|writer| writer.file("b/data.yaml", "x: &a [1, {y: 2}]\nz: *a\n<<: {k: 0x1F}\n"))
        .and_then(|writer| writer.file("b/c/data.json", r#"{"k":[1.5e3,"\u00e9",null]}"#))
        .and_then(|writer| writer.module(format!("b/{}/q.rego", "d".repeat(120)), "package b"))
        .unwrap();
    let archive = writer.to_vec().unwrap();
    let mut tar = Vec::new();
    MultiGzDecoder::new(archive.as_slice())
        .read_to_end(&mut tar)
        .unwrap();
    let limits = Limits::default()
        .with_file_bytes(1 << 20)
        .with_total_bytes(1 << 20);
    let mut random = Random(42);
    let mut accepted = 0;
    for round in 0..2_000 {
        // Half of the rounds damage what is inside, where the checksum of gzip does not protect.
        let inside = round % 2 == 0;
        let mut bytes = if inside { tar.clone() } else { archive.clone() };
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let from = random.below(bytes.len());
                    let length = random.below(512).min(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + length, at);
                }
            }
        }
        if inside {
            repair_checksums(&mut bytes);
            bytes = gzip(&bytes);
        }
        accepted += usize::from(read(bytes.as_slice(), &limits).is_ok());
    }
    assert!((1..2_000).contains(&accepted), "{accepted} accepted");
}

/// Makes headers valid again, so that damage gets past them to the content.
fn repair_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}
