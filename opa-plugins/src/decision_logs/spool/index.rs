//! What is in the spool and where, without the records themselves.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::record::{RecordId, StreamName};

/// Where a record's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

struct Entry {
    stream: Arc<StreamName>,
    bytes: u32,
    /// `None` while it waits to be written.
    place: Option<Place>,
}

#[derive(Default)]
struct Segment {
    bytes: u64,
    live: usize,
    /// What was written to it, in order; also what is elsewhere or gone by now.
    ids: VecDeque<RecordId>,
}

/// The ids of a stream, in order; also some that are gone.
#[derive(Default)]
struct StreamIds {
    ids: VecDeque<RecordId>,
    live: usize,
    bytes: u64,
}

#[derive(Default)]
pub(super) struct Index {
    records: BTreeMap<RecordId, Entry>,
    streams: HashMap<Arc<StreamName>, StreamIds>,
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
    segments_bytes: u64,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Of the records' frames.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn segments_len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn segments_bytes(&self) -> u64 {
        self.segments_bytes
    }

    /// Adds a record, which is later than all that its stream has.
    pub(super) fn insert(&mut self, id: RecordId, stream: &StreamName, bytes: usize) {
        let stream = match self.streams.get_key_value(stream) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(stream.clone()),
        };
        let ids = self.streams.entry(Arc::clone(&stream)).or_default();
        ids.ids.push_back(id);
        ids.live += 1;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        ids.bytes += u64::from(bytes);
        self.bytes += u64::from(bytes);
        let entry = Entry {
            stream,
            bytes,
            place: None,
        };
        self.records.insert(id, entry);
    }

    /// Says where a record is. `false` if it is gone.
    pub(super) fn place(&mut self, id: RecordId, place: Place) -> bool {
        // A frame stays in the list although its record is gone: nobody looks at it then.
        let segment = self.segments.entry(place.segment).or_default();
        let Some(entry) = self.records.get_mut(&id) else {
            return false;
        };
        segment.ids.push_back(id);
        segment.live += 1;
        if let Some(before) = entry.place.replace(place)
            && let Some(segment) = self.segments.get_mut(&before.segment)
        {
            segment.live -= 1;
        }
        true
    }

    /// Where a record is, and its length.
    pub(super) fn get(&self, id: RecordId) -> Option<(Option<Place>, usize)> {
        let entry = self.records.get(&id)?;
        Some((entry.place, usize::try_from(entry.bytes).ok()?))
    }

    /// `false` if there is none.
    pub(super) fn remove(&mut self, id: RecordId) -> bool {
        let Some(entry) = self.records.remove(&id) else {
            return false;
        };
        self.bytes -= u64::from(entry.bytes);
        if let Some(segment) = entry
            .place
            .and_then(|place| self.segments.get_mut(&place.segment))
        {
            segment.live -= 1;
        }
        if let Some(stream) = self.streams.get_mut(&entry.stream) {
            stream.live -= 1;
            stream.bytes -= u64::from(entry.bytes);
            let records = &self.records;
            let is_gone = |id: &mut RecordId| !records.contains_key(id);
            while stream.ids.pop_front_if(is_gone).is_some() {}
            if stream.live == 0 {
                self.streams.remove(&entry.stream);
            } else if stream.ids.len() > 2 * stream.live + 16 {
                stream.ids.retain(|id| records.contains_key(id));
            }
        }
        true
    }

    pub(super) fn stream_of(&self, id: RecordId) -> Option<StreamName> {
        let entry = self.records.get(&id)?;
        Some(StreamName::clone(&entry.stream))
    }

    pub(super) fn oldest(&self) -> Option<RecordId> {
        self.records.first_key_value().map(|(id, _)| *id)
    }

    /// How many records a stream has, and their bytes.
    pub(super) fn size_of(&self, stream: &StreamName) -> (u64, u64) {
        let stream = self.streams.get(stream);
        stream.map_or((0, 0), |it| (it.live as u64, it.bytes))
    }

    /// How many streams have records.
    pub(super) fn streams_len(&self) -> usize {
        self.streams.len()
    }

    /// All streams with their bytes.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&StreamName, u64)> {
        self.streams.iter().map(|(name, it)| (&**name, it.bytes))
    }

    /// The oldest records of a stream that come after `after`, as many as have `max_bytes` together,
    /// at least one.
    pub(super) fn first_of(
        &self,
        stream: &StreamName,
        after: Option<RecordId>,
        max_records: usize,
        max_bytes: usize,
    ) -> Vec<RecordId> {
        let Some(stream) = self.streams.get(stream) else {
            return Vec::new();
        };
        let mut bytes = 0_usize;
        let mut found = Vec::new();
        for id in &stream.ids {
            let Some(entry) = self.records.get(id).filter(|_| after < Some(*id)) else {
                continue;
            };
            bytes = bytes.saturating_add(usize::try_from(entry.bytes).unwrap_or(usize::MAX));
            if found.len() >= max_records || bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(*id);
        }
        found
    }

    pub(super) fn oldest_of(&mut self, stream: &StreamName) -> Option<RecordId> {
        let stream = self.streams.get_mut(stream)?;
        while let Some(id) = stream.ids.front() {
            if self.records.contains_key(id) {
                return Some(*id);
            }
            stream.ids.pop_front();
        }
        None
    }

    /// The ids below `end` of each stream, in order; streams sorted by name.
    pub(super) fn ids_below(&self, end: RecordId) -> Vec<(StreamName, Vec<RecordId>)> {
        let mut streams: BTreeMap<&Arc<StreamName>, Vec<RecordId>> = BTreeMap::new();
        for (id, entry) in self.records.range(..end) {
            streams.entry(&entry.stream).or_default().push(*id);
        }
        let streams = streams.into_iter();
        streams
            .map(|(name, ids)| (StreamName::clone(name), ids))
            .collect()
    }

    /// Puts the ids of each stream in order, after they came in another one.
    pub(super) fn sort(&mut self) {
        for stream in self.streams.values_mut() {
            stream.ids.make_contiguous().sort_unstable();
        }
    }

    /// Says how long a segment's file is.
    pub(super) fn set_segment_bytes(&mut self, number: u64, bytes: u64) {
        let segment = self.segments.entry(number).or_default();
        self.segments_bytes = self.segments_bytes - segment.bytes + bytes;
        segment.bytes = bytes;
    }

    pub(super) fn remove_segment(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.segments_bytes -= segment.bytes;
        }
    }

    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.segments.first_key_value().map(|(number, _)| *number)
    }

    pub(super) fn is_unused(&self, segment: u64) -> bool {
        let segment = self.segments.get(&segment);
        segment.is_none_or(|segment| segment.live == 0)
    }

    /// Takes the next records of a segment off its list, as many as have `max` bytes together, at
    /// least one. They must be placed elsewhere next, or [put back](Self::put_back).
    pub(super) fn take_from(&mut self, number: u64, max: usize) -> Vec<(RecordId, Place, usize)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let Some(segment) = self.segments.get_mut(&number) else {
            return taken;
        };
        while bytes < max
            && let Some(id) = segment.ids.pop_front()
        {
            let Some(entry) = self.records.get(&id) else {
                continue;
            };
            let Some(place) = entry.place.filter(|place| place.segment == number) else {
                continue;
            };
            let len = usize::try_from(entry.bytes).unwrap_or(usize::MAX);
            bytes = bytes.saturating_add(len);
            taken.push((id, place, len));
        }
        taken
    }

    pub(super) fn put_back(&mut self, number: u64, taken: &[(RecordId, Place, usize)]) {
        if let Some(segment) = self.segments.get_mut(&number) {
            for (id, _, _) in taken.iter().rev() {
                segment.ids.push_front(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use opa_core::AppId;

    use super::*;

    fn stream(app: &str) -> StreamName {
        StreamName::new(AppId::new(app).unwrap(), "default")
    }

    fn index() -> Index {
        let mut index = Index::default();
        for id in 0..100 {
            let name = if id % 2 == 0 { "a" } else { "b" };
            index.insert(RecordId(id), &stream(name), 10);
            let place = Place {
                segment: id / 10,
                offset: 0,
            };
            assert!(index.place(RecordId(id), place));
        }
        index
    }

    #[test]
    fn streams_stay_in_order_and_go_when_they_are_empty() {
        let mut index = index();
        assert_eq!((index.len(), index.bytes()), (100, 1000));
        for id in (1..50).rev().map(|half| 2 * half) {
            assert!(index.remove(RecordId(id)));
        }
        assert!(index.streams[&stream("a")].ids.len() < 20);
        assert_eq!(index.oldest_of(&stream("a")), Some(RecordId(0)));
        assert_eq!(index.oldest_of(&stream("b")), Some(RecordId(1)));
        assert!(index.remove(RecordId(0)));
        assert!(!index.remove(RecordId(0)));
        assert_eq!(index.oldest_of(&stream("a")), None);
        assert_eq!((index.len(), index.bytes()), (50, 500));
        assert_eq!(index.streams.len(), 1);
        assert_eq!(index.oldest(), Some(RecordId(1)));
        let below = index.ids_below(RecordId(5));
        assert_eq!(below, [(stream("b"), vec![RecordId(1), RecordId(3)])]);
    }

    #[test]
    fn what_is_gone_from_the_front_is_not_looked_at_again() {
        let mut index = index();
        for id in 0..40 {
            assert!(index.remove(RecordId(id)));
            let ids = &index.streams[&stream("b")].ids;
            assert_eq!(ids.front().map(|id| id.0), Some(id.div_ceil(2) * 2 + 1));
        }
        let first = index.first_of(&stream("a"), None, 2, 1000);
        assert_eq!(first, [RecordId(40), RecordId(42)]);
    }

    #[test]
    fn a_segment_is_unused_when_its_records_are_gone_or_elsewhere() {
        let mut index = index();
        for id in 0..5 {
            assert!(index.remove(RecordId(id)));
        }
        let taken = index.take_from(0, 25);
        let ids: Vec<u64> = taken.iter().map(|(id, _, _)| id.0).collect();
        assert_eq!(ids, [5, 6, 7]);
        index.put_back(0, &taken);
        let taken = index.take_from(0, 1000);
        assert_eq!(taken.len(), 5);
        assert!(!index.is_unused(0));
        for (id, _, _) in taken {
            let segment = 11;
            assert!(index.place(id, Place { segment, offset: 0 }));
        }
        assert!(index.is_unused(0));
        assert!(!index.is_unused(11));
        assert!(index.take_from(0, 1000).is_empty());
    }
}
