//! Which partition a key belongs to.

/// The partition of `key` among so many, as Kafka's own producers choose it: of equal keys the
/// order is kept, whoever sends them.
pub(super) fn partition(key: &[u8], partitions: usize) -> usize {
    let hash = murmur2(key) & 0x7fff_ffff;
    usize::try_from(hash).unwrap_or_default() % partitions.max(1)
}

/// MurmurHash2 with 32 bits and Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    #[expect(clippy::cast_possible_truncation, reason = "the hash's own definition")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev();
        hash ^= tail.fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own tests of `Utils.murmur2`.
    #[test]
    fn hashes_are_kafkas() {
        for (text, wanted) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), wanted, "{text}");
        }
    }

    #[test]
    fn a_partition_is_one_that_is_there() {
        for partitions in [1, 3, 12] {
            let of = |app: &str| partition(app.as_bytes(), partitions);
            assert!(["shop", "a", ""].map(of).iter().all(|it| *it < partitions));
        }
        assert_eq!(partition(b"shop", 0), 0);
    }
}
