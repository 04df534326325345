use super::*;
use std::io::Read;

/// A small generator (SplitMix64), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }

    /// Letters of a small or a large alphabet: compressible or not.
    fn text(&mut self, len: usize) -> String {
        let alphabet = [1, 2, 16, 64][self.below(4)];
        let letter = |n: usize| char::from(b'0' + u8::try_from(n).unwrap());
        (0..len)
            .map(|_| letter(self.below(alphabet)))
            .collect::<String>()
            .replace(['\\', '<'], "x")
    }
}

struct Made {
    json: Vec<u8>,
    cache: Option<Range<usize>>,
}

fn event(id: usize, padding: &str, cache: Option<&str>) -> Made {
    let mut json = format!(r#"{{"decision_id":"{id}","input":"{padding}""#);
    let start = json.len();
    if let Some(cache) = cache {
        json += &format!(r#","nd_builtin_cache":"{cache}""#);
    }
    let place = start..json.len();
    json.push('}');
    Made {
        json: json.into_bytes(),
        cache: cache.map(|_| place),
    }
}

impl Made {
    fn encoded(&self) -> EncodedEvent<'_> {
        EncodedEvent::new(&self.json).with_nd_builtin_cache(self.cache.clone())
    }
}

/// The ids of a chunk's events, in order, and whether each has its cache.
fn read(chunk: &Chunk) -> Vec<(usize, bool)> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&*chunk.body)
        .read_to_end(&mut text)
        .unwrap();
    let events = opa_core::Value::from_json(&text).unwrap();
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), chunk.events);
    let id = |event: &opa_core::Value| {
        event
            .get("decision_id")
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    events
        .iter()
        .map(|event| (id(event), event.get("nd_builtin_cache").is_some()))
        .collect()
}

fn encoded(limit: usize, events: &[Made]) -> (Vec<Chunk>, ChunkCounters) {
    let mut compressor = Compressor::default();
    let mut encoder = ChunkEncoder::new(limit);
    let mut chunks = Vec::new();
    for event in events {
        encoder.push(event.encoded(), &mut compressor, &mut chunks);
    }
    encoder.flush(&mut compressor, &mut chunks);
    assert_eq!((encoder.pending_bytes(), encoder.pending_events()), (0, 0));
    (chunks, encoder.counters())
}

#[test]
fn whatever_comes_no_chunk_is_too_large_and_no_event_is_lost() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let limit = [90, 200, 1_000, 5_000, 32_768][random.below(5)];
        let largest = [10, 300, 3_000][random.below(3)];
        let events: Vec<_> = (0..random.below(400))
            .map(|id| {
                let largest = if random.below(50) == 0 {
                    largest * 20
                } else {
                    largest
                };
                let len = random.below(largest);
                let padding = random.text(len);
                let len = random.below(largest);
                let cache = (random.below(3) == 0).then(|| random.text(len));
                event(id, &padding, cache.as_deref())
            })
            .collect();
        let (chunks, counters) = encoded(limit, &events);
        assert!(
            chunks.iter().all(|chunk| chunk.body.len() <= limit),
            "seed {seed}"
        );
        let delivered: Vec<_> = chunks.iter().flat_map(read).collect();
        let ids: Vec<_> = delivered.iter().map(|(id, _)| *id).collect();
        assert!(ids.is_sorted_by(|left, right| left < right), "seed {seed}");
        let lost = u64::try_from(events.len() - ids.len()).unwrap();
        assert_eq!(lost, counters.encoding_failure, "seed {seed}");
        let mut compressor = Compressor::default();
        let mut fits = |json: &[u8]| compressor.gzip(&[b"[", json, b"]"], limit).is_some();
        for (id, made) in events.iter().enumerate() {
            let without = made
                .encoded()
                .without_cache()
                .unwrap_or_else(|| made.json.clone());
            assert_eq!(
                ids.binary_search(&id).is_ok(),
                fits(&made.json) || fits(&without),
                "seed {seed} event {id}"
            );
        }
        let kept = delivered.iter().filter(|(_, cache)| *cache).count();
        let had = ids.iter().filter(|id| events[**id].cache.is_some()).count();
        let dropped = u64::try_from(had - kept).unwrap();
        assert!(dropped <= counters.nd_builtin_cache_dropped, "seed {seed}");
    }
}

#[test]
fn events_that_do_not_fit_lose_their_cache_and_then_go() {
    let mut random = Random(1);
    let mut noise = |len: usize| -> String {
        (0..len)
            .map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap()))
            .collect()
    };
    let events = [
        event(0, "", Some(&noise(2_000))),
        event(1, &noise(2_000), None),
        event(2, &noise(2_000), Some("x")),
        event(3, "", None),
        event(4, "", Some("small")),
    ];
    let (chunks, counters) = encoded(400, &events);
    let delivered: Vec<_> = chunks.iter().flat_map(read).collect();
    assert_eq!(delivered, [(0, false), (3, false), (4, true)]);
    assert_eq!(counters.encoding_failure, 2);
    assert_eq!(counters.exceeded_upload_size_limit, 3);
}

#[test]
fn chunks_become_full() {
    let events: Vec<_> = (0..4_000)
        .map(|id| event(id, &Random(id as u64).text(100), None))
        .collect();
    let (chunks, counters) = encoded(8_192, &events);
    let full = chunks
        .iter()
        .filter(|chunk| chunk.body.len() > 8_192 * 3 / 4)
        .count();
    assert!(full + 3 > chunks.len(), "{full} of {}", chunks.len());
    assert!(counters.stable > counters.scale_up, "{counters:?}");
}

#[test]
fn an_encoder_without_events_makes_no_chunk() {
    assert_eq!(encoded(90, &[]), (vec![], ChunkCounters::default()));
}

#[test]
fn a_place_outside_of_the_text_is_none() {
    let event = EncodedEvent::new(b"{}").with_nd_builtin_cache(Some(1..9));
    assert_eq!(event.without_cache(), None);
}

#[cfg(all(feature = "spool", unix))]
#[test]
fn of_events_that_are_there_chunks_are_packed_in_order_and_full() {
    let limit = 2_000;
    for seed in 0..50 {
        let mut random = Random(seed);
        let made: Vec<_> = (0..300)
            .map(|id| {
                let padding = [10, 300, 9_000][random.below(50).saturating_sub(47)];
                let padding = random.text(padding);
                let cache = (random.below(4) == 0).then(|| random.text(100));
                event(id, &padding, cache.as_deref())
            })
            .collect();
        let texts: Vec<_> = made.iter().map(Made::encoded).collect();
        let (mut encoder, mut compressor) = (ChunkEncoder::new(limit), Compressor::default());
        let (mut at, mut ids, mut failed, mut chunks) = (0, Vec::new(), 0, 0);
        while at < texts.len() {
            let (chunk, done) = encoder.pack(&texts[at..], &mut compressor);
            assert!(done > 0, "seed {seed}");
            at += done;
            let Some(chunk) = chunk else {
                assert_eq!(done, 1, "seed {seed}");
                failed += 1;
                continue;
            };
            assert!(chunk.body.len() <= limit, "seed {seed}");
            assert_eq!(chunk.events, done, "seed {seed}");
            ids.extend(read(&chunk).into_iter().map(|(id, _)| id));
            chunks += 1;
        }
        assert_eq!(ids.len() + failed, texts.len(), "seed {seed}");
        assert!(ids.is_sorted(), "seed {seed}");
        assert!(chunks < 250, "seed {seed}: {chunks}");
        assert_eq!(encoder.counters().encoding_failure, failed as u64);
    }
}
