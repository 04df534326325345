use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;

use super::*;
use crate::config::testing::config;
use crate::manager::slots::Total;
use crate::manager::tests::{Counting, bundle};

const MIN: Duration = Duration::from_secs(10);

struct Fixture {
    downloads: Downloads,
    source: Counting,
    slots: Slots,
}

impl Fixture {
    fn new() -> Self {
        Self {
            downloads: Downloads::default(),
            source: Counting::new(bundle("1")),
            slots: Slots::of_service(&Total::new()),
        }
    }

    fn key(&self, resource: &str) -> Key {
        let config = config("services: {a: {url: 'http://a.test'}}");
        Key {
            service: self.downloads.interned(&config.services[0]),
            resource: resource.to_owned(),
            polling: crate::config::PollingConfig {
                min_delay: MIN,
                max_delay: MIN * 2,
                long_polling_timeout: None,
            },
            limit: 1 << 20,
        }
    }

    fn member(&self) -> Arc<Member> {
        let source = Arc::new(self.source.clone());
        self.downloads
            .join(self.key("b"), source, self.slots.clone(), false)
    }
}

fn question(etag: Option<&Arc<str>>, wait: u64) -> Fetch {
    Fetch {
        etag: etag.cloned(),
        wait: (wait > 0).then(|| Duration::from_secs(wait)),
        ..Fetch::default()
    }
}

/// The bytes, and the etag.
async fn news(answer: Result<SourceAnswer, SourceError>) -> (Vec<u8>, Arc<str>) {
    let answer = answer.unwrap();
    let Content::Snapshot(body) = answer.content else {
        panic!("{:?}", answer.content)
    };
    (
        body.read(1 << 20).await.unwrap().to_vec(),
        answer.etag.unwrap(),
    )
}

fn is_not_modified(answer: &Result<SourceAnswer, SourceError>) -> bool {
    matches!(answer, Ok(answer) if matches!(answer.content, Content::NotModified))
}

