//! What a logged decision costs: encoding and compressing, without an upload. Ratios count, so it
//! prints and asserts nothing:
//! `cargo test --release -p opa-plugins --lib cost -- --ignored --nocapture`.

use std::time::{Duration, Instant, SystemTime};

use opa_core::plugin::{BundleRevision, Event, EventInput, Labels};
use opa_core::{AppId, Reason, Value};

use super::chunk::{ChunkEncoder, Compressor, EncodedEvent};
use super::mask::MaskRules;
use super::write_event;

const EVENTS: u32 = 20_000;

/// A small generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.next()).unwrap_or_default() % choices.len();
        choices[index]
    }

    fn id(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let [a, b, c] = [high >> 32, high >> 16 & 0xffff, high & 0xffff];
        let [d, e] = [low >> 48, low & 0xffff_ffff_ffff];
        format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

/// Events of about 1.5 KB, as the layer makes them for a service behind a gateway.
fn events() -> Vec<Event> {
    let mut random = Random(1);
    let labels = [
        ("id", "2ac50c14-dec0-4e42-84eb-4ff63c51fb36"),
        ("version", "1.22.2"),
        ("team", "red"),
    ];
    let labels = Labels::new(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let bundle = BundleRevision {
        name: "orders".into(),
        revision: Some("4f2c1d9e8b7a".into()),
    };
    (0..EVENTS)
        .map(|number| {
            let at = SystemTime::UNIX_EPOCH
                + Duration::from_micros(1_795_521_550_274_303 + u64::from(number) * 1_337);
            let app = AppId::new("orders").unwrap();
            let id = random.id().into();
            let mut event = Event::new(app, labels.clone(), id, Reason::Allowed, at);
            event.bundles = [bundle.clone()].into();
            event.path = Some("orders/allow".into());
            event.input = EventInput::Built(input(&mut random));
            event.result = Some(Value::from(!random.next().is_multiple_of(4)));
            event.requested_by = Some(
                format!(
                    "10.2.{}.{}:{}",
                    random.next() % 256,
                    random.next() % 256,
                    1024 + random.next() % 60_000
                )
                .into(),
            );
            event.metrics.eval = Duration::from_nanos(2_000 + random.next() % 9_000);
            event.metrics.handler = Duration::from_nanos(12_000 + random.next() % 90_000);
            event
        })
        .collect()
}

fn input(random: &mut Random) -> Value {
    let method = random.one_of(&["GET", "GET", "POST", "PUT", "DELETE"]);
    let agent = random.one_of(&[
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        "okhttp/4.12.0",
        "python-requests/2.32.3",
    ]);
    let user = random.next() % 50_000;
    let order = random.id();
    let resource = random.one_of(&["items", "address", "payment", "status"]);
    let token: String = (0..6).map(|_| format!("{:016x}", random.next())).collect();
    let json = format!(
        r#"{{"attributes":{{"destination":{{"address":{{"socketAddress":{{"address":"10.2.0.17","portValue":8080}}}}}},"request":{{"http":{{"headers":{{"accept":"application/json","accept-encoding":"gzip, br","authorization":"Bearer {token}","content-type":"application/json","host":"orders.shop.test","traceparent":"00-{trace}-{span:016x}-01","user-agent":"{agent}","x-forwarded-for":"203.0.113.{ip}","x-forwarded-proto":"https","x-request-id":"{request}"}},"host":"orders.shop.test","id":"{request}","method":"{method}","path":"/api/v2/customers/{user}/orders/{order}/{resource}?page={page}","protocol":"HTTP/1.1","size":"{size}"}},"time":"2026-11-24T11:59:10.213846Z"}},"source":{{"address":{{"socketAddress":{{"address":"10.2.4.{ip}","portValue":{port}}}}}}}}},"parsed_body":{{"customer":{user},"quantity":{page},"sku":"A-{size}"}},"parsed_path":["api","v2","customers","{user}","orders","{order}","{resource}"],"parsed_query":{{"page":["{page}"]}},"truncated_body":false,"version":{{"encoding":"protojson","ext_authz":"v3"}}}}"#,
        trace = random.id().replace('-', ""),
        span = random.next(),
        ip = random.next() % 256,
        request = random.id(),
        page = random.next() % 40,
        size = random.next() % 4_000,
        port = 1024 + random.next() % 60_000,
    );
    Value::from_json(json.as_bytes()).unwrap()
}

fn per_event(what: &str, work: impl FnOnce() -> String) {
    let start = Instant::now();
    let note = work();
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(EVENTS);
    println!("{what:<40} {micros:>7.2} µs per event  {note}");
}

#[test]
#[ignore = "a measurement: run it in release mode, on an idle machine"]
fn cost_of_an_event() {
    let mut events = events();
    let mut texts = Vec::new();
    let mut text = Vec::new();
    for event in &events {
        text.clear();
        write_event(event, &mut text).unwrap();
        texts.push(text.clone());
    }
    let size = texts.iter().map(Vec::len).sum::<usize>() / texts.len();
    println!("{EVENTS} events of {size} bytes");
    per_event("encode", || {
        for event in &events {
            text.clear();
            write_event(event, &mut text).unwrap();
        }
        String::new()
    });
    for level in [1, 2, 3, 4, 5, 6, 9] {
        let mut compressor = Compressor::new(level);
        per_event(&format!("chunks, level {level}"), || {
            chunks(&texts, &mut compressor)
        });
    }
    let mut compressor = Compressor::default();
    per_event("all: encode, chunks by default", || {
        let mut encoder = ChunkEncoder::new(32_768);
        let mut chunks = Vec::new();
        for event in &events {
            text.clear();
            write_event(event, &mut text).unwrap();
            encoder.push(EncodedEvent::new(&text), &mut compressor, &mut chunks);
        }
        encoder.flush(&mut compressor, &mut chunks);
        String::new()
    });
    per_event("mask of three rules", || {
        let mask = br#"["/input/attributes/request/http/headers/authorization", "/input/parsed_body", {"op": "upsert", "path": "/input/attributes/source", "value": null}]"#;
        let mask = Value::from_json(mask).unwrap();
        for event in &mut events {
            let rules = MaskRules::from_answer(Some(&mask)).unwrap();
            rules.apply(event).unwrap();
        }
        String::new()
    });
}

fn chunks(texts: &[Vec<u8>], compressor: &mut Compressor) -> String {
    let mut encoder = ChunkEncoder::new(32_768);
    let mut chunks = Vec::new();
    for text in texts {
        encoder.push(EncodedEvent::new(text), compressor, &mut chunks);
    }
    encoder.flush(compressor, &mut chunks);
    let bytes: usize = chunks.iter().map(|chunk| chunk.body.len()).sum();
    format!(
        "{} bytes each, {} chunks of {} bytes, {:?}",
        bytes / texts.len(),
        chunks.len(),
        bytes / chunks.len(),
        encoder.counters()
    )
}
