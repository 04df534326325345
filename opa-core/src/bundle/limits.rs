//! How much a bundle may ask of this process.

/// Bounds on reading one bundle. Reading stops as soon as one is passed.
///
/// ```
/// use opa_core::bundle::Limits;
///
/// let small = Limits::default().with_file_bytes(1 << 20).with_total_bytes(8 << 20);
/// assert_eq!(small.file_bytes(), 1 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    file_bytes: u64,
    total_bytes: u64,
    entries: u64,
}

impl Limits {
    /// The default of [`file_bytes`](Self::file_bytes): 1 GiB, as OPA's `size_limit_bytes`.
    pub const DEFAULT_FILE_BYTES: u64 = 1 << 30;
    /// The default of [`total_bytes`](Self::total_bytes): 2 GiB. OPA has no such bound; the
    /// default leaves room for one file of the largest default size and as much beside it.
    pub const DEFAULT_TOTAL_BYTES: u64 = 2 << 30;
    /// The default of [`entries`](Self::entries): 100,000. OPA has no such bound.
    pub const DEFAULT_ENTRIES: u64 = 100_000;

    /// The largest uncompressed size of one file, in bytes (OPA's `size_limit_bytes`).
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The largest uncompressed size of the whole archive with its headers and the files that
    /// are skipped, in bytes. The compressed size may not pass it either.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The largest number of entries, those that are skipped included.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Sets [`file_bytes`](Self::file_bytes).
    #[must_use]
    pub fn with_file_bytes(self, file_bytes: u64) -> Self {
        Self { file_bytes, ..self }
    }

    /// Sets [`total_bytes`](Self::total_bytes).
    #[must_use]
    pub fn with_total_bytes(self, total_bytes: u64) -> Self {
        Self {
            total_bytes,
            ..self
        }
    }

    /// Sets [`entries`](Self::entries).
    #[must_use]
    pub fn with_entries(self, entries: u64) -> Self {
        Self { entries, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: Self::DEFAULT_FILE_BYTES,
            total_bytes: Self::DEFAULT_TOTAL_BYTES,
            entries: Self::DEFAULT_ENTRIES,
        }
    }
}
