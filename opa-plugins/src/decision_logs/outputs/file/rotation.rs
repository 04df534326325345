//! Rotated files: when there is a new one, what they are called, and how long they stay.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

/// When a file is rotated, and what becomes of it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) max_bytes: u64,
    pub(super) max_age: Option<Duration>,
    /// How many rotated files stay.
    pub(super) max_files: usize,
    pub(super) compress: bool,
}

impl Rotation {
    /// Whether a file of that age is rotated before it is that large.
    pub(super) fn is_due(&self, size: u64, age: Duration) -> bool {
        size > self.max_bytes || self.max_age.is_some_and(|max| age >= max)
    }
}

const GZIP: &str = ".gz";
const UNFINISHED: &str = ".gz.tmp";

/// Gives the file the time as the end of its name. Names are never taken that exist.
pub(super) fn move_away(path: &Path, now: SystemTime) -> io::Result<()> {
    let time = jiff::Timestamp::try_from(now).unwrap_or_default();
    let time = time.strftime("%Y%m%dT%H%M%S%.9fZ").to_string();
    for number in 0_u32.. {
        // Sorts behind those of the same time before it.
        let rotated = with_end(path, &format!(".{time}-{number:010}"));
        if is_free(&rotated)? && is_free(&with_end(&rotated, GZIP))? {
            return fs::rename(path, rotated);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn is_free(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Removes the oldest rotated files, and compresses the others, if that is wanted.
pub(super) fn tidy(path: &Path, rotation: &Rotation) -> io::Result<()> {
    let mut rotated = rotated(path)?;
    let kept = rotated.len().saturating_sub(rotation.max_files);
    for old in rotated.drain(..kept) {
        remove(&old)?;
    }
    if rotation.compress {
        for file in rotated {
            if file.extension() != Some(OsStr::new("gz")) {
                compress(&file)?;
            }
        }
    }
    Ok(())
}

/// The rotated files, oldest first. Those that were compressed by half are gone.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(end) = end_of(&file_name, name) else {
            continue;
        };
        if !is_time(end.trim_end_matches(UNFINISHED).trim_end_matches(GZIP)) {
            continue;
        }
        if end.ends_with(UNFINISHED) {
            remove(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    // A crash came between the end of compressing and the removal of what was compressed.
    let all = found.clone();
    found.retain(|file| !all.contains(&with_end(file, GZIP)));
    for file in all {
        if !found.contains(&file) {
            remove(&file)?;
        }
    }
    Ok(found)
}

fn end_of<'a>(file_name: &'a OsStr, name: &OsStr) -> Option<&'a str> {
    file_name.to_str()?.strip_prefix(name.to_str()?)
}

/// Whether a name's end is one of ours: nobody else's files are touched.
fn is_time(end: &str) -> bool {
    let pattern = ".00000000T000000.000000000Z-0000000000";
    let fits = |(byte, wanted): (u8, u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == wanted,
    };
    end.len() == pattern.len() && end.bytes().zip(pattern.bytes()).all(fits)
}

fn compress(path: &Path) -> io::Result<()> {
    let unfinished = with_end(path, UNFINISHED);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut gzip = GzEncoder::new(options.open(&unfinished)?, Compression::default());
    let compressed = io::copy(&mut File::open(path)?, &mut gzip)
        .and_then(|_| gzip.finish())
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, with_end(path, GZIP)));
    if let Err(error) = compressed {
        // What it takes is needed, if the disk is full.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    remove(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn rotation(max_files: usize, compress: bool) -> Rotation {
        Rotation {
            max_bytes: 100,
            max_age: Some(Duration::from_secs(60)),
            max_files,
            compress,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_due_by_size_or_age() {
        let rotation = rotation(1, false);
        let second = Duration::from_secs(1);
        assert!(!rotation.is_due(100, 59 * second));
        assert!(rotation.is_due(101, second));
        assert!(rotation.is_due(1, 60 * second));
    }

    #[test]
    fn names_sort_by_time_and_none_is_taken_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_808_399);
        for _ in 0..2 {
            fs::write(&path, "").unwrap();
            move_away(&path, at).unwrap();
        }
        let time = "log.20270101T125959.000000000Z";
        let wanted = [format!("{time}-0000000000"), format!("{time}-0000000001")];
        assert_eq!(names(folder.path()), wanted);
        assert!(is_time(&wanted[0]["log".len()..]));
        assert!(move_away(&path, at).is_err(), "it is gone");
    }

    #[test]
    fn the_newest_stay_and_are_compressed_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for second in 1..=4 {
            fs::write(&path, format!("{second}\n")).unwrap();
            move_away(&path, at(second)).unwrap();
        }
        fs::write(folder.path().join("log.old"), "").unwrap();
        fs::write(folder.path().join("log2"), "").unwrap();
        let newest = |second| format!("log.19700101T00000{second}.000000000Z-0000000000");
        // What a crash left.
        fs::write(folder.path().join(newest(3) + UNFINISHED), "half").unwrap();
        tidy(&path, &rotation(2, true)).unwrap();
        let wanted = [
            newest(3) + GZIP,
            newest(4) + GZIP,
            "log.old".to_owned(),
            "log2".to_owned(),
        ];
        assert_eq!(names(folder.path()), wanted);
        let file = File::open(folder.path().join(newest(3) + GZIP)).unwrap();
        let mut text = String::new();
        let mut gzip = flate2::read::GzDecoder::new(file);
        gzip.read_to_string(&mut text).unwrap();
        assert_eq!(text, "3\n");

        // Once more changes nothing, but that what was compressed and is still there goes.
        fs::write(folder.path().join(newest(4)), "4\n").unwrap();
        tidy(&path, &rotation(2, true)).unwrap();
        assert_eq!(names(folder.path()), wanted);
    }
}
