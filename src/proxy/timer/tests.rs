//! Alarms against virtual time: each rings once, never early, at most a tick after the driver looked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use proptest::prelude::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An alarm with the bell of its task.
struct Ringing {
    alarm: Alarm,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Clock {
    began: Instant,
    timers: Rc<Timers>,
}

impl Clock {
    fn new() -> Self {
        let began = clock::now();
        Self { began, timers: Timers::new(began) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn ringing(&self) -> Ringing {
        let bell = Arc::new(Bell::default());
        Ringing { alarm: self.timers.alarm(), waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Sets an alarm to `ms`, at `now`.
    fn set(&self, ringing: &Ringing, ms: u64, now: u64) -> Poll<()> {
        ringing.alarm.poll_until(&Context::from_waker(&ringing.waker), Some(self.at(ms)), self.at(now))
    }

    fn advance(&self, ms: u64) {
        self.timers.advance(self.at(ms));
    }

    /// The tick the driver would sleep until now, in milliseconds.
    fn plan(&self) -> Option<u64> {
        self.timers.wheel.borrow_mut().plan_sleep().map(|tick| tick * TICK_MS)
    }
}

impl Ringing {
    fn rings(&self) -> usize {
        self.bell.0.load(Ordering::Relaxed)
    }
}

const _: () = assert!(TICK.as_millis() == TICK_MS as u128);
/// One turn of the wheel.
const TURN_MS: u64 = SLOTS * TICK_MS;

#[test]
fn an_alarm_rings_once_and_at_most_a_tick_late() {
    for deadline in [1, 19, 20, 21, 39, 40, 1_000, 10_220, 10_239, 10_240] {
        let clock = Clock::new();
        let ringing = clock.ringing();
        assert!(clock.set(&ringing, deadline, 0).is_pending());
        let mut rang_at = None;
        for ms in 0..deadline + 3 * TICK_MS {
            clock.advance(ms);
            if ringing.rings() > 0 && rang_at.is_none() {
                rang_at = Some(ms);
            }
        }
        let rang_at = rang_at.expect("rings");
        assert!((deadline..=deadline + TICK_MS).contains(&rang_at), "{deadline} rang at {rang_at}");
        clock.advance(deadline + 10 * TURN_MS);
        assert_eq!(ringing.rings(), 1, "{deadline}");
    }
}

#[test]
fn a_deadline_that_has_passed_is_ready_at_once_and_none_never_rings() {
    let clock = Clock::new();
    let ringing = clock.ringing();
    assert!(clock.set(&ringing, 500, 500).is_ready());
    let cx = Context::from_waker(&ringing.waker);
    assert!(ringing.alarm.poll_until(&cx, None, clock.at(500)).is_pending());
    clock.advance(100 * TURN_MS);
    assert_eq!(ringing.rings(), 0);
}

#[test]
fn a_deadline_moved_later_rings_there_and_one_moved_earlier_rings_earlier() {
    let clock = Clock::new();
    let (later, earlier) = (clock.ringing(), clock.ringing());
    assert!(clock.set(&later, 100, 0).is_pending() && clock.set(&earlier, 5_000, 0).is_pending());
    assert!(clock.set(&later, 5_000, 50).is_pending() && clock.set(&earlier, 100, 50).is_pending());
    clock.advance(120);
    assert_eq!((later.rings(), earlier.rings()), (0, 1));
    clock.advance(5_000);
    assert_eq!((later.rings(), earlier.rings()), (0, 1));
    clock.advance(5_020);
    assert_eq!((later.rings(), earlier.rings()), (1, 1), "the slot an alarm left is not asked again");
}

#[test]
fn a_moved_deadline_forgotten_by_its_task_does_not_ring() {
    let clock = Clock::new();
    let ringing = clock.ringing();
    assert!(clock.set(&ringing, 100, 0).is_pending());
    ringing.alarm.clear();
    clock.advance(TURN_MS);
    assert_eq!(ringing.rings(), 0);
}

#[test]
fn deadlines_many_turns_away_ring_in_time() {
    let clock = Clock::new();
    let ringing = clock.ringing();
    let deadline = 7 * TURN_MS + 333;
    assert!(clock.set(&ringing, deadline, 0).is_pending());
    let mut now = 0;
    while let Some(next) = clock.plan() {
        assert!(next > now, "the driver has to get on");
        now = next;
        clock.advance(now);
    }
    assert!((deadline..=deadline + TICK_MS).contains(&now), "rang at {now}");
    assert_eq!(ringing.rings(), 1);
}

/// A worker that was busy for longer than a tick looks at several slots at once. An alarm found in one of them whose deadline is a turn
/// away belongs into a slot that is still to be looked at in the same go.
#[test]
fn an_alarm_requeued_while_the_wheel_catches_up_is_not_lost() {
    let clock = Clock::new();
    let ringing = clock.ringing();
    assert!(clock.set(&ringing, TICK_MS, 0).is_pending());
    let deadline = 60_000;
    assert!(clock.set(&ringing, deadline, 10).is_pending());
    for now in [5 * TICK_MS, 11_000, 22_000, 33_000, 44_000, 55_000, deadline + TICK_MS] {
        clock.advance(now);
    }
    assert_eq!(ringing.rings(), 1);
}

/// Nothing was set for a long time, so the wheel stands far behind.
#[test]
fn the_first_alarm_after_a_long_rest_rings() {
    for rest in (0..SLOTS).map(|tick| 100_000 + tick * TICK_MS) {
        let clock = Clock::new();
        let ringing = clock.ringing();
        assert!(clock.set(&ringing, rest + 10_000, rest).is_pending());
        clock.advance(rest + 1);
        assert_eq!(ringing.rings(), 0, "early after {rest}");
        clock.advance(rest + 10_000 + TICK_MS);
        assert_eq!(ringing.rings(), 1, "lost after {rest}");
    }
}

#[test]
fn an_alarm_dropped_while_queued_is_silent_and_its_place_is_used_again() {
    let clock = Clock::new();
    let first = clock.ringing();
    assert!(clock.set(&first, 100, 0).is_pending());
    let (bell, index) = (Arc::clone(&first.bell), first.alarm.index);
    drop(first);
    let second = clock.ringing();
    assert_eq!(second.alarm.index, index);
    assert!(clock.set(&second, 300, 0).is_pending());
    clock.advance(310);
    assert_eq!((bell.0.load(Ordering::Relaxed), second.rings()), (0, 0));
    clock.advance(320);
    assert_eq!((bell.0.load(Ordering::Relaxed), second.rings()), (0, 1));
    assert_eq!(clock.timers.wheel.borrow().entries.len(), 1);
}

#[test]
fn thousands_of_alarms_ring_once_each_in_order() {
    let clock = Clock::new();
    let alarms: Vec<Ringing> = (0..5_000).map(|_| clock.ringing()).collect();
    for (i, ringing) in (0..).zip(&alarms) {
        assert!(clock.set(ringing, 1 + i * 7 % 40_000, 0).is_pending());
    }
    for now in (0..41_000).step_by(50) {
        clock.advance(now);
        for (i, ringing) in (0..).zip(&alarms) {
            let deadline = 1 + i * 7 % 40_000;
            if now < deadline {
                assert_eq!(ringing.rings(), 0, "{deadline} early at {now}");
            } else if now >= deadline + TICK_MS {
                assert_eq!(ringing.rings(), 1, "{deadline} late at {now}");
            }
        }
    }
    assert_eq!(clock.plan(), None, "nothing stays behind");
}

#[test]
fn moving_a_deadline_back_and_forth_leaves_the_wheel_small() {
    let clock = Clock::new();
    let ringing = clock.ringing();
    for now in 0..10_000 {
        assert!(clock.set(&ringing, now + 30_000, now).is_pending());
        assert!(clock.set(&ringing, now + 5_000, now).is_pending());
        clock.advance(now);
    }
    let queued = clock.timers.wheel.borrow().slots.iter().flatten().count();
    assert!(queued <= 512, "{queued} places for one alarm");
}

#[test]
fn the_driver_is_told_only_of_alarms_before_its_sleep_ends() {
    let clock = Clock::new();
    let (first, second) = (clock.ringing(), clock.ringing());
    assert!(clock.set(&first, 1_000, 0).is_pending());
    assert_eq!(clock.plan(), Some(1_020));
    let mut wheel = clock.timers.wheel.borrow_mut();
    assert!(!wheel.set(second.alarm.index, 80, &second.waker));
    assert!(wheel.set(second.alarm.index, 10, &second.waker));
}

#[test]
fn all_tasks_are_woken_on_demand() {
    let clock = Clock::new();
    let (waiting, idle) = (clock.ringing(), clock.ringing());
    assert!(clock.set(&waiting, 1_000, 0).is_pending());
    clock.timers.wake_all();
    assert_eq!((waiting.rings(), idle.rings()), (1, 0));
}

#[tokio::test]
async fn the_driver_wakes_a_task_that_waits() {
    let timers = Timers::new(clock::now());
    let alarm = timers.alarm();
    let driver = tokio::task::LocalSet::new();
    driver.spawn_local(Rc::clone(&timers).drive());
    let began = clock::now();
    let deadline = began + Duration::from_millis(30);
    driver.run_until(std::future::poll_fn(|cx| alarm.poll_until(cx, Some(deadline), clock::now()))).await;
    assert!(clock::now() >= deadline);
}

#[derive(Clone, Debug)]
enum Step {
    Set { alarm: usize, from_now: u64 },
    Clear { alarm: usize },
    Replace { alarm: usize },
    Advance { by: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let distance = prop_oneof![4 => 1..500_u64, 3 => 1..2 * TURN_MS, 1 => 1..10 * TURN_MS];
    let pause = prop_oneof![6 => 0..100_u64, 3 => 0..TURN_MS, 1 => 0..5 * TURN_MS];
    prop_oneof![
        5 => (0..4_usize, distance).prop_map(|(alarm, from_now)| Step::Set { alarm, from_now }),
        1 => (0..4_usize).prop_map(|alarm| Step::Clear { alarm }),
        1 => (0..4_usize).prop_map(|alarm| Step::Replace { alarm }),
        5 => pause.prop_map(|by| Step::Advance { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The model: a list of deadlines that is looked through at every tick.
    #[test]
    fn the_wheel_rings_as_a_plain_list_would(steps in proptest::collection::vec(step(), 1..60)) {
        let clock = Clock::new();
        let mut alarms: Vec<(Ringing, Option<u64>)> = (0..4).map(|_| (clock.ringing(), None)).collect();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Set { alarm, from_now } => {
                    let (ringing, deadline) = &mut alarms[alarm];
                    prop_assert!(clock.set(ringing, now + from_now, now).is_pending());
                    *deadline = Some(now + from_now);
                }
                Step::Clear { alarm } => {
                    alarms[alarm].0.alarm.clear();
                    alarms[alarm].1 = None;
                }
                Step::Replace { alarm } => alarms[alarm] = (clock.ringing(), None),
                Step::Advance { by } => {
                    now += by;
                    clock.advance(now);
                }
            }
            for (ringing, deadline) in &mut alarms {
                let rings = ringing.bell.0.swap(0, Ordering::Relaxed);
                prop_assert!(rings <= 1);
                prop_assert!(rings == 0 || deadline.is_some_and(|at| at <= now), "rang early at {} of {:?}", now, deadline);
                if rings == 1 {
                    *deadline = None;
                }
            }
            clock.advance(now);
            for (ringing, deadline) in &mut alarms {
                let rang = ringing.bell.0.swap(0, Ordering::Relaxed) == 1;
                prop_assert!(!rang || deadline.is_some_and(|at| at <= now));
                if rang {
                    *deadline = None;
                }
                prop_assert!(deadline.is_none_or(|at| now < at + TICK_MS), "lost at {}: {:?}", now, deadline);
            }
        }
    }
}
