//! Requests as a service behind a gateway gets them: fifteen headers, and no two alike.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Uri};
use http_body_util::Empty;
use opa_tower::PeerAddr;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Makes requests; the same ones of the same seed.
pub(crate) struct Requests(SmallRng);

impl Requests {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn make(&mut self) -> Request<Empty<Bytes>> {
        let path = format!(
            "/orders/{}/items/{}",
            self.below(1_000_000),
            self.below(100)
        );
        let target = format!("http://shop.example.com{path}?page={}", self.below(50));
        let method = self.pick(&["GET", "GET", "GET", "POST"]);
        let headers = [
            (
                "accept",
                self.pick(&[
                    "application/json",
                    "*/*",
                    "application/json, text/plain, */*",
                ])
                .to_owned(),
            ),
            ("accept-encoding", "gzip, deflate, br".to_owned()),
            (
                "accept-language",
                self.pick(&[
                    "en-US,en;q=0.9",
                    "de-DE,de;q=0.9,en;q=0.8",
                    "fr-FR,fr;q=0.9",
                ])
                .to_owned(),
            ),
            (
                "authorization",
                format!(
                    "Bearer {}{}{}{}",
                    self.id(),
                    self.id(),
                    self.id(),
                    self.id()
                ),
            ),
            ("cache-control", "no-cache".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("origin", "https://shop.example.com".to_owned()),
            ("referer", format!("https://shop.example.com{path}")),
            ("user-agent", self.pick(&AGENTS).to_owned()),
            ("x-b3-spanid", format!("{:016x}", self.0.random::<u64>())),
            ("x-b3-traceid", format!("{:032x}", self.0.random::<u128>())),
            ("x-flow-id", self.id()),
            (
                "x-forwarded-for",
                format!("10.2.{}.{}", self.below(256), self.below(256)),
            ),
            ("x-request-id", self.id()),
            (
                "x-user",
                self.pick(&["alice", "bob", "carol", "dave", "erin"])
                    .to_owned(),
            ),
        ];
        let peer = format!(
            "10.2.{}.{}:{}",
            self.below(256),
            self.below(256),
            1024 + self.below(60_000)
        );
        let peer: SocketAddr = peer.parse().expect("an address");
        let mut request = Request::builder().method(method).extension(PeerAddr(peer));
        // As from a server: slices of the one buffer that the head was read into.
        let all: Vec<_> = std::iter::once(&target)
            .chain(headers.iter().map(|(_, value)| value))
            .map(String::as_str)
            .collect();
        let buffer = Bytes::from(all.concat());
        // Shared from the start, as a server's is.
        let _shared = buffer.clone();
        let mut at = 0;
        let mut next = |length: usize| {
            at += length;
            buffer.slice(at - length..at)
        };
        request = request.uri(Uri::from_maybe_shared(next(target.len())).expect("a target"));
        for (name, value) in &headers {
            let value = HeaderValue::from_maybe_shared(next(value.len())).expect("a value");
            // As from a server, which knows no names of ours.
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request = request.header(name, value);
        }
        request.body(Empty::new()).expect("a request")
    }

    fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.random_range(0..of.len())]
    }

    fn id(&mut self) -> String {
        let (a, b): (u64, u64) = (self.0.random(), self.0.random());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }
}

const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
    "okhttp/4.12.0",
];
