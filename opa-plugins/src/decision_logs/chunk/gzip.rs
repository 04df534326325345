//! One chunk as a gzip member (RFC 1952).

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Compresses chunks one after the other. Its memory, about 300 KiB, is used again for each: one
/// serves all apps of a thread.
#[derive(Debug)]
pub struct Compressor {
    compress: Compress,
}

/// How much room for output is added at a time.
const STEP: usize = 16 * 1024;

const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

impl Default for Compressor {
    /// Of level 1: a quarter of what level 6, OPA's, takes of the processor, for chunks that are a sixth
    /// larger.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Compressor {
    /// A compressor of a level from 1 (fast) to 9 (small); others are the nearest of these.
    #[must_use]
    pub fn new(level: u32) -> Self {
        let level = Compression::new(level.clamp(1, 9));
        Self {
            compress: Compress::new(level, false),
        }
    }

    /// The parts as one member, or `None` when it would have more than `limit` bytes.
    pub(super) fn gzip(&mut self, parts: &[&[u8]], limit: usize) -> Option<Vec<u8>> {
        self.compress.reset();
        let mut crc = Crc::new();
        let mut out = Vec::with_capacity(limit.min(STEP));
        out.extend_from_slice(&HEADER);
        let last = parts.len().checked_sub(1)?;
        for (number, part) in parts.iter().enumerate() {
            crc.update(part);
            let flush = if number == last {
                FlushCompress::Finish
            } else {
                FlushCompress::None
            };
            self.write(part, flush, &mut out, limit)?;
        }
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        // It may wait for long.
        out.shrink_to_fit();
        (out.len() <= limit).then_some(out)
    }

    fn write(
        &mut self,
        mut part: &[u8],
        flush: FlushCompress,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Option<()> {
        loop {
            if out.len() > limit {
                return None;
            }
            if out.len() == out.capacity() {
                out.reserve(STEP);
            }
            let before = self.compress.total_in();
            // There is no other error than one of a stream that is used wrongly.
            let status = self.compress.compress_vec(part, out, flush).ok()?;
            let read = usize::try_from(self.compress.total_in() - before).ok()?;
            part = part.get(read..)?;
            let finishing = matches!(flush, FlushCompress::Finish);
            match status {
                Status::StreamEnd => return Some(()),
                _ if part.is_empty() && !finishing => return Some(()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn inflated(gzip: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(gzip)
            .read_to_end(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn members_are_read_by_gunzip() {
        let mut compressor = Compressor::default();
        let long: Vec<u8> = (0..200_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        for parts in [
            &[&b"["[..], b"", b"]"][..],
            &[b"[", &long, b"]"],
            &[&long],
            &[b""],
        ] {
            let gzip = compressor.gzip(parts, usize::MAX).unwrap();
            assert_eq!(inflated(&gzip), parts.concat());
            assert_eq!(compressor.gzip(parts, gzip.len()), Some(gzip.clone()));
            assert_eq!(compressor.gzip(parts, gzip.len() - 1), None);
        }
    }
}
