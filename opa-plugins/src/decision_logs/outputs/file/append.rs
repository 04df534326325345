//! Appends that are whole or not at all.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// What appends need of a file.
pub(super) trait Appendable {
    fn len(&mut self) -> io::Result<u64>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Writes at the end.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Appendable for File {
    fn len(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }
}

/// Appends, and takes back what was not written whole.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// What is behind this could not be taken back.
    whole: Option<u64>,
}

impl Appends {
    pub(super) fn append(&mut self, file: &mut impl Appendable, bytes: &[u8]) -> io::Result<()> {
        self.take_back(file)?;
        let before = file.len()?;
        let Err(error) = file.write_all(bytes) else {
            return Ok(());
        };
        self.whole = Some(before);
        // If that fails, too, it is tried again before anything else is written.
        let _ = self.take_back(file);
        Err(error)
    }

    fn take_back(&mut self, file: &mut impl Appendable) -> io::Result<()> {
        if let Some(whole) = self.whole {
            // Somebody may have truncated it since.
            if file.len()? > whole {
                file.set_len(whole)?;
            }
            self.whole = None;
        }
        Ok(())
    }
}

/// How far back a line's start is looked for at a time.
const STEP: u64 = 64 * 1024;

/// Removes what is behind the last line break: the part of a line that a crash left.
///
/// # Errors
/// When the file doesn't begin as one of JSON objects: it is somebody else's.
pub(super) fn repair(file: &mut File) -> io::Result<()> {
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok(());
    }
    let mut first = [0];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut first)?;
    if first != *b"{" {
        return Err(io::Error::other("it has something else than lines of JSON"));
    }
    let whole = end_of_last_line(file, len)?;
    if whole < len {
        file.set_len(whole)?;
    }
    Ok(())
}

fn end_of_last_line(file: &mut File, len: u64) -> io::Result<u64> {
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        truncates: bool,
    }

    impl Appendable for Disk {
        fn len(&mut self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn set_len(&mut self, len: u64) -> io::Result<()> {
            if !self.truncates {
                return Err(io::Error::other("no truncating"));
            }
            self.bytes.truncate(usize::try_from(len).unwrap());
            Ok(())
        }

        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            let room = bytes.len().min(self.room - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..room]);
            match room == bytes.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        }
    }

    #[test]
    fn what_is_not_written_whole_is_taken_back_at_once_or_before_the_next() {
        for truncates in [true, false] {
            let mut disk = Disk {
                bytes: b"{}\n".to_vec(),
                room: 5,
                truncates,
            };
            let mut appends = Appends::default();
            let error = appends.append(&mut disk, b"{\"a\":1}\n").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(disk.bytes == b"{}\n", truncates);
            disk.room = 100;
            if !truncates {
                let error = appends.append(&mut disk, b"{}\n").unwrap_err();
                assert_eq!(error.to_string(), "no truncating");
                disk.truncates = true;
            }
            appends.append(&mut disk, b"{\"b\":1}\n").unwrap();
            assert_eq!(disk.bytes, b"{}\n{\"b\":1}\n");
        }
    }

    #[test]
    fn a_file_that_was_truncated_meanwhile_is_left_so() {
        let mut disk = Disk {
            bytes: b"{}\n".to_vec(),
            room: 5,
            truncates: false,
        };
        let mut appends = Appends::default();
        appends.append(&mut disk, b"{\"a\":1}\n").unwrap_err();
        disk.bytes.clear();
        appends.append(&mut disk, b"{}\n").unwrap();
        assert_eq!(disk.bytes, b"{}\n");
    }

    #[test]
    fn the_part_of_a_line_is_removed() {
        let long = "x".repeat(200_000);
        for (text, wanted) in [
            (String::new(), ""),
            ("{}\n".to_owned(), "{}\n"),
            ("{}\n{\"a".to_owned(), "{}\n"),
            (format!("{{}}\n{{\"{long}"), "{}\n"),
            (format!("{{\"{long}"), ""),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            Write::write_all(&mut file, text.as_bytes()).unwrap();
            repair(&mut file).unwrap();
            let mut left = String::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut left).unwrap();
            assert_eq!(left, wanted);
        }
    }

    #[test]
    fn the_file_of_somebody_else_is_left_alone() {
        let mut file = tempfile::tempfile().unwrap();
        Write::write_all(&mut file, b"root:x:0").unwrap();
        assert!(repair(&mut file).is_err());
        assert_eq!(file.metadata().unwrap().len(), 8);
    }
}
