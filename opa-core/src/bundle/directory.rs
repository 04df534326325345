//! Reads bundles from local directories and tarball files.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf, Prefix};

use super::archive::read;
use super::assemble::Assembler;
use super::error::{BundleError, BundleErrorKind};
use super::path::{EntryPath, FileKind};
use super::refusals::{file_too_large, refused, too_many_entries, total_too_large};
use super::{Bundle, Limits};

/// Reads and checks a bundle from a local directory, or from a tarball if `path` is a file.
///
/// The same rules and limits hold for both. Symbolic links inside of a directory are not
/// followed: one that has the name of a policy or data file is an error, others are passed over.
/// `path` itself may be a link. This call blocks.
///
/// # Errors
///
/// As [`read`]; also if `path` is not local (a UNC path), or is neither a directory nor a file.
pub fn read_path(path: impl AsRef<Path>, limits: &Limits) -> Result<Bundle, BundleError> {
    let path = path.as_ref();
    let metadata = local(path)?;
    if metadata.is_dir() {
        let mut assembler = Assembler::new();
        for_each_file(path, limits, |path, content| {
            if assembler.announce(&path)? {
                assembler.add_whole(path, &content()?)?;
            }
            Ok(())
        })?;
        return assembler.finish();
    }
    if !metadata.is_file() {
        return Err(BundleError::new(
            BundleErrorKind::Io,
            format!("`{}` is neither a directory nor a file", path.display()),
        ));
    }
    let file = File::open(path).map_err(|error| failed(path, error))?;
    read(file, limits)
}

/// Walks over the regular files of a directory, always in the same order.
pub(super) fn for_each_file(
    root: &Path,
    limits: &Limits,
    mut visit: impl FnMut(
        EntryPath,
        &mut dyn FnMut() -> Result<Vec<u8>, BundleError>,
    ) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    local(root)?;
    let mut walk = Walk {
        limits: *limits,
        entries: 0,
        bytes: 0,
        pending: vec![(root.to_owned(), Vec::new())],
    };
    while let Some((directory, name)) = walk.pending.pop() {
        // In reverse, since the last of the pending comes first.
        for (path, name, file_type) in walk.list(&directory, &name)?.into_iter().rev() {
            if file_type.is_dir() {
                walk.pending.push((path, name));
                continue;
            }
            let entry = EntryPath::new(&name);
            if file_type.is_file() {
                let entry = entry?;
                let raw = entry.raw().to_owned();
                visit(entry, &mut || walk.content(&path, &raw))?;
            } else if let Ok(entry) = entry
                && entry.kind() != FileKind::Other
            {
                return Err(refused(&entry, "a regular file, no link and no device"));
            }
        }
    }
    Ok(())
}

struct Walk {
    limits: Limits,
    entries: u64,
    bytes: u64,
    pending: Vec<(PathBuf, Vec<u8>)>,
}

impl Walk {
    /// The entries of a directory in order, each with its name in the bundle.
    fn list(
        &mut self,
        directory: &Path,
        name: &[u8],
    ) -> Result<Vec<(PathBuf, Vec<u8>, FileType)>, BundleError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
            let entry = entry.map_err(|error| failed(directory, error))?;
            self.entries += 1;
            if self.entries > self.limits.entries() {
                return Err(too_many_entries(&self.limits));
            }
            let file_type = entry
                .file_type()
                .map_err(|error| failed(&entry.path(), error))?;
            let name = [name, b"/", entry.file_name().as_encoded_bytes()].concat();
            entries.push((entry.path(), name, file_type));
        }
        entries.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        Ok(entries)
    }

    fn content(&mut self, path: &Path, name: &str) -> Result<Vec<u8>, BundleError> {
        let file = File::open(path).map_err(|error| failed(path, error))?;
        let size = file.metadata().map_err(|error| failed(path, error))?.len();
        if size > self.limits.file_bytes() {
            return Err(file_too_large(name, size, &self.limits));
        }
        let left = self.limits.total_bytes().saturating_sub(self.bytes);
        let most = left.min(self.limits.file_bytes());
        let mut content = Vec::new();
        let read = file
            .take(most.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| failed(path, error))? as u64;
        if read > left {
            return Err(total_too_large(&self.limits));
        }
        if read > most {
            return Err(file_too_large(name, read, &self.limits));
        }
        self.bytes = self.bytes.saturating_add(read);
        Ok(content)
    }
}

