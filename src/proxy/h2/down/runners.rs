//! Tasks that do one job after the other: to make a task for each stream of a client costs a tenth of its request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Most tasks that wait for a job, some KiB each.
pub const IDLE_MAX: usize = 128;

/// The tasks of one worker.
pub struct Runners<J> {
    idle: RefCell<Vec<Rc<Runner<J>>>>,
}

/// A task.
struct Runner<J> {
    /// What it does next.
    job: Cell<Option<J>>,
    /// Wakes it while it waits for that.
    waker: Cell<Option<Waker>>,
}

// === impl Runners ===

impl<J> Default for Runners<J> {
    fn default() -> Self {
        Self { idle: RefCell::default() }
    }
}

impl<J: 'static> Runners<J> {
    /// Does `job` in a task of its own, `work`, the same for every job.
    pub fn begin(self: &Rc<Self>, job: J, work: impl AsyncFn(J) + 'static) {
        if let Some(runner) = self.idle.borrow_mut().pop() {
            return runner.begin(job);
        }
        let runner = Rc::new(Runner { job: Cell::new(Some(job)), waker: Cell::default() });
        tokio::task::spawn_local(runner.run(Rc::clone(self), work));
    }

    /// Whether there is room for one more that waits.
    fn keep(&self, runner: &Rc<Runner<J>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let room = idle.len() < IDLE_MAX;
        if room {
            idle.push(Rc::clone(runner));
        }
        room
    }
}

// === impl Runner ===

impl<J> Runner<J> {
    fn begin(&self, job: J) {
        self.job.set(Some(job));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn run(self: Rc<Self>, runners: Rc<Runners<J>>, work: impl AsyncFn(J))
    where
        J: 'static,
    {
        loop {
            let job = poll_fn(|cx| {
                let job = self.job.take();
                if job.is_none() {
                    self.waker.set(Some(cx.waker().clone()));
                }
                job.map_or(Poll::Pending, Poll::Ready)
            });
            work(job.await).await;
            if !runners.keep(&self) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    /// Lets everything else run for a while.
    async fn settle() {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn jobs_are_done_by_as_few_tasks_as_there_are_jobs_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (runners, made) = (Rc::new(Runners::default()), Rc::new(Cell::new(0)));
            let done = Rc::new(RefCell::new(Vec::new()));
            let begin = |job: usize| {
                let (done, mine) = (Rc::clone(&done), Cell::new(None));
                let made = Rc::clone(&made);
                runners.begin(job, async move |job| {
                    if mine.get().is_none() {
                        mine.set(Some(made.replace(made.get() + 1)));
                    }
                    tokio::task::yield_now().await;
                    done.borrow_mut().push(job);
                });
            };
            for round in 0..10 {
                begin(2 * round);
                begin(2 * round + 1);
                settle().await;
            }
            assert_eq!((made.get(), done.borrow().len()), (2, 20));
            (0..2 * IDLE_MAX).for_each(begin);
            settle().await;
            assert_eq!((made.get(), done.borrow().len()), (2 * IDLE_MAX, 20 + 2 * IDLE_MAX));
            assert_eq!(runners.idle.borrow().len(), IDLE_MAX, "as many are kept");
            let mut done = done.take();
            done.sort_unstable();
            done.dedup();
            assert_eq!(done.len(), 2 * IDLE_MAX);
        });
    }

    #[test]
    fn a_job_that_panics_takes_its_task_with_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let runners = Rc::new(Runners::default());
            let done = Rc::new(Cell::new(0));
            for job in 0..4 {
                let done = Rc::clone(&done);
                runners.begin(job, async move |job| {
                    assert_ne!(job, 1, "on purpose");
                    done.set(done.get() + 1);
                });
                settle().await;
            }
            assert_eq!((done.get(), runners.idle.borrow().len()), (3, 1));
        });
    }
}
