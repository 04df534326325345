//! Which connections a request takes.
//!
//! A [`Lane`] is one HTTP client at a time, and with it its connections. It is replaced at a
//! maximum age, after an error of the transport and with another client certificate: the next
//! requests look up the name again and connect anew, those under way end undisturbed.
//!
//! Servers with the same TLS settings share a lane. One that fails gets a lane of its own for a
//! while, so that its errors don't cost the others their connections.
//!
//! Over HTTP/2 a client keeps one connection to each server, which carries a limited number of
//! requests. So the long polls of a [`Peer`] that speaks HTTP/2 have lanes for themselves, as many
//! as are needed ([`LongPolls`]): they don't get into the way of downloads, nor of each other.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::Instant;

use super::ServiceError;
use super::client_tls::Own;
use super::clients::{Client, Kind};
use super::long_polls::{self, LongPolls, Room, Streams};

/// When a lane is replaced, in seconds of its age. Not all at the same time.
const MAX_AGE: std::ops::Range<u64> = 540..600;

/// A lane is not replaced more often than this because of errors.
const MIN_AGE: Duration = Duration::from_secs(10);

/// How long a server that failed has a lane of its own: until the shared one is another, too.
const OWN_LANE: Duration = Duration::from_secs(MAX_AGE.end);

/// A server, and what is known of it.
pub(super) struct Peer {
    client: Arc<Client>,
    origin: String,
    /// Its last answer came over HTTP/2.
    http2: AtomicBool,
    /// Instead of the one that all servers share, and until when.
    own: Mutex<Option<(Arc<Lane>, Instant)>>,
    long_polls: LongPolls,
}

/// One client at a time.
pub(super) struct Lane {
    kind: Kind,
    active: Arc<tokio::sync::Mutex<Option<Active>>>,
    /// An error of the transport was seen with the client that was made then.
    suspect: Mutex<Option<Instant>>,
    /// How many long polls it carries; changed under the lock of the peer's long polls.
    pub(super) long_polls: AtomicU32,
    /// When it last carried one.
    pub(super) left: Mutex<Option<Instant>>,
}

struct Active {
    client: reqwest::Client,
    /// Whose certificate it has.
    digest: Option<[u8; 32]>,
    made: Instant,
    expires: Instant,
    /// The requests under way.
    uses: Arc<Streams>,
    /// Those of the client before.
    uses_before: Weak<Streams>,
}

/// What one request is sent with, until it is answered; over HTTP/2 also what its body comes with.
pub(crate) struct Connection {
    lane: Place,
    client: reqwest::Client,
    made: Instant,
    streams: Arc<Streams>,
}

/// A place in a lane.
struct Place {
    peer: Arc<Peer>,
    lane: Arc<Lane>,
    /// The streams of which it has one.
    open: Mutex<Option<Arc<Streams>>>,
}

impl Peer {
    pub(super) fn new(client: Arc<Client>, origin: String) -> Self {
        Self {
            client,
            origin,
            http2: AtomicBool::new(false),
            own: Mutex::default(),
            long_polls: LongPolls::default(),
        }
    }

    /// What a request is sent with that may wait for its answer, or does not. `None` when there is
    /// no room for one more that waits.
    ///
    /// # Errors
    /// When a client certificate could never be read.
    pub(super) async fn connection(
        self: &Arc<Self>,
        waits: bool,
    ) -> Result<Option<Connection>, ServiceError> {
        let Some(lane) = self.lane(waits).await else {
            return Ok(None);
        };
        let lane = Place {
            peer: Arc::clone(self),
            lane,
            open: Mutex::default(),
        };
        let own = match &self.client.own {
            Some(rotating) => Some(rotating.current().await?),
            None => None,
        };
        let (client, made, streams) = lane.lane.client(&self.client, own).await?;
        Ok(Some(Connection {
            lane,
            client,
            made,
            streams,
        }))
    }

    async fn lane(&self, waits: bool) -> Option<Arc<Lane>> {
        loop {
            let mut changed = std::pin::pin!(self.long_polls.changed());
            changed.as_mut().enable();
            if !(waits && self.http2.load(Ordering::Relaxed)) {
                return Some(self.plain());
            }
            match self.long_polls.room() {
                Room::Here(lane) => return Some(lane),
                Room::Later => changed.await,
                Room::Nowhere => return None,
            }
        }
    }

    /// Whether long polls share its connections.
    pub(super) fn shares_connections(&self) -> bool {
        self.http2.load(Ordering::Relaxed) && !self.long_polls.is_narrow()
    }

