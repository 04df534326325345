use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Shared;
use super::queue::Next;

/// The stack of a thread. Memory is only taken where a policy's recursion reaches.
const STACK: usize = 64 << 20;

/// Where a pool's threads come from.
#[derive(Clone)]
pub enum Spawn {
    /// Threads of the pool's own, with a stack of 64 MiB, kept while the pool lives.
    Threads,
    /// The blocking threads of a Tokio runtime, given back as soon as no job waits. For tests
    /// under paused time: Tokio's clock stands still while such a thread works.
    Blocking(tokio::runtime::Handle),
}

impl Spawn {
    pub(super) fn worker(&self, shared: &Arc<Shared>) {
        let worker = Arc::clone(shared);
        match self {
            Self::Threads => {
                let thread = std::thread::Builder::new()
                    .name("opa-eval".into())
                    .stack_size(STACK)
                    .spawn(move || work(&worker, true));
                if let Err(error) = thread {
                    // The jobs stay queued: another worker takes them, or their deadline ends them.
                    shared.queue.lock().end_worker();
                    tracing::error!(%error, "no thread for evaluations could be started");
                }
            }
            Self::Blocking(runtime) => {
                runtime.spawn_blocking(move || work(&worker, false));
            }
        }
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Blocking(_) => "Blocking",
        })
    }
}

/// A worker's life: runs jobs until the pool closes, its thread was replaced, or (unless it stays)
/// nothing waits.
fn work(shared: &Shared, stays: bool) {
    let mut queue = shared.queue.lock();
    loop {
        match queue.next() {
            Next::Run(ticket, job) => {
                drop(queue);
                // The job reports a panic to whoever waits for it; here only the thread is saved.
                let contained = catch_unwind(AssertUnwindSafe(job));
                queue = shared.queue.lock();
                if contained.is_err() {
                    tracing::error!("a panic ended an evaluation");
                }
                let replaced = queue.done(ticket);
                if queue.load().0 > 0 {
                    // The app may have been at its share: its next job is for an idle thread.
                    shared.work.notify_one();
                }
                if replaced {
                    break;
                }
            }
            Next::Wait if stays => {
                queue.sleep();
                shared.work.wait(&mut queue);
                queue.wake();
            }
            Next::Wait | Next::End => break,
        }
    }
    queue.end_worker();
}
