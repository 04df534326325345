//! Extended headers of tar (POSIX.1-2001 "pax"): records `<length> <key>=<value>\n` that say more
//! about the next entry than its header can.

/// What the records say that concerns a reader of content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// The name of the entry.
    pub(super) path: Option<Vec<u8>>,
    /// Its size in bytes.
    pub(super) size: Option<u64>,
    /// Whether the content is stored with holes.
    pub(super) sparse: bool,
}

/// Reads all records. `None` means that they are malformed.
///
/// Values are binary and may hold line feeds, as macOS writes them for extended attributes.
pub(super) fn records(mut bytes: &[u8]) -> Option<Records> {
    let mut records = Records::default();
    while !bytes.is_empty() {
        let digits = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(bytes.get(..digits)?)
            .ok()?
            .parse()
            .ok()?;
        let record = bytes.get(digits + 1..length)?.strip_suffix(b"\n")?;
        bytes = bytes.get(length..)?;

        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        match key {
            // An empty value takes back what was said before.
            b"path" => records.path = (!value.is_empty()).then(|| value.to_vec()),
            b"size" if value.is_empty() => records.size = None,
            b"size" => records.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => records.sparse |= key.starts_with(b"GNU.sparse."),
        }
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> String {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| length.to_string().len() + rest == *length);
        format!("{} {key}={value}\n", length.unwrap())
    }

    #[test]
    fn well_formed() {
        let bytes = [
            record("mtime", "1.5"),
            record("SCHILY.xattr.com.apple.provenance", "\n9 path=x\n"),
            record("path", "a/b = c"),
            record("size", "42"),
        ]
        .concat();
        let read = records(bytes.as_bytes()).unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"a/b = c"[..]));
        assert_eq!(read.size, Some(42));
        assert!(!read.sparse);
        assert_eq!(records(b"").unwrap(), Records::default());
    }

    #[test]
    fn the_last_record_counts() {
        let twice = [record("path", "a"), record("path", "b")].concat();
        let read = records(twice.as_bytes()).unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"b"[..]));
        let taken_back = [record("path", "a"), record("path", "")].concat();
        assert_eq!(records(taken_back.as_bytes()).unwrap().path, None);
        let sparse = record("GNU.sparse.major", "1");
        assert!(records(sparse.as_bytes()).unwrap().sparse);
    }

    #[test]
    fn malformed() {
        for bytes in [
            &b"x path=a\n"[..],
            b"10",
            b"10 ",
            b"0 path=a\n",
            b"3 path=a\n",
            b"99 path=a\n",
            b"10 path=ab",
            b"9 path-a\n",
            b"11 size=-1\n",
            b"99999999999999999999 a=b\n",
            b"\xff a=b\n",
        ] {
            assert_eq!(records(bytes), None, "{bytes:?}");
        }
    }
}
