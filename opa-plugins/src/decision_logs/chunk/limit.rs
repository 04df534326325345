//! How much text goes into a chunk.

/// A limit of uncompressed bytes that is learned from the chunks that were made.
///
/// OPA doubles and halves its limit, and so makes chunks that are too large again and again. What
/// a chunk's text was compressed to tells where the limit should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdaptiveLimit {
    /// The bound of the compressed size.
    bound: usize,
    limit: usize,
    /// Texts wait uncompressed: unlike in OPA the limit has a cap.
    cap: usize,
}

/// The share of the bound above which a chunk is full enough, as in OPA.
const THRESHOLD: f64 = 0.9;
/// The share of the bound that is aimed at.
const TARGET: f64 = 0.94;
/// JSON of events seldom compresses better than that.
const CAP_RATIO: usize = 16;
/// No chunk's text is larger, whatever the bound; an event that is goes alone.
const CAP: usize = 16 * 1024 * 1024;

impl AdaptiveLimit {
    /// Starts at the bound, as in OPA.
    pub(super) fn new(bound: usize) -> Self {
        let cap = bound.saturating_mul(CAP_RATIO).min(CAP);
        Self {
            bound,
            limit: bound.min(cap),
            cap,
        }
    }

    pub(super) fn get(&self) -> usize {
        self.limit
    }

    /// Whether a chunk leaves more room than it should.
    pub(super) fn is_underused(&self, compressed: usize) -> bool {
        as_f64(compressed) < as_f64(self.bound) * THRESHOLD
    }

    /// A text had this size and was compressed to that one.
    pub(super) fn learn(&mut self, text: usize, compressed: usize) {
        let ratio = as_f64(text) / as_f64(compressed.max(1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and the whole part is enough"
        )]
        let limit = (as_f64(self.bound) * TARGET * ratio) as usize;
        // What doesn't compress at all becomes larger by little.
        self.limit = limit.clamp((self.bound / 2).min(self.cap), self.cap);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn as_f64(size: usize) -> f64 {
    size as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_learned_from_what_texts_became() {
        let mut limit = AdaptiveLimit::new(1_000);
        assert_eq!(limit.get(), 1_000);
        for (text, compressed, learned) in [
            (1_000, 250, 3_760),
            (100, 50, 1_880),
            (100, 100, 940),
            (100, 1_000, 500),
            (1_000_000, 1_000, 16_000),
            (0, 0, 500),
        ] {
            limit.learn(text, compressed);
            assert_eq!(limit.get(), learned, "{text} to {compressed}");
        }
    }

    #[test]
    fn ninety_percent_are_full_enough() {
        let limit = AdaptiveLimit::new(100);
        assert!(limit.is_underused(89));
        assert!(!limit.is_underused(90));
    }
}