#[tokio::test(start_paused = true)]
async fn equal_questions_at_the_same_time_are_one() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.member(), fixture.member());
    let (first, second) = tokio::join!(one.fetch(question(None, 5)), two.fetch(question(None, 5)),);
    let (bytes, etag) = news(first).await;
    assert_eq!(bytes, bundle("1"));
    assert_eq!(news(second).await.0, bundle("1"));
    assert_eq!((fixture.source.asked(), fixture.source.downloads()), (1, 1));

    // So are those that wait for news, and news are for both.
    let waiting = tokio::spawn(async move {
        let question = question(Some(&etag), 1000);
        tokio::join!(one.fetch(question.clone()), two.fetch(question))
    });
    tokio::time::sleep(MIN * 3).await;
    assert_eq!((fixture.source.asked(), fixture.source.under_way()), (2, 1));
    fixture.source.replace(bundle("2"));
    let (first, second) = waiting.await.unwrap();
    assert_eq!(news(first).await.0, bundle("2"));
    assert_eq!(news(second).await.0, bundle("2"));
    assert_eq!(fixture.source.downloads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_question_goes_on_as_long_as_anybody_waits_for_it() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.member(), fixture.member());
    let (_, etag) = news(one.fetch(question(None, 0)).await).await;
    news(two.fetch(question(None, 0)).await).await;
    assert_eq!(fixture.source.asked(), 1, "the second was told");
    let leader = {
        let (one, question) = (Arc::clone(&one), question(Some(&etag), 1000));
        tokio::spawn(async move { one.fetch(question).await })
    };
    tokio::task::yield_now().await;
    let follower = {
        let (two, question) = (Arc::clone(&two), question(Some(&etag), 1000));
        tokio::spawn(async move { two.fetch(question).await })
    };
    tokio::task::yield_now().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    drop(one);
    assert_eq!(fixture.source.under_way(), 1);
    fixture.source.replace(bundle("2"));
    let (bytes, etag) = news(follower.await.unwrap()).await;
    assert_eq!(bytes, bundle("2"));
    assert_eq!(fixture.source.asked(), 2);

    let mut last = two.fetch(question(Some(&etag), 1000));
    assert!((&mut last).now_or_never().is_none());
    assert_eq!(fixture.source.under_way(), 1);
    drop(last);
    assert_eq!(fixture.source.under_way(), 0, "it was taken back");
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_the_others_for_the_shortest_interval() {
    let fixture = Fixture::new();
    let members: Vec<_> = (0..1000).map(|_| fixture.member()).collect();
    let mut known = None;
    for member in &members {
        known = Some(news(member.fetch(question(None, 0)).await).await.1);
    }
    assert_eq!((fixture.source.asked(), fixture.source.downloads()), (1, 1));
    let known = known.as_ref();
    for member in &members {
        assert!(is_not_modified(&member.fetch(question(known, 0)).await));
    }
    assert_eq!(fixture.source.asked(), 1);
    tokio::time::sleep(MIN).await;
    for member in &members {
        assert!(is_not_modified(&member.fetch(question(known, 0)).await));
    }
    assert_eq!(fixture.source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn news_are_announced_and_kept_until_all_have_them() {
    let fixture = Fixture::new();
    let members: Vec<_> = (0..3).map(|_| fixture.member()).collect();
    let mut known = None;
    for member in &members {
        known = Some(news(member.fetch(question(None, 0)).await).await.1);
    }
    let number = members[0].download();
    let is_kept = || members[0].download.state.lock().kept.is_some();
    assert_eq!(fixture.downloads.take_hurried().len(), 1);
    assert!(!is_kept(), "all have it");
    tokio::time::sleep(MIN).await;
    fixture.source.replace(bundle("2"));
    news(members[0].fetch(question(known.as_ref(), 0)).await).await;
    assert_eq!(fixture.downloads.take_hurried(), [number].into());
    assert!(members[1].is_behind() && !members[0].is_behind());
    assert!(is_kept());
    news(members[1].fetch(question(known.as_ref(), 0)).await).await;
    assert!(is_kept());
    // The third one goes without it.
    let mut members = members;
    drop(members.pop());
    assert!(members[0].download.state.lock().kept.is_none());
    assert_eq!(fixture.source.downloads(), 2);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_nobody_comes_for_are_freed() {
    let fixture = Fixture::new();
    let (one, _other) = (fixture.member(), fixture.member());
    news(one.fetch(question(None, 0)).await).await;
    assert!(one.download.state.lock().kept.is_some());
    let purge = fixture.downloads.next_purge().unwrap();
    assert_eq!(purge, Instant::now() + MIN);
    tokio::time::sleep_until(purge).await;
    fixture.downloads.purge(Instant::now());
    assert!(one.download.state.lock().kept.is_none());
    assert_eq!(fixture.downloads.next_purge(), None);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_can_not_use_the_bundle_does_not_download_it_again_and_again() {
    let fixture = Fixture::new();
    let (fails, other) = (fixture.member(), fixture.member());
    let (_, known) = news(other.fetch(question(None, 0)).await).await;
    for _ in 0..20 {
        news(fails.fetch(question(None, 0)).await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What all had was freed; from then on it is known that somebody comes again.
    assert_eq!(fixture.source.downloads(), 2);
    assert!(is_not_modified(
        &other.fetch(question(Some(&known), 0)).await
    ));
    assert!(!other.is_behind(), "the same bundle is no news");
    fixture.downloads.take_hurried();
    news(fails.fetch(question(None, 0)).await).await;
    assert!(fixture.downloads.take_hurried().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_everybodys_with_one_schedule() {
    let fixture = Fixture::new();
    let members: Vec<_> = (0..100).map(|_| fixture.member()).collect();
    let busy = SourceError::new("busy").with_http_code(503);
    let busy = busy.with_retry_after(Some(Duration::from_secs(7)));
    fixture.source.fail(Some(busy));
    for member in &members {
        let error = member.fetch(question(None, 0)).await.unwrap_err();
        assert_eq!(error.http_code(), Some(503));
        assert!(error.retry_after() >= Some(Duration::from_secs(7)));
    }
    assert_eq!(fixture.source.asked(), 1);
    fixture.source.fail(None);
    tokio::time::sleep(Duration::from_secs(7)).await;
    for member in &members {
        news(member.fetch(question(None, 0)).await).await;
    }
    assert_eq!(fixture.source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_single_member_asks_each_time_and_nothing_is_kept() {
    let fixture = Fixture::new();
    let one = fixture.member();
    for asked in 1..4 {
        news(one.fetch(question(None, 0)).await).await;
        assert_eq!(fixture.source.asked(), asked);
        let state = one.download.state.lock();
        assert!(state.kept.is_none() && state.known.is_none());
    }
    let error = SourceError::new("down");
    fixture.source.fail(Some(error.clone()));
    for asked in 4..6 {
        assert_eq!(one.fetch(question(None, 0)).await.unwrap_err(), error);
        assert_eq!(fixture.source.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn what_all_apps_want_is_kept_for_those_that_come() {
    let fixture = Fixture::new();
    let join = || {
        fixture.downloads.note_app();
        let source = Arc::new(fixture.source.clone());
        let slots = fixture.slots.clone();
        fixture
            .downloads
            .join(fixture.key("b"), source, slots, true)
    };
    let mut members = vec![join()];
    fixture.downloads.note_app();
    news(members[0].fetch(question(None, 0)).await).await;
    for _ in 0..10 {
        members.push(join());
        news(members[members.len() - 1].fetch(question(None, 0)).await).await;
    }
    assert_eq!(fixture.source.downloads(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_equal_keys_share() {
    let fixture = Fixture::new();
    let source: Arc<dyn Source> = Arc::new(fixture.source.clone());
    let join = |key| {
        fixture
            .downloads
            .join(key, Arc::clone(&source), fixture.slots.clone(), false)
    };
    let same = [join(fixture.key("b")), join(fixture.key("b"))];
    assert_eq!(same[0].download(), same[1].download());
    let limited = Key {
        limit: 5,
        ..fixture.key("b")
    };
    for key in [fixture.key("c"), limited] {
        assert_ne!(join(key).download(), same[0].download());
    }
    drop(same);
    assert!(
        fixture
            .downloads
            .join(
                fixture.key("b"),
                Arc::clone(&source),
                fixture.slots.clone(),
                false
            )
            .download
            .state
            .lock()
            .known
            .is_none()
    );
}

/// A source without etags.
struct NoEtags(Counting, AtomicUsize);

impl Source for NoEtags {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let mut answer = self.0.fetch(request).await?;
            answer.etag = None;
            Ok(answer)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn without_etags_other_bytes_are_news() {
    let fixture = Fixture::new();
    let source = Arc::new(NoEtags(fixture.source.clone(), AtomicUsize::new(0)));
    let asked = || source.1.load(Ordering::Relaxed);
    let join = || {
        let source = Arc::clone(&source) as Arc<dyn Source>;
        let slots = fixture.slots.clone();
        fixture
            .downloads
            .join(fixture.key("b"), source, slots, false)
    };
    let members = [join(), join(), join()];
    let ask = async |at: usize| members[at].fetch(Fetch::default()).await.unwrap();
    ask(0).await;
    assert_eq!(fixture.downloads.take_hurried().len(), 1);
    ask(1).await;
    assert_eq!(asked(), 1);
    tokio::time::sleep(MIN).await;
    ask(0).await;
    assert!(
        fixture.downloads.take_hurried().is_empty(),
        "the same bytes"
    );
    fixture.source.replace(bundle("2"));
    tokio::time::sleep(MIN).await;
    ask(0).await;
    assert_eq!(asked(), 3);
    assert_eq!(fixture.downloads.take_hurried().len(), 1);
}

/// Its code is wrong.
struct Panics;

impl Source for Panics {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        panic!("the user's code is wrong")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_for_all() {
    let fixture = Fixture::new();
    let join = || {
        let slots = fixture.slots.clone();
        fixture
            .downloads
            .join(fixture.key("p"), Arc::new(Panics), slots, false)
    };
    let (one, two) = (join(), join());
    let (first, second) = tokio::join!(one.fetch(Fetch::default()), two.fetch(Fetch::default()));
    for answer in [first, second] {
        assert_eq!(answer.unwrap_err().to_string(), "a panic ended the attempt");
    }
}

/// Sends a change of the bundle `1` to those who take one, and says so or, as over HTTP, does not.
struct Changes(AtomicUsize, bool);

impl Source for Changes {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let is_change = request.deltas && request.etag.as_deref() == Some("1");
        let bytes = if is_change { "1 to 2" } else { "2" };
        let mut answer = SourceAnswer::snapshot(bytes.as_bytes().to_vec().into(), Some("2".into()));
        if is_change && self.1 {
            answer.content = Content::Delta(bytes.as_bytes().to_vec().into());
        }
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_for_those_only_who_take_one_and_have_what_it_changes() {
    for (told, deltas, etag) in [
        (true, false, Some("1")),
        (true, true, Some("0")),
        (true, true, None),
        (false, false, Some("1")),
        (false, true, Some("0")),
        (false, true, None),
    ] {
        let fixture = Fixture::new();
        let source = Arc::new(Changes(AtomicUsize::new(0), told));
        let join = || {
            let source = Arc::clone(&source) as Arc<dyn Source>;
            let slots = fixture.slots.clone();
            fixture
                .downloads
                .join(fixture.key("b"), source, slots, false)
        };
        let members = [join(), join(), join(), join()];
        let ask = async |at: usize, deltas, etag: Option<&str>| {
            let question = Fetch {
                deltas,
                ..question(etag.map(Arc::from).as_ref(), 0)
            };
            let answer = members[at].fetch(question).await.unwrap();
            let (Content::Snapshot(body) | Content::Delta(body)) = answer.content else {
                panic!("{:?}", answer.content)
            };
            body.read(100).await.unwrap().to_vec()
        };
        assert_eq!(ask(0, true, Some("1")).await, b"1 to 2");
        assert_eq!(ask(1, true, Some("1")).await, b"1 to 2");
        assert_eq!(source.0.load(Ordering::Relaxed), 1);
        assert_eq!(ask(2, deltas, etag).await, b"2", "{told} {deltas} {etag:?}");
        // A whole bundle is for everybody.
        if etag.is_none() || !deltas {
            assert_eq!(ask(3, true, Some("1")).await, b"2");
            assert_eq!(source.0.load(Ordering::Relaxed), 2);
        }
    }
}

/// Has nothing new, under another etag each time.
struct Renames(AtomicUsize);

impl Source for Renames {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        let mut answer = SourceAnswer::not_modified();
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        answer.etag = Some(asked.to_string().into());
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test(start_paused = true)]
async fn etags_that_differ_each_time_do_not_make_members_ask_without_a_pause() {
    let fixture = Fixture::new();
    let source = Arc::new(Renames(AtomicUsize::new(0)));
    let join = || {
        let source = Arc::clone(&source) as Arc<dyn Source>;
        let slots = fixture.slots.clone();
        fixture
            .downloads
            .join(fixture.key("b"), source, slots, false)
    };
    let members = [join(), join()];
    let mut etags = [Some(Arc::from("a")), Some(Arc::from("a"))];
    let (mut at_once, minutes) = (0, 10);
    for _ in 0..minutes * 6 {
        tokio::time::sleep(MIN).await;
        for at in [0, 1] {
            let answer = members[at].fetch(question(etags[at].as_ref(), 0)).await;
            etags[at] = answer.unwrap().etag;
        }
        // Those that would be polled again at once.
        for at in [0, 1, 0, 1, 0, 1] {
            if members[at].is_behind() {
                let answer = members[at].fetch(question(etags[at].as_ref(), 0)).await;
                etags[at] = answer.unwrap().etag;
                at_once += 1;
            }
        }
    }
    let asked = source.0.load(Ordering::Relaxed);
    assert!(
        at_once <= minutes * 6 && asked <= minutes * 6 * 3,
        "{at_once}, {asked}"
    );
}

/// A server that has stopped sending etags.
struct WithoutEtags;

impl Source for WithoutEtags {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        let answer = SourceAnswer::snapshot(bundle("2").into(), None);
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_without_an_etag_is_not_named_by_that_of_the_one_before() {
    let fixture = Fixture::new();
    for shared in [false, true] {
        let source = Arc::new(WithoutEtags);
        let resource = format!("{shared}");
        let slots = fixture.slots.clone();
        let member = fixture
            .downloads
            .join(fixture.key(&resource), source, slots, shared);
        let answer = member.fetch(question(Some(&"\"1\"".into()), 0)).await;
        assert_eq!(answer.unwrap().etag, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_others_is_as_old_as_the_answer_of_the_source() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.member(), fixture.member());
    let came = Instant::now();
    let etag = news(one.fetch(question(None, 0)).await).await.1;
    tokio::time::sleep(MIN / 2).await;
    let kept = two.fetch(question(None, 0)).await.unwrap();
    assert_eq!(kept.answered, Some(came));
    let known = two.fetch(question(Some(&etag), 0)).await;
    assert!(is_not_modified(&known));
    assert_eq!(known.unwrap().answered, Some(came));
    tokio::time::sleep(MIN).await;
    let asked = two.fetch(question(Some(&etag), 0)).await.unwrap();
    assert_eq!(asked.answered, Some(Instant::now()));
}
