use super::super::super::{BufferConfig, Trigger};
use super::*;

/// A small generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn event(&mut self) -> Encoded {
        let length = [10, 200, 2_000][self.below(3) as usize];
        let text: String = (0..length)
            .map(|_| format!("{:x}", self.below(16)))
            .collect();
        Encoded {
            decision_id: "1".into(),
            timestamp: SystemTime::UNIX_EPOCH,
            json: format!("{{\"a\":\"{text}\"}}").into(),
            cache: None,
            receipt: None,
        }
    }

    fn outbox(&mut self) -> Outbox {
        let when_full = match self.below(4) {
            0 => WhenFull::DropOldest,
            1 => WhenFull::DropNewest,
            2 => WhenFull::Sample,
            _ => WhenFull::Hold {
                deadline: Duration::from_secs(1),
            },
        };
        let limit = self.below(20) + 1;
        let buffer = match self.below(3) {
            0 => BufferConfig::Size { limit_bytes: None },
            1 => BufferConfig::Size {
                limit_bytes: Some(limit * 300),
            },
            _ => BufferConfig::Event {
                limit_events: limit,
            },
        };
        let reporting = ReportingConfig {
            buffer,
            // Some events are too large.
            upload_size_limit_bytes: 1_000,
            trigger: [Trigger::Periodic, Trigger::Immediate][self.below(2) as usize],
            max_decisions_per_second: (self.below(4) == 0).then_some(5.0),
            ..ReportingConfig::default()
        };
        match self.below(3) {
            0 => {
                let bytes = (self.below(2) == 0).then_some(limit as usize * 300);
                let batching = Batching {
                    at_count: 3,
                    at_bytes: 1_000,
                    at_period: Duration::from_secs(1),
                };
                Outbox::batches(batching, bytes, when_full)
            }
            _ => Outbox::chunks(&reporting, when_full),
        }
    }
}

#[test]
fn whatever_happens_every_event_is_held_handed_out_or_lost() {
    let mut compressor = Compressor::default();
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut outbox = random.outbox();
        let mut losses = Losses::default();
        let mut out = Vec::new();
        let (mut pushed, mut delivered) = (0, 0);
        for step in 0..200 {
            match random.below(10) {
                0 => out.extend(outbox.next(random.below(2) == 0, &mut compressor, &mut losses)),
                1 => {
                    if let Some(parcel) = out.pop() {
                        outbox.put_back(parcel, &mut losses);
                    }
                }
                2 => delivered += out.pop().map_or(0, |it| it.events()),
                3 if random.below(5) == 0 => outbox.give_up(&mut losses),
                4 if random.below(50) == 0 => outbox.give_up_all(&mut losses),
                _ => {
                    let now = Duration::from_millis(step * 50);
                    outbox.push(random.event(), now, &mut compressor, &mut losses);
                    pushed += 1;
                }
            }
            let handed_out: u64 = out.iter().map(Parcel::events).sum();
            let lost: u64 = losses.iter().map(|(_, events)| events).sum();
            let all = outbox.events() as u64 + handed_out + delivered + lost;
            assert_eq!(all, pushed, "seed {seed}, step {step}");
            assert_eq!(
                outbox.is_empty(),
                outbox.bytes() == 0,
                "seed {seed}, step {step}"
            );
            let may_be_above = outbox.when_full.holds();
            assert!(
                may_be_above || !outbox.is_above_its_limit(),
                "seed {seed}, step {step}"
            );
        }
        out.clear();
        while outbox.next(true, &mut compressor, &mut losses).is_some() {}
        assert!(outbox.is_empty() && !outbox.has_backlog(), "seed {seed}");
    }
}
