//! Where the long polls of a server wait that speaks HTTP/2.
//!
//! Its connections are filled one after the other. How many streams a connection may have is the
//! server's to say (RFC 9113, 5.1.2), and the client library tells nobody: requests beyond that are
//! kept back until a stream ends, which among long polls may take an hour. So it is found out: a
//! request drops its body when its stream is open, and where none opens any more there is no room
//! for more. Until that is known there is one connection whose streams are not open.
//!
//! The library takes any number of requests that come at once, and counts them only when its
//! connection runs again. So they take turns, unless the server is known to allow enough.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::clients::Kind;
use super::lanes::Lane;

/// How many long polls share a connection: what each HTTP/2 server is advised to allow at least
/// (RFC 9113, 6.5.2). What allows fewer is taken for a server that has a connection for each.
pub(super) const PER_LANE: u32 = 100;

/// How many connections the long polls of a server have at most.
const MAX_LANES: usize = 256;

/// How long it counts what was found out.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// How long a lane stays without any.
const IDLE_LANE: Duration = Duration::from_secs(60);

/// A connection is full when one stream is not open after as many of these in which no other one
/// was opened, or after as many at all. They are counted, since a process can stand still.
const TICK: Duration = Duration::from_millis(250);
const QUIET_TICKS: u32 = 4;
const TICKS: u32 = 20;

/// How long the connection has to count a stream, at least, before the next one may open. It takes
/// microseconds; one that was not counted in time would be missed only with the one before it.
const TURN: Duration = Duration::from_millis(10);

/// The long polls of a server over HTTP/2.
#[derive(Default)]
pub(super) struct LongPolls {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The first ones are filled first.
    lanes: Vec<Arc<Lane>>,
    /// How many streams a connection has, and until when that is known.
    width: Option<(u32, Instant)>,
    /// How many have a place and no stream yet.
    opening: u32,
}

/// The streams of a client.
pub(super) struct Streams {
    open: AtomicU32,
    /// As many as ever were.
    opened: AtomicU32,
    /// Whose stream opens. Closed when there is no connection to open it with.
    turn: Arc<Semaphore>,
}

/// The right to open a stream.
pub(super) struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
}

/// Whether there is a place for one more.
pub(super) enum Room {
    Here(Arc<Lane>),
    /// It is to be seen when others have their streams.
    Later,
    Nowhere,
}

impl LongPolls {
    /// A place in the first lane that has one.
    pub(super) fn room(&self) -> Room {
        let mut state = self.state.lock();
        let width = state.width();
        let per_lane = width.unwrap_or(PER_LANE);
        let free = state
            .lanes
            .iter()
            .find(|lane| lane.long_polls.load(Ordering::Relaxed) < per_lane);
        let lane = match free.cloned() {
            Some(lane) => lane,
            None if width.is_none() && state.opening > 0 => return Room::Later,
            None if state.lanes.len() >= MAX_LANES => return Room::Nowhere,
            None => {
                let lane = Arc::new(Lane::new(Kind::Multiplexed));
                state.lanes.push(Arc::clone(&lane));
                lane
            }
        };
        lane.long_polls.fetch_add(1, Ordering::Relaxed);
        state.opening += 1;
        Room::Here(lane)
    }