/// Refuses paths that lead to another machine, on which opening them could hand over credentials.
fn local(path: &Path) -> Result<fs::Metadata, BundleError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let remote_prefix = path.components().next().is_some_and(|first| match first {
        Component::Prefix(prefix) => {
            !matches!(prefix.kind(), Prefix::Disk(_) | Prefix::VerbatimDisk(_))
        }
        _ => false,
    });
    if remote_prefix || bytes.starts_with(b"\\\\") || bytes.starts_with(b"//") {
        return Err(BundleError::new(
            BundleErrorKind::Entry,
            format!("`{}` is not a local path", path.display()),
        ));
    }
    fs::metadata(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: io::Error) -> BundleError {
    BundleError::io(format_args!("cannot read `{}`", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    #[test]
    fn a_directory_is_a_bundle() {
        let directory = directory(&[
            (".manifest", r#"{"revision":"r","roots":["a","users"]}"#),
            ("a/policy.rego", "package a"),
            ("a/policy_test.rego", "package a_test"),
            ("users/data.yaml", "- x\n"),
            ("README.md", "hello"),
        ]);
        fs::remove_file(directory.path().join("a/policy_test.rego")).unwrap();
        let bundle = read_path(directory.path(), &Limits::default()).unwrap();
        assert_eq!(bundle.manifest().revision(), "r");
        assert_eq!(&**bundle.modules()[0].path(), "/a/policy.rego");
        assert_eq!(bundle.data().to_json(), r#"{"users":["x"]}"#);
    }

    #[test]
    fn a_file_is_a_tarball() {
        let directory = directory(&[("not-a-bundle", "x")]);
        let archive = super::super::BundleWriter::new()
            .module("a.rego", "package a")
            .and_then(|writer| writer.to_vec())
            .unwrap();
        let path = directory.path().join("bundle.tar.gz");
        fs::write(&path, archive).unwrap();
        assert_eq!(
            read_path(&path, &Limits::default())
                .unwrap()
                .modules()
                .len(),
            1
        );
        let error =
            read_path(directory.path().join("not-a-bundle"), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Archive);
        let error = read_path(directory.path().join("none"), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Io);
        assert!(error.to_string().contains("none`"));
    }

    #[test]
    fn limits_hold() {
        let directory = directory(&[("a/data.json", "[1,2,3]"), ("b/data.json", "[1,2,3]")]);
        let read = |limits: Limits| {
            read_path(directory.path(), &limits).map_err(|error| (error.kind(), error.to_string()))
        };
        assert!(
            read(
                Limits::default()
                    .with_file_bytes(7)
                    .with_total_bytes(14)
                    .with_entries(4)
            )
            .is_ok()
        );
        for limits in [
            Limits::default().with_file_bytes(6),
            Limits::default().with_total_bytes(13),
            Limits::default().with_entries(3),
        ] {
            assert_eq!(read(limits).unwrap_err().0, BundleErrorKind::Limit);
        }
        assert_eq!(
            read(Limits::default().with_file_bytes(6)).unwrap_err().1,
            "bundle file /a/data.json size (7 bytes) exceeds configured size_limit_bytes (6 bytes)"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_inside_are_not_followed() {
        use std::os::unix::fs::symlink;
        let outside = directory(&[("secret.rego", "package secret"), ("sub/data.json", "1")]);
        let inside = directory(&[("a.rego", "package a")]);
        symlink(outside.path().join("sub"), inside.path().join("sub")).unwrap();
        symlink(
            outside.path().join("secret.rego"),
            inside.path().join("readme"),
        )
        .unwrap();
        let bundle = read_path(inside.path(), &Limits::default()).unwrap();
        assert_eq!(bundle.modules().len(), 1);
        assert_eq!(bundle.data().to_json(), "{}");

        symlink(
            outside.path().join("secret.rego"),
            inside.path().join("b.rego"),
        )
        .unwrap();
        let error = read_path(inside.path(), &Limits::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bundle entry `/b.rego` refused: expected a regular file, no link and no device"
        );

        let link = outside.path().join("link");
        symlink(directory(&[]).path(), &link).unwrap();
        assert!(read_path(&link, &Limits::default()).is_err(), "dangling");
    }

    /// A UNC path in bundle arguments made OPA send credentials to another machine.
    #[test]
    fn cve_2024_8260_only_local_paths() {
        for path in [
            r"\\host\share",
            "//host/share",
            r"\\?\UNC\host\share",
            r"\\.\pipe\x",
        ] {
            let error = read_path(path, &Limits::default()).unwrap_err();
            assert_eq!(error.kind(), BundleErrorKind::Entry, "{path}");
            assert!(error.to_string().ends_with("is not a local path"));
        }
    }
}
