#![cfg(unix)]

mod crash;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const MAX: u64 = 1 << 20;

fn place(root: &Path, app: Option<&str>, name: &str) -> Place {
    Place::new(root, app, name, "http://a.test\nbundles/x").unwrap()
}

fn loaded(place: &Place) -> Option<(Vec<u8>, Option<String>)> {
    let stored = place.load(MAX).unwrap()?;
    let etag = stored.etag.map(|etag| etag.as_ref().to_owned());
    Some((stored.archive, etag))
}

fn bytes(archive: &'static str) -> ArchiveBytes {
    ArchiveBytes::from_iter([archive.as_bytes()])
}

fn some(archive: &str, etag: Option<&str>) -> Option<(Vec<u8>, Option<String>)> {
    Some((archive.into(), etag.map(str::to_owned)))
}

fn load_error(place: &Place) -> String {
    place.load(MAX).err().expect("refused").to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_saved_is_loaded_and_lies_where_opa_looks() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/there");
    for (app, name, path) in [
        (Some("shop"), "authz", "shop/bundles/authz"),
        (None, "authz", "bundles/authz"),
        (None, "a/b", "bundles/a/b"),
    ] {
        let place = place(&root, app, name);
        assert_eq!(loaded(&place), None);
        place.save(&bytes("one"), Some("\"1\"")).unwrap();
        assert_eq!(loaded(&place), some("one", Some("\"1\"")));
        place.save(&bytes("two"), None).unwrap();
        assert_eq!(loaded(&place), some("two", None));
        let path = root.join(path);
        assert_eq!(fs::read(path.join("bundle.tar.gz")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "no leftovers");
    }
}

#[test]
fn only_the_owner_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    place(&root, Some("shop"), "authz")
        .save(&bytes("one"), Some("e"))
        .unwrap();
    for level in ["", "shop", "shop/bundles", "shop/bundles/authz"] {
        assert_eq!(mode(&root.join(level)), 0o700, "{level}");
    }
    for file in [save::ARCHIVE, save::ETAG] {
        assert_eq!(mode(&root.join("shop/bundles/authz").join(file)), 0o600);
    }
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for name in ["", ".", "..", "a/..", "/a", "a/", "a//b", "a\0"] {
        let error = Place::new(Path::new("/x"), None, name, "").unwrap_err();
        assert!(error.to_string().contains("makes no path"), "{error}");
    }
}

#[test]
fn an_etag_goes_only_with_its_bytes_and_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let here = place(root, None, "x");
    here.save(&bytes("one"), Some("e")).unwrap();
    let elsewhere = Place::new(root, None, "x", "http://b.test\nbundles/x").unwrap();
    assert_eq!(loaded(&elsewhere), some("one", None));
    // As OPA leaves it, which doesn't know of the etag.
    fs::write(root.join("bundles/x/bundle.tar.gz"), "two").unwrap();
    assert_eq!(loaded(&here), some("two", None));
    for text in ["", "{", "[]", "\u{0}"] {
        here.save(&bytes("one"), Some("e")).unwrap();
        fs::write(root.join("bundles/x").join(save::ETAG), text).unwrap();
        assert_eq!(loaded(&here), some("one", None), "{text:?}");
    }
}

#[test]
fn links_are_followed_neither_to_read_nor_to_write() {
    for level in ["shop", "shop/bundles", "shop/bundles/authz"] {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        place(&root, Some("shop"), "authz")
            .save(&bytes("one"), None)
            .unwrap();
        fs::rename(root.join(level), &other).unwrap();
        symlink(&other, root.join(level)).unwrap();
        let place = place(&root, Some("shop"), "authz");
        let error = load_error(&place);
        assert!(error.contains("symbolic link"), "{level}: {error}");
        let error = place.save(&bytes("two"), None).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{level}: {error}");
    }
    for file in [save::ARCHIVE, save::ETAG] {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        let place = place(&root, None, "x");
        place.save(&bytes("one"), None).unwrap();
        fs::write(&other, "secret").unwrap();
        let link = root.join("bundles/x").join(file);
        fs::remove_file(&link).unwrap();
        symlink(&other, &link).unwrap();
        let error = load_error(&place);
        assert!(error.contains("symbolic link"), "{file}: {error}");
        let error = place.save(&bytes("two"), None).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{file}: {error}");
        assert_eq!(fs::read(&other).unwrap(), b"secret");
        assert!(link.is_symlink());
    }
}

#[test]
fn the_directory_itself_may_be_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    symlink(folder.path(), &root).unwrap();
    let place = place(&root, None, "x");
    place.save(&bytes("one"), None).unwrap();
    assert_eq!(loaded(&place), some("one", None));
}

#[test]
fn what_is_no_file_or_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path(), None, "x");
    place.save(&bytes("four"), None).unwrap();
    assert_eq!(place.load(4).unwrap().unwrap().archive, b"four");
    let error = place.load(3).err().unwrap().to_string();
    assert_eq!(error, "bundle.tar.gz: the file is larger than 3 bytes");

    let archive = folder.path().join("bundles/x/bundle.tar.gz");
    fs::remove_file(&archive).unwrap();
    // A pipe that nobody writes to: it must not be waited for.
    let status = std::process::Command::new("mkfifo").arg(&archive).status();
    assert!(status.unwrap().success());
    assert!(load_error(&place).contains("no regular file"));
    fs::remove_file(&archive).unwrap();
    fs::create_dir(&archive).unwrap();
    assert!(load_error(&place).contains("no regular file"));
    assert!(place.save(&bytes("five"), None).is_err());

    fs::write(folder.path().join("file"), "").unwrap();
    let place = super::tests::place(&folder.path().join("file"), None, "x");
    assert!(place.load(MAX).is_err() && place.save(&bytes("x"), None).is_err());
}

#[test]
fn leftovers_of_writers_that_ended_early_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path(), None, "x");
    place.save(&bytes("one"), None).unwrap();
    let path = folder.path().join("bundles/x");
    for name in [".bundle.tar.gz.123.tmp", ".bundle.etag.json.0a.tmp"] {
        fs::write(path.join(name), "half").unwrap();
    }
    fs::write(path.join("mine"), "").unwrap();
    assert_eq!(loaded(&place), some("one", None));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
}
