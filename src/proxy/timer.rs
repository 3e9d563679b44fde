//! A coarse timer per worker: a hashed wheel in which moving a deadline back is one store (Varghese & Lauck 1987, with lazy requeueing).
//!
//! Connections move their deadline at every request; almost none of them is ever reached. So an alarm stays queued where it was
//! and looks at its deadline only when its slot comes up.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock;

/// Grain of every deadline: an alarm rings at most this much late.
pub const TICK: Duration = Duration::from_millis(TICK_MS);
/// The same in milliseconds; divides a second.
const TICK_MS: u64 = 20;
/// Slots of the wheel; deadlines further away than `SLOTS * TICK` are requeued on the way.
const SLOTS: u64 = 512;
/// Alarms a slot has room for from the beginning.
const SLOT_ROOM: usize = 8;
const NEVER: u64 = u64::MAX;

/// The alarms of one worker.
#[derive(Debug)]
pub struct Timers {
    began: Instant,
    wheel: RefCell<Wheel>,
    changed: Notify,
}

/// One alarm; it is forgotten when dropped.
#[derive(Debug)]
pub struct Alarm {
    timers: Rc<Timers>,
    index: usize,
}

#[derive(Debug)]
struct Wheel {
    /// Last tick that was looked at.
    tick: u64,
    /// Tick the driver sleeps until.
    sleeping_until: u64,
    slots: Vec<Vec<usize>>,
    /// Memory for one turn of [`Wheel::advance`].
    due: Vec<Waker>,
    later: Vec<usize>,
    entries: Vec<Entry>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// Tick of the slot it is queued in; `NEVER` when it is in none.
    queued: u64,
    waker: Option<Waker>,
}

// === impl Timers ===

impl Timers {
    /// No alarms yet. [`Timers::drive`] has to run beside them.
    #[must_use]
    pub fn new(began: Instant) -> Rc<Self> {
        let wheel = Wheel {
            tick: 0,
            sleeping_until: NEVER,
            slots: (0..SLOTS).map(|_| Vec::with_capacity(SLOT_ROOM)).collect(),
            due: Vec::with_capacity(SLOT_ROOM),
            later: Vec::with_capacity(SLOT_ROOM),
            entries: Vec::new(),
            free: Vec::new(),
        };
        Rc::new(Self { began, wheel: RefCell::new(wheel), changed: Notify::new() })
    }

    /// A new alarm without a deadline.
    #[must_use]
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let index = self.wheel.borrow_mut().insert();
        Alarm { timers: Rc::clone(self), index }
    }

    /// Wakes the task of every alarm, so that each looks again at what it waits for.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self.wheel.borrow().entries.iter().filter_map(|e| e.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Rings alarms for as long as the worker lives.
    pub async fn drive(self: Rc<Self>) {
        loop {
            let next = self.wheel.borrow_mut().plan_sleep();
            let changed = self.changed.notified();
            match next {
                None => changed.await,
                Some(tick) => {
                    let until = self.began + TICK * u32::try_from(tick).unwrap_or(u32::MAX);
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        () = changed => {}
                    }
                }
            }
            self.advance(clock::now());
        }
    }

    /// Rings everything due at `now`.
    pub fn advance(&self, now: Instant) {
        let mut due = self.wheel.borrow_mut().advance(self.floor_tick(now));
        due.drain(..).for_each(Waker::wake);
        self.wheel.borrow_mut().due = due;
    }

    fn floor_tick(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        let ticks = u64::from(since.subsec_millis()) / TICK_MS;
        since.as_secs().saturating_mul(1_000 / TICK_MS).saturating_add(ticks).min(NEVER - 2)
    }
}

// === impl Alarm ===

impl Alarm {
    /// Ready when `now` has reached `deadline`; otherwise the task is woken at `deadline` (or up to a [`TICK`] later).
    pub fn poll_until(&self, cx: &Context<'_>, deadline: Option<Instant>, now: Instant) -> Poll<()> {
        let tick = match deadline {
            Some(at) if at <= now => return Poll::Ready(()),
            Some(at) => self.timers.floor_tick(at) + 1,
            None => NEVER,
        };
        let sooner = self.timers.wheel.borrow_mut().set(self.index, tick, cx.waker());
        if sooner {
            self.timers.changed.notify_one();
        }
        Poll::Pending
    }

    /// Forgets deadline and task.
    pub fn clear(&self) {
        let mut wheel = self.timers.wheel.borrow_mut();
        let entry = &mut wheel.entries[self.index];
        entry.deadline = NEVER;
        entry.waker = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
        self.timers.wheel.borrow_mut().free.push(self.index);
    }
}

// === impl Wheel ===

impl Wheel {
    fn insert(&mut self) -> usize {
        if let Some(index) = self.free.pop() {
            return index;
        }
        self.entries.push(Entry { deadline: NEVER, queued: NEVER, waker: None });
        self.entries.len() - 1
    }

    /// Moves a deadline; returns whether the driver has to wake earlier than it planned.
    fn set(&mut self, index: usize, deadline: u64, waker: &Waker) -> bool {
        let entry = &mut self.entries[index];
        entry.deadline = deadline;
        if !entry.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            entry.waker = Some(waker.clone());
        }
        if deadline >= entry.queued {
            return false;
        }
        let slot = self.queue(index);
        slot < self.sleeping_until
    }

    fn queue(&mut self, index: usize) -> u64 {
        let at = self.entries[index].deadline.max(self.tick + 1).min(self.tick + SLOTS - 1);
        self.entries[index].queued = at;
        self.slots[slot(at)].push(index);
        at
    }

    fn advance(&mut self, now: u64) -> Vec<Waker> {
        let (mut due, mut later) = (std::mem::take(&mut self.due), std::mem::take(&mut self.later));
        while self.tick < now {
            // After a long pause every slot is looked at once, not once per missed tick.
            self.tick = (self.tick + 1).max(now.saturating_sub(SLOTS - 1));
            let mut slot = std::mem::take(&mut self.slots[slot(self.tick)]);
            for index in slot.drain(..) {
                let entry = &mut self.entries[index];
                if entry.queued > now || entry.queued == NEVER {
                    continue;
                }
                entry.queued = NEVER;
                if entry.deadline <= now {
                    due.extend(entry.waker.take());
                } else if entry.deadline != NEVER {
                    later.push(index);
                }
            }
            self.slots[(self.tick % SLOTS) as usize] = slot;
        }
        // Only now: a slot that is still to be looked at would lose whatever belongs to its next turn.
        for index in later.drain(..) {
            self.queue(index);
        }
        self.later = later;
        due
    }

    /// The next tick with anything in its slot, remembered as the driver's plan.
    fn plan_sleep(&mut self) -> Option<u64> {
        let next = (self.tick + 1..self.tick + SLOTS).find(|&t| !self.slots[slot(t)].is_empty());
        self.sleeping_until = next.unwrap_or(NEVER);
        next
    }
}

fn slot(tick: u64) -> usize {
    (tick % SLOTS) as usize
}

#[cfg(test)]
mod tests;