    /// The lane of everything but long polls over HTTP/2.
    fn plain(&self) -> Arc<Lane> {
        let mut own = self.own.lock();
        if own
            .as_ref()
            .is_some_and(|(_, until)| *until <= Instant::now())
        {
            *own = None;
        }
        let lane = own.as_ref().map_or(&self.client.plain, |(lane, _)| lane);
        Arc::clone(lane)
    }

    /// Its requests go on with other connections than those that all servers share.
    fn leave_shared(&self) {
        let until = Instant::now() + OWN_LANE;
        let lane = || (Arc::new(Lane::new(Kind::Plain)), until);
        self.own.lock().get_or_insert_with(lane).1 = until;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.lane.kind == Kind::Plain {
            return;
        }
        let streams = self.open.lock().take();
        if let Some(streams) = &streams {
            streams.close();
        }
        self.peer.long_polls.leave(&self.lane, streams.is_some());
    }
}

impl Connection {
    /// Sends a request, which has no body if it may wait. `None` when the server lets no more than
    /// the others wait with this connection: it got none of it.
    pub(super) async fn execute(
        &self,
        mut request: reqwest::Request,
    ) -> Option<reqwest::Result<reqwest::Response>> {
        if self.lane.lane.kind == Kind::Plain {
            return Some(self.client.execute(request).await);
        }
        let long_polls = &self.peer().long_polls;
        let turn = long_polls.turn(&self.streams).await?;
        let (body, opened) = long_polls::body();
        *request.body_mut() = Some(body);
        let mut response = std::pin::pin!(self.client.execute(request));
        tokio::select! {
            biased;
            response = &mut response => return Some(response),
            _ = opened => {}
            open = self.streams.full() => {
                self.note_full(open);
                return None;
            }
        }
        *self.lane.open.lock() = Some(Arc::clone(&self.streams));
        long_polls.note_open(&self.streams);
        tokio::select! {
            biased;
            response = &mut response => return Some(response),
            () = turn.end() => {}
        }
        Some(response.await)
    }

    fn note_full(&self, open: u32) {
        if self.peer().long_polls.note_full(open) {
            tracing::warn!(
                target: "opa::service",
                server = self.peer().origin,
                "the server lets no more than {open} long polls wait with one connection",
            );
        }
    }

    fn peer(&self) -> &Arc<Peer> {
        &self.lane.peer
    }

    /// Notes which version of HTTP the server speaks.
    pub(super) fn answered(&self, response: &reqwest::Response) {
        // A redirect may have led to another server.
        if response.url().origin().ascii_serialization() == self.peer().origin {
            let http2 = response.version() == http::Version::HTTP_2;
            self.peer().http2.store(http2, Ordering::Relaxed);
        }
    }

    /// Notes an error of the transport, or that no answer came in time: the lane is given up if
    /// that was its client.
    pub(super) fn failed(&self, error: Option<&reqwest::Error>) {
        let lane = &self.lane.lane;
        let is_connect = error.is_some_and(reqwest::Error::is_connect);
        match lane.kind {
            // No connection was left; the next request looks up the name again.
            Kind::Plain if is_connect => return,
            Kind::Plain => self.peer().leave_shared(),
            // Whether the server still speaks HTTP/2 is to be seen.
            Kind::Multiplexed if is_connect => {
                self.peer().http2.store(false, Ordering::Relaxed);
                self.peer().long_polls.give_up(lane, &self.streams);
            }
            Kind::Multiplexed => {}
        }
        if !Arc::ptr_eq(lane, &self.peer().client.plain) {
            *lane.suspect.lock() = Some(self.made);
        }
    }
}

impl Lane {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            active: Arc::default(),
            suspect: Mutex::default(),
            long_polls: AtomicU32::new(0),
            left: Mutex::default(),
        }
    }

    /// A lane that has its first client.
    pub(super) fn with(self, client: reqwest::Client) -> Self {
        let active = Active::new(client, None, Weak::new());
        Self {
            active: Arc::new(tokio::sync::Mutex::new(Some(active))),
            ..self
        }
    }

    async fn client(
        &self,
        shared: &Arc<Client>,
        own: Option<Arc<Own>>,
    ) -> Result<(reqwest::Client, Instant, Arc<Streams>), ServiceError> {
        let mut active = Arc::clone(&self.active).lock_owned().await;
        let digest = own.as_ref().map(|own| own.digest);
        let suspect = *self.suspect.lock();
        if let Some(active) = active.as_ref().filter(|it| it.serves(digest, suspect)) {
            return Ok(active.answer());
        }
        let (maker, kind) = (Arc::clone(&shared.maker), self.kind);
        // The system's authorities may have to be read.
        let making = tokio::task::spawn_blocking(move || {
            let client = maker.client(kind, own.as_ref().map(|own| &own.identity))?;
            let before = active.as_ref().map(|before| Arc::downgrade(&before.uses));
            let made = Active::new(client, digest, before.unwrap_or_default());
            Ok(active.insert(made).answer())
        });
        let made = making.await;
        made.unwrap_or_else(|error| Err(ServiceError::new(error)))
    }
}

