use std::collections::{HashMap, HashSet, VecDeque};

use super::{PoolConfig, PoolFull};

/// Whose job it is: one number for each instance of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey(pub u64);

/// A job in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    app: PoolKey,
    id: u64,
}

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The jobs that wait, and who runs.
pub(super) struct Queue {
    apps: HashMap<PoolKey, App>,
    /// The apps that have a job waiting, the next one to be served in front.
    turn: VecDeque<PoolKey>,
    waiting: usize,
    workers: usize,
    idle: usize,
    stuck: HashSet<Ticket>,
    running: HashSet<Ticket>,
    next_id: u64,
    closed: bool,
    threads: usize,
    reserve: usize,
    max_per_app: usize,
    max_waiting: usize,
    max_waiting_per_app: usize,
    max_stuck: usize,
}

#[derive(Default)]
struct App {
    waiting: VecDeque<(u64, Job)>,
    running: usize,
}

/// What a worker does next.
pub(super) enum Next {
    Run(Ticket, Job),
    Wait,
    End,
}

impl Queue {
    pub(super) fn new(config: &PoolConfig) -> Self {
        Self {
            apps: HashMap::new(),
            turn: VecDeque::new(),
            waiting: 0,
            workers: 0,
            idle: 0,
            stuck: HashSet::new(),
            running: HashSet::new(),
            next_id: 0,
            closed: false,
            threads: config.threads,
            reserve: config.reserve,
            max_per_app: config.per_app,
            max_waiting: config.queued,
            max_waiting_per_app: config.queued_per_app,
            max_stuck: config.replacements,
        }
    }

    /// Queues a job; the flag says that a worker must be started for it.
    pub(super) fn push(&mut self, key: PoolKey, job: Job) -> Result<(Ticket, bool), PoolFull> {
        let of_app = self.apps.get(&key).map_or(0, |app| app.waiting.len());
        if self.closed || self.waiting >= self.max_waiting || of_app >= self.max_waiting_per_app {
            return Err(PoolFull);
        }
        let app = self.apps.entry(key).or_default();
        let id = self.next_id;
        self.next_id += 1;
        if app.waiting.is_empty() {
            self.turn.push_back(key);
        }
        app.waiting.push_back((id, job));
        self.waiting += 1;
        Ok((Ticket { app: key, id }, self.start_worker()))
    }

    /// Counts a worker to be started, if work waits that no idle worker will take.
    pub(super) fn start_worker(&mut self) -> bool {
        let start = !self.closed && self.waiting > self.idle && self.workers < self.max_workers();
        self.workers += usize::from(start);
        start
    }

    fn max_workers(&self) -> usize {
        self.threads + self.reserve + self.stuck.len()
    }

    /// The next job, in turn, of an app that has a thread left.
    pub(super) fn next(&mut self) -> Next {
        if self.closed || self.workers > self.max_workers() {
            return Next::End;
        }
        let busy = self.running.len() - self.stuck.len();
        if busy >= self.threads + self.reserve {
            return Next::Wait;
        }
        for _ in 0..self.turn.len() {
            let Some(key) = self.turn.pop_front() else {
                break;
            };
            let Some(app) = self.apps.get_mut(&key) else {
                continue;
            };
            let max = if busy < self.threads {
                self.max_per_app
            } else {
                1
            };
            if app.running >= max {
                self.turn.push_back(key);
                continue;
            }
            let Some((id, job)) = app.waiting.pop_front() else {
                continue;
            };
            app.running += 1;
            self.waiting -= 1;
            if !app.waiting.is_empty() {
                self.turn.push_back(key);
            }
            let ticket = Ticket { app: key, id };
            self.running.insert(ticket);
            return Next::Run(ticket, job);
        }
        Next::Wait
    }

    /// A job has ended. The flag says that its thread was replaced and must end.
    pub(super) fn done(&mut self, ticket: Ticket) -> bool {
        self.running.remove(&ticket);
        if let Some(app) = self.apps.get_mut(&ticket.app) {
            app.running -= 1;
            if app.running == 0 && app.waiting.is_empty() {
                self.apps.remove(&ticket.app);
            }
        }
        self.stuck.remove(&ticket)
    }

    pub(super) fn sleep(&mut self) {
        self.idle += 1;
    }

    pub(super) fn wake(&mut self) {
        self.idle -= 1;
    }

    pub(super) fn end_worker(&mut self) {
        self.workers -= 1;
    }

    /// Takes a waiting job back, to be dropped without the lock.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Job> {
        let app = self.apps.get_mut(&ticket.app)?;
        let at = app.waiting.iter().position(|(id, _)| *id == ticket.id)?;
        let (_, job) = app.waiting.remove(at)?;
        self.waiting -= 1;
        if app.waiting.is_empty() {
            let running = app.running;
            self.turn.retain(|key| *key != ticket.app);
            if running == 0 {
                self.apps.remove(&ticket.app);
            }
        }
        Some(job)
    }

    /// Counts the job's thread as stuck; the flag says that there is room for another one.
    pub(super) fn replace(&mut self, ticket: Ticket) -> bool {
        if !self.running.contains(&ticket) || self.stuck.len() >= self.max_stuck {
            return false;
        }
        self.stuck.insert(ticket)
    }

    pub(super) fn load(&self) -> (usize, usize) {
        (self.waiting, self.running.len())
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle
    }

    /// Takes no more jobs. Answers those that waited, to be dropped without the lock.
    pub(super) fn close(&mut self) -> Vec<Job> {
        self.closed = true;
        self.turn.clear();
        self.waiting = 0;
        let waiting = self.apps.values_mut().flat_map(|app| app.waiting.drain(..));
        waiting.map(|(_, job)| job).collect()
    }
}
