//! Tests of passive ejection.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> OutlierRules {
    OutlierRules {
        consecutive_failures: 5,
        window: 10 * SECOND,
        min_requests: 20,
        min_success: percent(80),
        ejection: 30 * SECOND,
        max_ejection_time: 75 * SECOND,
        max_ejected: percent(50),
        panic_threshold: percent(50),
    }
}

fn percent(n: u16) -> Weight {
    Weight::from_grains(n * 100).expect("a share")
}

/// A pool with its counts.
struct Pool {
    outliers: Vec<Outlier>,
    samples: Vec<Sample>,
    now: Duration,
}

impl Pool {
    fn new(count: usize) -> Self {
        let ready = Sample { ready: true, ..Sample::default() };
        Self { outliers: vec![Outlier::default(); count], samples: vec![ready; count], now: Duration::ZERO }
    }

    fn ok(&mut self, endpoint: usize, n: u32) {
        self.samples[endpoint].ended += u64::from(n);
        self.samples[endpoint].streak = 0;
    }

    fn fail(&mut self, endpoint: usize, n: u32) {
        self.samples[endpoint].ended += u64::from(n);
        self.samples[endpoint].failed += u64::from(n);
        self.samples[endpoint].streak += n;
    }

    fn after(&mut self, wait: Duration) -> Vec<Change> {
        self.now += wait;
        tick(&mut self.outliers, &self.samples, &rules(), self.now)
    }

    fn ejected(&self) -> usize {
        self.outliers.iter().filter(|o| o.standing() != Standing::In).count()
    }
}

#[test]
fn five_failures_in_a_row_eject_four_do_not() {
    let mut pool = Pool::new(3);
    pool.fail(1, 4);
    assert_eq!(pool.after(SECOND), []);
    pool.fail(1, 1);
    let lasting = 30 * SECOND;
    assert_eq!(pool.after(SECOND), [Change::Ejected { endpoint: 1, cause: Cause::Streak(5), lasting }]);
    assert_eq!(pool.outliers[1].standing(), Standing::Ejected { until: 32 * SECOND });
}

#[test]
fn a_bad_share_of_the_window_ejects_without_any_streak() {
    let mut pool = Pool::new(3);
    pool.after(SECOND);
    for _ in 0..6 {
        pool.fail(0, 1);
        pool.ok(0, 2);
    }
    assert_eq!(pool.after(SECOND), [], "18 requests are too few");
    pool.fail(0, 1);
    pool.ok(0, 1);
    let cause = Cause::Rate { ended: 20, failed: 7 };
    assert_eq!(pool.after(SECOND), [Change::Ejected { endpoint: 0, cause, lasting: 30 * SECOND }]);
}

#[test]
fn what_left_the_window_does_not_count() {
    let mut pool = Pool::new(2);
    pool.after(SECOND);
    pool.fail(0, 4);
    pool.ok(0, 6);
    for _ in 0..12 {
        assert_eq!(pool.after(SECOND), []);
    }
    pool.ok(0, 10);
    pool.fail(0, 1);
    pool.ok(0, 9);
    assert_eq!(pool.after(SECOND), [], "1 of 20 failed");
}

#[test]
fn the_single_request_decides_and_ejections_grow_up_to_their_bound() {
    let mut pool = Pool::new(3);
    pool.fail(2, 5);
    pool.after(SECOND);
    for lasting in [60, 75, 75] {
        let until = match pool.outliers[2].standing() {
            Standing::Ejected { until } => until,
            other => panic!("{other:?}"),
        };
        assert_eq!(pool.after(until.saturating_sub(pool.now + Duration::from_millis(1))), []);
        assert_eq!(pool.after(Duration::from_millis(1)), [Change::Trial { endpoint: 2 }]);
        assert_eq!(pool.after(SECOND), [], "nothing ended yet");
        pool.fail(2, 1);
        let lasting = lasting * SECOND;
        assert_eq!(pool.after(SECOND), [Change::Ejected { endpoint: 2, cause: Cause::Trial, lasting }]);
    }
    pool.after(75 * SECOND);
    pool.ok(2, 1);
    assert_eq!(pool.after(SECOND), [Change::Restored { endpoint: 2 }]);
    // Old failures are not held against it again.
    assert_eq!(pool.after(SECOND), []);
    // In for 30 s per ejection: the count shrinks, so that the next one is short again.
    for _ in 0..5 {
        pool.after(30 * SECOND);
    }
    pool.fail(2, 5);
    let short = pool.after(SECOND);
    assert_eq!(short, [Change::Ejected { endpoint: 2, cause: Cause::Streak(5), lasting: 30 * SECOND }]);
}

