//! What a batch looks like to those that receive it.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::output::LoggedEvent;

/// How events stand in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// Each in its own.
    #[default]
    Each,
    /// All in one, each on a line of its own.
    Lines,
    /// All in one, a JSON array.
    Array,
}

/// What messages look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) format: Format,
    /// Each message is compressed with gzip.
    pub(super) gzip: bool,
}

impl Form {
    /// The messages for events. Compressing is work: it is done off the runtime's threads.
    pub(super) async fn messages(self, events: &[LoggedEvent]) -> io::Result<Vec<Bytes>> {
        if !self.gzip {
            return Ok(self.plain(events));
        }
        let events = events.to_vec();
        let packing = tokio::task::spawn_blocking(move || {
            let plain = self.plain(&events);
            plain.iter().map(|message| gzip(message)).collect()
        });
        packing.await.map_err(io::Error::other)?
    }

    fn plain(self, events: &[LoggedEvent]) -> Vec<Bytes> {
        let all = |open: &str, between: &str, close: &str| {
            let json = events.iter().map(|event| &*event.json);
            let joined = json.collect::<Vec<_>>().join(between.as_bytes());
            vec![[open.as_bytes(), &joined, close.as_bytes()].concat().into()]
        };
        match self.format {
            Format::Each => events.iter().map(|event| event.json.clone()).collect(),
            Format::Lines => all("", "\n", ""),
            Format::Array => all("[", ",", "]"),
        }
    }
}

fn gzip(message: &[u8]) -> io::Result<Bytes> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(message)?;
    gzip.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn events_stand_each_alone_on_lines_or_in_an_array() {
        let event = |json: &'static str| {
            LoggedEvent::new("1".into(), SystemTime::UNIX_EPOCH, Bytes::from(json))
        };
        let events = [event("{\"a\":1}"), event("{\"b\":2}")];
        for (format, wanted) in [
            (Format::Each, &["{\"a\":1}", "{\"b\":2}"][..]),
            (Format::Lines, &["{\"a\":1}\n{\"b\":2}"]),
            (Format::Array, &["[{\"a\":1},{\"b\":2}]"]),
        ] {
            for gzip in [false, true] {
                let form = Form { format, gzip };
                let read = |message: Bytes| {
                    let mut text = String::new();
                    let mut packed = flate2::read::GzDecoder::new(&*message);
                    match gzip {
                        true => packed.read_to_string(&mut text).map(|_| text).unwrap(),
                        false => String::from_utf8(message.to_vec()).unwrap(),
                    }
                };
                let messages = form.messages(&events).await.unwrap();
                let texts: Vec<_> = messages.into_iter().map(read).collect();
                assert_eq!(texts, wanted);
            }
        }
    }
}