    /// Ends when there may be another answer to [`room`](Self::room).
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// The stream of one that has a place is open.
    pub(super) fn note_open(&self, streams: &Streams) {
        streams.opened.fetch_add(1, Ordering::Relaxed);
        let open = streams.open.fetch_add(1, Ordering::Relaxed) + 1;
        let mut state = self.state.lock();
        state.opening -= 1;
        if open >= PER_LANE && state.width().is_none() {
            state.width = Some((PER_LANE, Instant::now() + KNOWN_FOR));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A connection takes no more streams than these. Answers whether that is news.
    pub(super) fn note_full(&self, open: u32) -> bool {
        let mut state = self.state.lock();
        let known = state.width();
        let is_news = open < known.unwrap_or(PER_LANE);
        if is_news {
            state.width = Some((open.max(1), Instant::now() + KNOWN_FOR));
        }
        drop(state);
        self.changed.notify_waiters();
        is_news
    }

    /// The turn to open one of `streams`. `None` when it can't be had: they have no connection, or
    /// no room for one more.
    pub(super) async fn turn(&self, streams: &Streams) -> Option<Turn> {
        let permit = match self.width() {
            Some(PER_LANE) => None,
            _ => Some(Arc::clone(&streams.turn).acquire_owned().await.ok()?),
        };
        let open = streams.open.load(Ordering::Relaxed);
        let since = Instant::now();
        let has_room = self.width().is_none_or(|width| open < width);
        has_room.then_some(Turn { permit, since })
    }

    /// There is no connection to be had with the client of `lane`, nor for those who wait for
    /// their turn with its `streams`.
    pub(super) fn give_up(&self, lane: &Arc<Lane>, streams: &Streams) {
        let mut state = self.state.lock();
        state.lanes.retain(|other| !Arc::ptr_eq(other, lane));
        // Another server may come in its place.
        state.width = None;
        drop(state);
        streams.turn.close();
        self.changed.notify_waiters();
    }

    fn width(&self) -> Option<u32> {
        self.state.lock().width()
    }

    /// Whether connections are known to take fewer than they should.
    pub(super) fn is_narrow(&self) -> bool {
        self.width().is_some_and(|width| width < PER_LANE)
    }

    /// One that had a place in `lane` goes, with its stream open or not.
    pub(super) fn leave(&self, lane: &Lane, is_open: bool) {
        let mut state = self.state.lock();
        lane.long_polls.fetch_sub(1, Ordering::Relaxed);
        state.opening -= u32::from(!is_open);
        let now = Instant::now();
        *lane.left.lock() = Some(now);
        // Those whom news took away come back.
        state.lanes.retain(|lane| {
            let left = lane.left.lock().map(|left| now.duration_since(left));
            lane.long_polls.load(Ordering::Relaxed) > 0 || left.is_none_or(|left| left < IDLE_LANE)
        });
        drop(state);
        self.changed.notify_waiters();
    }

    #[cfg(test)]
    pub(super) fn lanes(&self) -> usize {
        self.state.lock().lanes.len()
    }
}

impl State {
    fn width(&mut self) -> Option<u32> {
        self.width.take_if(|(_, until)| *until <= Instant::now());
        self.width.map(|(width, _)| width)
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: AtomicU32::new(0),
            opened: AtomicU32::new(0),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Turn {
    /// The stream is open. The next one has its turn when the connection has counted it; after the
    /// first one also when the server said how many there may be, which takes no longer than it
    /// took to connect.
    pub(super) async fn end(self) {
        if let Some(permit) = self.permit {
            tokio::time::sleep(TURN.max(self.since.elapsed())).await;
            drop(permit);
        }
    }
}

impl Streams {
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends when one more stream finds no room, with the number of those that are open. As long as
    /// there is none, the connection is being made.
    pub(super) async fn full(&self) -> u32 {
        let (mut ticks, mut quiet) = (0, 0);
        let mut opened = self.opened.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(TICK).await;
            let open = self.open.load(Ordering::Relaxed);
            let now_opened = self.opened.load(Ordering::Relaxed);
            if open == 0 {
                (ticks, quiet) = (0, 0);
                continue;
            }
            ticks += 1;
            quiet = if now_opened == opened { quiet + 1 } else { 0 };
            opened = now_opened;
            if quiet >= QUIET_TICKS || ticks >= TICKS {
                return open;
            }
        }
    }
}

/// A body of nothing, and what ends when it is dropped: the client library keeps it until the
/// stream is open.
pub(super) fn body() -> (reqwest::Body, oneshot::Receiver<Infallible>) {
    let (dropped, opened) = oneshot::channel();
    let empty = Empty { _dropped: dropped };
    (reqwest::Body::wrap(empty), opened)
}

struct Empty {
    _dropped: oneshot::Sender<Infallible>,
}

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    impl LongPolls {
        fn place(&self) -> Option<Arc<Lane>> {
            match self.room() {
                Room::Here(lane) => Some(lane),
                Room::Later | Room::Nowhere => None,
            }
        }

        /// As many as find a place at once.
        fn places(&self) -> Vec<Arc<Lane>> {
            std::iter::from_fn(|| self.place()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_is_filled_until_it_is_known_how_many_streams_there_are() {
        let (polls, streams) = (LongPolls::default(), Streams::default());
        let first = polls.places();
        assert_eq!((first.len(), polls.lanes()), (100, 1));
        assert!(matches!(polls.room(), Room::Later));
        for _ in &first {
            assert!(matches!(polls.room(), Room::Later));
            polls.note_open(&streams);
        }
        let others = polls.places();
        assert_eq!((others.len(), polls.lanes()), (255 * 100, 256));
        assert!(matches!(polls.room(), Room::Nowhere));
        // A place that is left is taken before there are more lanes, and they may come back.
        for lane in &others {
            polls.leave(lane, false);
        }
        assert_eq!(polls.lanes(), 256);
        polls.leave(&first[0], true);
        assert!(Arc::ptr_eq(&polls.place().unwrap(), &first[0]));
        tokio::time::advance(IDLE_LANE).await;
        polls.leave(&first[0], true);
        assert_eq!(polls.lanes(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_allows_few_streams_has_more_connections() {
        let (polls, streams) = (LongPolls::default(), Streams::default());
        let first = polls.places();
        for _ in 0..3 {
            polls.note_open(&streams);
        }
        assert!(matches!(polls.room(), Room::Later));
        assert!(!polls.is_narrow());
        assert!(polls.note_full(3) && !polls.note_full(3));
        assert!(polls.is_narrow());
        for lane in &first[3..] {
            polls.leave(lane, false);
        }
        let others = polls.places();
        assert_eq!((others.len(), polls.lanes()), (255 * 3, 256));
        // Nor is it more because there were more once.
        for _ in 0..PER_LANE {
            polls.note_open(&streams);
        }
        assert!(polls.is_narrow());
        tokio::time::advance(KNOWN_FOR).await;
        assert!(!polls.is_narrow());
        // None at all is what a connection says that ended meanwhile.
        polls.note_full(0);
        polls.leave(&others[0], true);
        polls.leave(&others[1], true);
        polls.leave(&others[2], true);
        assert!(polls.place().is_some() && polls.place().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_full_when_no_more_streams_open() {
        let (polls, streams) = (LongPolls::default(), Streams::default());
        let _places = polls.places();
        let started = Instant::now();
        let mut full = std::pin::pin!(streams.full());
        // It is being made.
        let waited = tokio::time::timeout(TICK * 40, &mut full).await;
        assert!(waited.is_err());
        polls.note_open(&streams);
        assert_eq!(full.await, 1);
        assert_eq!(started.elapsed(), TICK * (40 + 1 + QUIET_TICKS));
        // As long as others get theirs, one waits for its turn, but not for ever.
        let mut full = std::pin::pin!(streams.full());
        for ticks in 1..TICKS {
            let waited = tokio::time::timeout(TICK, &mut full).await;
            assert!(waited.is_err(), "{ticks}");
            polls.note_open(&streams);
        }
        assert_eq!(full.await, TICKS);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_open_one_after_the_other_until_there_are_known_to_be_enough() {
        let (polls, streams) = (LongPolls::default(), Streams::default());
        let _places = polls.places();
        let started = Instant::now();
        let first = polls.turn(&streams).await.unwrap();
        // It takes that long to connect.
        tokio::time::advance(TURN * 5).await;
        polls.note_open(&streams);
        let ((), second) = tokio::join!(first.end(), polls.turn(&streams));
        assert_eq!(started.elapsed(), TURN * 10);
        polls.note_open(&streams);
        let ((), third) = tokio::join!(second.unwrap().end(), polls.turn(&streams));
        assert_eq!(started.elapsed(), TURN * 11);
        // It finds no room, and the others need not find out.
        let mut fourth = std::pin::pin!(polls.turn(&streams));
        assert!((&mut fourth).now_or_never().is_none());
        polls.note_full(2);
        drop(third);
        assert!(fourth.await.is_none());
        assert_eq!(started.elapsed(), TURN * 11);

        let streams = Streams::default();
        polls.state.lock().width = Some((PER_LANE, Instant::now() + KNOWN_FOR));
        let (one, two) = (polls.turn(&streams).await, polls.turn(&streams).await);
        assert!(one.unwrap().permit.is_none() && two.unwrap().permit.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_turn_go_when_there_is_no_connection() {
        let (polls, streams) = (LongPolls::default(), Streams::default());
        let lane = polls.place().unwrap();
        polls.note_full(3);
        let first = polls.turn(&streams).await.unwrap();
        let mut second = std::pin::pin!(polls.turn(&streams));
        assert!((&mut second).now_or_never().is_none());
        polls.give_up(&lane, &streams);
        drop(first);
        assert!(second.await.is_none());
        assert!(!polls.is_narrow());
        polls.leave(&lane, false);
        assert!(!Arc::ptr_eq(&polls.place().unwrap(), &lane));
        assert_eq!(polls.lanes(), 1);
    }

    #[tokio::test]
    async fn the_body_of_a_request_tells_when_it_is_dropped() {
        let (body, mut opened) = body();
        assert!(opened.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let body = Body::is_end_stream(&body).then_some(body).unwrap();
        assert_eq!(Body::size_hint(&body).exact(), Some(0));
        drop(body);
        assert!(opened.await.is_err());
    }
}
