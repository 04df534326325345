//! Threads for evaluations that don't run inline, fair by app.
//!
//! Each app has its own queue and the queues are served in turn; one app has at most half of the
//! threads. An app that has nothing running need not wait for those that have: for its one job there
//! are as many threads again in reserve, so that a few apps whose policies run long can't keep the
//! others waiting. A thread that is stuck past its decision's deadline, inside a built-in that can't be
//! interrupted, is replaced, up to a bound; until it comes back it counts against its app.
//!
//! ```
//! use opa_core::engine::pool::{Pool, PoolConfig, PoolKey};
//!
//! let pool = Pool::new(PoolConfig::threads(2));
//! let (send, receive) = std::sync::mpsc::channel();
//! pool.submit(PoolKey(7), move || { let _ = send.send(42); })?;
//! assert_eq!(receive.recv()?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod queue;
mod threads;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use self::queue::Queue;
pub use self::queue::{PoolKey, Ticket};
pub use self::threads::Spawn;

/// How large a [`Pool`] is.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    threads: usize,
    reserve: usize,
    per_app: usize,
    queued: usize,
    queued_per_app: usize,
    replacements: usize,
    spawn: Spawn,
}

impl PoolConfig {
    /// A pool of `threads` threads, at least two, and as many in reserve. One app runs on at most half of them at a time
    /// and has at most 1,024 jobs waiting, all apps together 16,384; at most `threads` stuck
    /// threads are replaced.
    #[must_use]
    pub fn threads(threads: usize) -> Self {
        let threads = threads.max(2);
        Self {
            threads,
            reserve: threads,
            per_app: threads / 2,
            queued: 16_384,
            queued_per_app: 1_024,
            replacements: threads,
            spawn: Spawn::Threads,
        }
    }

    /// How many more threads there are for apps that have nothing running.
    #[must_use]
    pub fn reserve(mut self, threads: usize) -> Self {
        self.reserve = threads;
        self
    }

    /// How many jobs may wait, of one app and in total.
    #[must_use]
    pub fn queued(mut self, per_app: usize, total: usize) -> Self {
        self.queued_per_app = per_app;
        self.queued = total;
        self
    }

    /// Where the threads come from. Default: [`Spawn::Threads`].
    #[must_use]
    pub fn spawn(mut self, spawn: Spawn) -> Self {
        self.spawn = spawn;
        self
    }
}

/// Threads that run evaluations. Dropping the pool ends its idle threads; busy ones end with their
/// job.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: PoolConfig,
    queue: Mutex<Queue>,
    work: Condvar,
}

impl Pool {
    /// A pool without threads; they are started when there is work.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        let queue = Queue::new(&config);
        Self {
            shared: Arc::new(Shared {
                config,
                queue: Mutex::new(queue),
                work: Condvar::new(),
            }),
        }
    }

    /// Queues `job` for `app`. A panic of the job is contained.
    ///
    /// # Errors
    /// [`PoolFull`] when the app or the pool has too many jobs waiting.
    pub fn submit(
        &self,
        app: PoolKey,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<Ticket, PoolFull> {
        let (ticket, start) = self.shared.queue.lock().push(app, Box::new(job))?;
        if start {
            self.shared.config.spawn.worker(&self.shared);
        } else {
            self.shared.work.notify_one();
        }
        Ok(ticket)
    }

    /// Gives up on a job whose deadline has passed or whose caller is gone.
    ///
    /// A job that waits is removed, and the answer is `true`. A job that runs is left alone, but
    /// its thread is replaced when `replace` says that it is stuck.
    pub fn abandon(&self, ticket: Ticket, replace: bool) -> bool {
        let mut queue = self.shared.queue.lock();
        let removed = queue.remove(ticket);
        let replaced = removed.is_none() && replace && queue.replace(ticket);
        let start = replaced && queue.start_worker();
        // What a job holds is dropped without the lock: it can be large, and wakes who waits.
        drop(queue);
        if start {
            self.shared.config.spawn.worker(&self.shared);
        } else if replaced {
            // One thread less counts as busy: an idle one may now take what waits for its share.
            self.shared.work.notify_one();
        }
        removed.is_some()
    }

    /// Ends the pool: what waits is dropped, what runs goes on to its end.
    pub fn close(&self) {
        let waiting = self.shared.queue.lock().close();
        self.shared.work.notify_all();
        drop(waiting);
    }

    /// How many jobs wait and how many run.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        self.shared.queue.lock().load()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// No more jobs may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFull;

impl fmt::Display for PoolFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many evaluations are waiting for a thread")
    }
}