impl Active {
    fn new(client: reqwest::Client, digest: Option<[u8; 32]>, uses_before: Weak<Streams>) -> Self {
        let made = Instant::now();
        let age = Duration::from_secs(rand::rng().random_range(MAX_AGE));
        Self {
            client,
            digest,
            made,
            expires: made + age,
            uses: Arc::default(),
            uses_before,
        }
    }

    /// Whether requests that are sent now go with it.
    fn serves(&self, digest: Option<[u8; 32]>, suspect: Option<Instant>) -> bool {
        if self.digest != digest {
            return false;
        }
        let now = Instant::now();
        let is_suspect = suspect == Some(self.made) && now >= self.made + MIN_AGE;
        // Long polls may hang on to the one before: connections don't pile up.
        let may_go = self.uses_before.strong_count() == 0;
        !(may_go && (is_suspect || now >= self.expires))
    }

    fn answer(&self) -> (reqwest::Client, Instant, Arc<Streams>) {
        (self.client.clone(), self.made, Arc::clone(&self.uses))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;

    use futures_util::FutureExt;
    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::testing::config;
    use crate::service::Clients;

    /// Where every name leads to, and how often that was asked.
    #[derive(Default)]
    pub(in crate::service) struct Names {
        address: Mutex<Option<SocketAddr>>,
        asked: std::sync::atomic::AtomicUsize,
    }

    impl Names {
        fn lead_to(&self, address: SocketAddr) {
            *self.address.lock() = Some(address);
        }
    }

    impl Resolve for Names {
        fn resolve(&self, _: Name) -> Resolving {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let address = *self.address.lock();
            Box::pin(async move {
                let addresses: Addrs = Box::new(address.into_iter());
                Ok(addresses)
            })
        }
    }

    /// Answers its own port to each request over connections that stay, but never one for `/hang`.
    async fn server() -> SocketAddr {
        async fn serve(mut stream: TcpStream, port: u16) -> std::io::Result<()> {
            let mut request = Vec::new();
            loop {
                let mut part = [0; 1024];
                let length = stream.read(&mut part).await?;
                if length == 0 {
                    return Ok(());
                }
                request.extend_from_slice(&part[..length]);
                if request.starts_with(b"GET /hang") || !request.ends_with(b"\r\n\r\n") {
                    continue;
                }
                request.clear();
                let port = port.to_string();
                let length = port.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{port}").as_bytes()).await?;
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, address.port()));
            }
        });
        address
    }

    fn peer(names: &Arc<Names>) -> Arc<Peer> {
        let config = config("services: {a: {url: 'http://control.test'}}");
        Clients::resolved(&config.services[0], names).unwrap()
    }

    /// Which server answers.
    async fn ask(peer: &Arc<Peer>) -> Result<u16, reqwest::Error> {
        let connection = peer.connection(false).await.unwrap().unwrap();
        let answer = connection.client.get("http://control.test/").send().await;
        match answer {
            Ok(answer) => Ok(answer.text().await?.parse().unwrap()),
            Err(error) => {
                connection.failed(Some(&error));
                Err(error)
            }
        }
    }

    async fn advance(by: Duration) {
        tokio::time::pause();
        tokio::time::advance(by).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_at_the_maximum_age() {
        let (one, two) = (server().await, server().await);
        let names = Arc::new(Names::default());
        let peer = peer(&names);
        names.lead_to(one);
        assert_eq!(ask(&peer).await.unwrap(), one.port());
        names.lead_to(two);
        // It is used all the time: an unused connection does not get that old.
        for _ in 1..MAX_AGE.start / 60 {
            advance(Duration::from_secs(60)).await;
            assert_eq!(ask(&peer).await.unwrap(), one.port());
        }
        assert_eq!(names.asked.load(Ordering::Relaxed), 1);
        advance(Duration::from_secs(60)).await;
        drop(ask(&peer).await);
        advance(Duration::from_secs(MAX_AGE.end - MAX_AGE.start)).await;
        assert_eq!(ask(&peer).await.unwrap(), two.port());
        assert_eq!(names.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_after_an_error() {
        let (one, two) = (server().await, server().await);
        let names = Arc::new(Names::default());
        let peer = peer(&names);
        names.lead_to(one);
        assert_eq!(ask(&peer).await.unwrap(), one.port());
        // What hangs is given up; another connection to the same server is still open.
        for next in [two, one] {
            names.lead_to(next);
            let before = peer.connection(false).await.unwrap().unwrap();
            before.failed(None);
            drop(before);
            advance(MIN_AGE).await;
            assert_eq!(ask(&peer).await.unwrap(), next.port());
        }
        // But not over and over again.
        names.lead_to(two);
        peer.connection(false).await.unwrap().unwrap().failed(None);
        assert_eq!(ask(&peer).await.unwrap(), one.port());
    }

    #[tokio::test]
    async fn a_server_that_fails_costs_no_other_its_connections() {
        let names = Arc::new(Names::default());
        let faulty = peer(&names);
        let other = faulty.client.peer("http://other.test".into());
        let made = other.connection(false).await.unwrap().unwrap().made;
        for _ in 0..5 {
            faulty
                .connection(false)
                .await
                .unwrap()
                .unwrap()
                .failed(None);
            advance(MIN_AGE).await;
            assert_eq!(other.connection(false).await.unwrap().unwrap().made, made);
        }
        assert!(faulty.connection(false).await.unwrap().unwrap().made > made);
        // Once it fails no more and the shared lane is another, it goes back there.
        advance(OWN_LANE).await;
        let shared = faulty.connection(false).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&shared.lane.lane, &faulty.client.plain));
        assert!(shared.made > made);
    }

    #[tokio::test]
    async fn a_server_that_can_not_be_reached_is_asked_with_the_same_client() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = Arc::new(Names::default());
        names.lead_to(closed.local_addr().unwrap());
        drop(closed);
        let peer = peer(&names);
        let made = peer.connection(false).await.unwrap().unwrap().made;
        for _ in 0..5 {
            assert!(ask(&peer).await.is_err());
            advance(MIN_AGE).await;
            assert_eq!(peer.connection(false).await.unwrap().unwrap().made, made);
        }
        assert_eq!(names.asked.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_server_that_can_not_be_reached_is_looked_up_with_each_request() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = Arc::new(Names::default());
        names.lead_to(closed.local_addr().unwrap());
        drop(closed);
        let peer = peer(&names);
        assert!(ask(&peer).await.is_err());
        let one = server().await;
        names.lead_to(one);
        assert_eq!(ask(&peer).await.unwrap(), one.port());
    }

    #[tokio::test]
    async fn a_lane_is_not_replaced_while_the_one_before_is_used() {
        let names = Arc::new(Names::default());
        let peer = peer(&names);
        peer.leave_shared();
        let first = peer.connection(false).await.unwrap().unwrap();
        first.failed(None);
        advance(MIN_AGE).await;
        let second = peer.connection(false).await.unwrap().unwrap();
        assert!(second.made > first.made);
        second.failed(None);
        advance(MIN_AGE).await;
        assert_eq!(
            peer.connection(false).await.unwrap().unwrap().made,
            second.made
        );
        drop(first);
        assert!(peer.connection(false).await.unwrap().unwrap().made > second.made);
    }

    #[tokio::test]
    async fn long_polls_have_lanes_of_their_own_once_the_server_speaks_http2() {
        let peer = peer(&Arc::default());
        let plain = peer.connection(true).await.unwrap().unwrap();
        assert_eq!(plain.lane.lane.kind, Kind::Plain);
        assert!(!peer.shares_connections());
        peer.http2.store(true, Ordering::Relaxed);
        let waits = peer.connection(true).await.unwrap().unwrap();
        assert_eq!(waits.lane.lane.kind, Kind::Multiplexed);
        assert!(peer.shares_connections());
        let plain = peer.connection(false).await.unwrap().unwrap();
        assert_eq!(plain.lane.lane.kind, Kind::Plain);
        assert_eq!(peer.long_polls.lanes(), 1);
        // Who waits for a place goes by what the server speaks meanwhile.
        let mut waiting = vec![waits];
        while waiting.len() < long_polls::PER_LANE as usize {
            waiting.push(peer.connection(true).await.unwrap().unwrap());
        }
        let mut later = std::pin::pin!(peer.connection(true));
        assert!((&mut later).now_or_never().is_none());
        peer.http2.store(false, Ordering::Relaxed);
        drop(waiting);
        let later = later.await.unwrap().unwrap();
        assert_eq!(later.lane.lane.kind, Kind::Plain);
    }
}