/// envoy#3263, #17504, #26877: with two or three hosts, one may go and the last never does.
#[test]
fn envoy_3263_one_of_two_may_go_and_the_last_never() {
    let mut pair = Pool::new(2);
    pair.fail(0, 9);
    pair.fail(1, 5);
    assert_eq!(pair.after(SECOND)[1..], [spared(1, 5, Bound::Last)]);
    assert_eq!(pair.outliers[1].standing(), Standing::In, "the worse one went");
    pair.fail(1, 50);
    assert_eq!(pair.after(SECOND), [], "it is known that it was to go");
    let mut single = Pool::new(1);
    single.fail(0, 500);
    assert_eq!(single.after(SECOND), [spared(0, 500, Bound::Last)]);
    assert_eq!(single.outliers[0].standing(), Standing::In);
}

fn spared(endpoint: usize, streak: u32, bound: Bound) -> Change {
    Change::Spared { endpoint, cause: Cause::Streak(streak), bound }
}

#[test]
fn who_is_spared_is_named_goes_as_soon_as_it_may_and_is_cleared_once_it_works() {
    let mut pair = Pool::new(2);
    pair.fail(0, 9);
    pair.fail(1, 5);
    let lasting = 30 * SECOND;
    let gone = Change::Ejected { endpoint: 0, cause: Cause::Streak(9), lasting };
    assert_eq!(pair.after(SECOND), [gone, spared(1, 5, Bound::Last)]);
    assert_eq!(pair.after(SECOND), [], "said once");
    pair.after(29 * SECOND);
    pair.ok(0, 1);
    let goes = Change::Ejected { endpoint: 1, cause: Cause::Streak(5), lasting };
    assert_eq!(pair.after(SECOND), [Change::Restored { endpoint: 0 }, goes], "somebody else works");

    let mut four = Pool::new(4);
    (0..3).for_each(|endpoint| four.fail(endpoint, 5));
    let changes = four.after(SECOND);
    assert_eq!((changes.len(), changes[2]), (3, spared(2, 5, Bound::Share)));
    four.ok(2, 100);
    let soon = Duration::from_millis(500);
    assert_eq!(four.after(soon), [], "not at once");
    four.fail(2, 5);
    assert_eq!(four.after(soon), [], "still");
    four.ok(2, 100);
    assert_eq!([four.after(soon), four.after(soon)], [vec![], vec![Change::Cleared { endpoint: 2 }]]);
    four.fail(2, 5);
    assert_eq!(four.after(soon), [spared(2, 5, Bound::Share)], "and again");
}

#[test]
fn with_a_share_of_zero_nobody_is_judged() {
    let mut pool = Pool::new(3);
    pool.fail(0, 50);
    let none = OutlierRules { max_ejected: Weight::ZERO, ..rules() };
    assert_eq!(tick(&mut pool.outliers, &pool.samples, &none, SECOND), []);
}

#[test]
fn endpoints_that_are_not_ready_neither_go_nor_keep_others_from_being_the_last() {
    let mut pool = Pool::new(3);
    pool.samples[0].ready = false;
    pool.samples[1].ready = false;
    pool.fail(0, 9);
    pool.fail(2, 9);
    assert_eq!(pool.after(SECOND), [spared(2, 9, Bound::Last)]);
}

#[test]
fn panic_begins_below_the_threshold_only() {
    assert!(!panics(1, 2, percent(50)));
    assert!(panics(0, 2, percent(50)) && panics(1, 3, percent(50)));
    assert!(!panics(0, 2, Weight::ZERO));
}

proptest! {
    #[test]
    fn never_more_than_the_share_and_never_the_last(
        count in 1_usize..9,
        steps in prop::collection::vec((0_usize..9, 0_u32..8, any::<bool>(), any::<bool>(), 0_u32..40), 1..60),
    ) {
        let mut pool = Pool::new(count);
        for (endpoint, n, ok, ready, seconds) in steps {
            let endpoint = endpoint % count;
            if ok { pool.ok(endpoint, n) } else { pool.fail(endpoint, n) }
            pool.samples[endpoint].ready = ready;
            let worked = |p: &Pool| p.outliers.iter().zip(&p.samples).filter(|(o, s)| o.standing() == Standing::In && s.ready).count();
            let before = worked(&pool);
            let changes = pool.after(seconds * SECOND);
            prop_assert!(pool.ejected() <= (count / 2).max(1));
            let went = changes.iter().any(|c| matches!(c, Change::Ejected { cause, .. } if *cause != Cause::Trial));
            prop_assert!(!went || worked(&pool) >= 1, "{changes:?} of {before}");
            for (outlier, sample) in pool.outliers.iter().zip(&pool.samples) {
                let due = outlier.standing() == Standing::In && sample.ready && outlier.fault(sample, &rules()).is_some();
                prop_assert!(!due || outlier.spared.is_some(), "whoever is to go has gone or is named");
            }
        }
    }
}
