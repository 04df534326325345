/// What happened so far, under the names of OPA's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkCounters {
    /// `decision_logs_encoding_failure`: events dropped because even alone they are too large.
    pub encoding_failure: u64,
    /// `decision_logs_nd_builtin_cache_dropped`: events that lost it to fit.
    pub nd_builtin_cache_dropped: u64,
    /// `enc_log_exceeded_upload_size_limit_bytes`: events that as they came were too large.
    pub exceeded_upload_size_limit: u64,
    /// `enc_uncompressed_limit_scale_up`: chunks under 90% of the bound.
    pub scale_up: u64,
    /// `enc_uncompressed_limit_scale_down`: chunks to be that exceeded the bound.
    pub scale_down: u64,
    /// `enc_uncompressed_limit_stable`: chunks that were full enough.
    pub stable: u64,
    /// `decision_logs_chunks_uploaded`: chunks that a service took.
    pub uploaded: u64,
    /// `decision_logs_chunks_upload_failed`: how often a service did not take one.
    pub upload_failed: u64,
}

impl ChunkCounters {
    /// Adds what happened elsewhere.
    pub(in super::super) fn add(&mut self, other: &Self) {
        self.encoding_failure += other.encoding_failure;
        self.nd_builtin_cache_dropped += other.nd_builtin_cache_dropped;
        self.exceeded_upload_size_limit += other.exceeded_upload_size_limit;
        self.scale_up += other.scale_up;
        self.scale_down += other.scale_down;
        self.stable += other.stable;
        self.uploaded += other.uploaded;
        self.upload_failed += other.upload_failed;
    }

    /// The counters with OPA's names, the deprecated ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("decision_logs_chunks_upload_failed", self.upload_failed),
            ("decision_logs_chunks_uploaded", self.uploaded),
            ("decision_logs_encoding_failure", self.encoding_failure),
            (
                "decision_logs_nd_builtin_cache_dropped",
                self.nd_builtin_cache_dropped,
            ),
            (
                "enc_log_exceeded_upload_size_limit_bytes",
                self.exceeded_upload_size_limit,
            ),
            ("enc_soft_limit_scale_down", self.scale_down),
            ("enc_soft_limit_scale_up", self.scale_up),
            ("enc_soft_limit_stable", self.stable),
            ("enc_uncompressed_limit_scale_down", self.scale_down),
            ("enc_uncompressed_limit_scale_up", self.scale_up),
            ("enc_uncompressed_limit_stable", self.stable),
        ]
        .into_iter()
    }
}