impl std::error::Error for PoolFull {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn release(gates: Vec<mpsc::Sender<()>>) {
        for gate in gates {
            gate.send(()).unwrap();
        }
    }

    /// Fills the pool's threads with jobs of `app` that wait for their gate.
    fn block(pool: &Pool, app: u64, jobs: usize) -> (Vec<mpsc::Sender<()>>, Vec<Ticket>) {
        (0..jobs)
            .map(|_| {
                let (gate, closed) = mpsc::channel::<()>();
                let job = move || closed.recv().unwrap_or_default();
                (gate, pool.submit(PoolKey(app), job).unwrap())
            })
            .unzip()
    }

    fn wait_until(pool: &Pool, running: usize) {
        while pool.load().1 != running {
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_app_has_at_most_half_of_the_threads() {
        let pool = Pool::new(PoolConfig::threads(4));
        let (gates, _) = block(&pool, 1, 10);
        wait_until(&pool, 2);
        assert_eq!(pool.load(), (8, 2));
        let (send, receive) = mpsc::channel();
        pool.submit(PoolKey(2), move || send.send("other app").unwrap())
            .unwrap();
        assert_eq!(receive.recv().unwrap(), "other app");
        release(gates);
        wait_until(&pool, 0);
    }

    #[test]
    fn an_app_with_nothing_running_does_not_wait_for_those_that_have() {
        let pool = Pool::new(PoolConfig::threads(4).reserve(2));
        let (gates_of_1, _) = block(&pool, 1, 10);
        let (gates_of_2, _) = block(&pool, 2, 10);
        wait_until(&pool, 4);
        assert_eq!(pool.load(), (16, 4));
        let (gates_of_3, _) = block(&pool, 3, 2);
        let (gates_of_4, _) = block(&pool, 4, 1);
        wait_until(&pool, 6);
        assert_eq!(pool.load(), (17, 6), "one job each, from the reserve");
        let (gates_of_5, _) = block(&pool, 5, 1);
        assert_eq!(pool.load(), (18, 6), "the reserve is in use");
        for gates in [gates_of_1, gates_of_2, gates_of_3, gates_of_4, gates_of_5] {
            release(gates);
        }
        wait_until(&pool, 0);
    }

    #[test]
    fn apps_are_served_in_turn() {
        let pool = Pool::new(PoolConfig::threads(2).reserve(0));
        let (gates_of_1, _) = block(&pool, 1, 1);
        let (gates_of_2, _) = block(&pool, 2, 1);
        wait_until(&pool, 2);
        let (send, receive) = mpsc::channel();
        for (app, name) in [(1, "1a"), (1, "1b"), (1, "1c"), (3, "3a"), (4, "4a")] {
            let send = send.clone();
            pool.submit(PoolKey(app), move || send.send(name).unwrap())
                .unwrap();
        }
        release(gates_of_1);
        let order: Vec<_> = (0..5).map(|_| receive.recv().unwrap()).collect();
        assert_eq!(order, ["1a", "3a", "4a", "1b", "1c"]);
        release(gates_of_2);
    }

    #[test]
    fn waiting_jobs_are_bounded_by_app_and_in_total() {
        let pool = Pool::new(PoolConfig::threads(2).reserve(0).queued(2, 3));
        let (gates_of_1, _) = block(&pool, 1, 1);
        let (gates_of_2, _) = block(&pool, 2, 1);
        wait_until(&pool, 2);
        assert!(pool.submit(PoolKey(1), || ()).is_ok());
        assert!(pool.submit(PoolKey(1), || ()).is_ok());
        assert_eq!(pool.submit(PoolKey(1), || ()).unwrap_err(), PoolFull);
        assert!(pool.submit(PoolKey(3), || ()).is_ok());
        assert_eq!(pool.submit(PoolKey(4), || ()).unwrap_err(), PoolFull);
        release(gates_of_1);
        release(gates_of_2);
        wait_until(&pool, 0);
    }

    #[test]
    fn a_waiting_job_can_be_taken_back() {
        let pool = Pool::new(PoolConfig::threads(2).reserve(0));
        let (gates, _) = block(&pool, 1, 1);
        wait_until(&pool, 1);
        let (send, receive) = mpsc::channel();
        let ticket = pool
            .submit(PoolKey(1), move || send.send(()).unwrap())
            .unwrap();
        assert!(pool.abandon(ticket, true));
        assert_eq!(pool.load(), (0, 1));
        release(gates);
        assert!(receive.recv().is_err(), "the job was dropped, not run");
    }

    #[test]
    fn a_stuck_thread_is_replaced_up_to_the_bound_and_counts_against_its_app() {
        let pool = Pool::new(PoolConfig::threads(2).reserve(0));
        let (gates_of_1, tickets) = block(&pool, 1, 1);
        let (gates_of_2, other) = block(&pool, 2, 1);
        wait_until(&pool, 2);
        // Both threads are stuck: each is replaced once, whatever is asked.
        for ticket in tickets.iter().chain(&other).chain(&tickets) {
            assert!(!pool.abandon(*ticket, true));
        }
        let (send, receive) = mpsc::channel();
        pool.submit(PoolKey(3), move || send.send(()).unwrap())
            .unwrap();
        receive.recv().unwrap();
        // The first app still has its share in use.
        pool.submit(PoolKey(1), || ()).unwrap();
        wait_until(&pool, 2);
        assert_eq!(pool.load().0, 1);
        // What replaced the two threads is stuck too: no more replacements.
        let (gates_of_4, tickets_of_4) = block(&pool, 4, 1);
        let (gates_of_5, tickets_of_5) = block(&pool, 5, 1);
        wait_until(&pool, 4);
        for ticket in tickets_of_4.into_iter().chain(tickets_of_5) {
            assert!(!pool.abandon(ticket, true));
        }
        pool.submit(PoolKey(6), || ()).unwrap();
        assert_eq!(pool.load(), (2, 4));
        for gates in [gates_of_1, gates_of_2, gates_of_4, gates_of_5] {
            release(gates);
        }
        wait_until(&pool, 0);
    }

    #[test]
    fn a_job_that_waits_for_its_share_runs_when_a_stuck_thread_makes_room() {
        let pool = Pool::new(PoolConfig::threads(4).reserve(2));
        let (gates_of_1, stuck) = block(&pool, 1, 2);
        wait_until(&pool, 2);
        let (gates_of_2, _) = block(&pool, 2, 1);
        let (gates_of_3, _) = block(&pool, 3, 1);
        wait_until(&pool, 4);
        let (gates_of_4, _) = block(&pool, 4, 1);
        wait_until(&pool, 5);
        let (send, receive) = mpsc::channel();
        // All regular threads are busy and the app has one from the reserve: its second job waits.
        let waits = move || send.send(()).unwrap();
        pool.submit(PoolKey(4), waits).unwrap();
        while pool.shared.queue.lock().idle() == 0 {
            std::thread::yield_now();
        }
        for ticket in stuck {
            assert!(!pool.abandon(ticket, true));
        }
        receive
            .recv_timeout(std::time::Duration::from_secs(60))
            .unwrap();
        for gates in [gates_of_1, gates_of_2, gates_of_3, gates_of_4] {
            release(gates);
        }
        wait_until(&pool, 0);
    }

    #[test]
    fn what_a_job_holds_is_dropped_without_the_lock() {
        struct Held(Arc<Pool>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.load();
            }
        }
        let pool = Arc::new(Pool::new(PoolConfig::threads(2).reserve(0)));
        let (gates, _) = block(&pool, 1, 1);
        wait_until(&pool, 1);
        let job = |pool: &Arc<Pool>| {
            let held = Held(Arc::clone(pool));
            pool.submit(PoolKey(1), move || drop(held)).unwrap()
        };
        assert!(pool.abandon(job(&pool), false));
        let _ = job(&pool);
        pool.close();
        assert_eq!(pool.load(), (0, 1));
        release(gates);
        wait_until(&pool, 0);
    }

    #[test]
    fn a_panic_does_not_cost_a_thread() {
        let pool = Pool::new(PoolConfig::threads(2).reserve(0));
        for _ in 0..8 {
            pool.submit(PoolKey(1), || std::panic::resume_unwind(Box::new("policy")))
                .unwrap();
        }
        let (send, receive) = mpsc::channel();
        pool.submit(PoolKey(1), move || send.send(()).unwrap())
            .unwrap();
        receive.recv().unwrap();
        wait_until(&pool, 0);
    }
}
