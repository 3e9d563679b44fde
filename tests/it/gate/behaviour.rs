//! What the gate does beside condemning: latencies, hangs, a degraded stable, sessions, endpoints, persistence.

use tidegate::core::gate::latency::Thresholds;
use tidegate::core::gate::sketch::bucket_of;
use tidegate::core::gate::{
    Cell, Channel, Events, Exposures, Gate, GateConfig, InFlight, Latencies, Measure, Method, Metric, Outcome, Reason,
    State, Tick, TickInput, Unit, Verdict,
};

use super::world::{BEGIN, World, bad, errors_only, five_tests, grains};

/// A request whose latency is being taken.
struct Waiting {
    cell: Cell,
    began: Tick,
    us: u64,
    thresholds: Thresholds,
}

/// Traffic with latencies, compared with the gate's thresholds as a worker does it.
pub(super) struct Slow {
    pub(super) world: World,
    waiting: Vec<Waiting>,
    pub(super) weight: u16,
    rps: u32,
}

impl Slow {
    pub(super) fn new(seed: u64, rps: u32, weight: u16) -> Self {
        let mut config = five_tests();
        config.metrics.retain(|m| m.measure == Measure::Latency);
        config.warmup = 200;
        Self { world: World::new(config, seed, 1.0, 0.0), waiting: Vec::new(), weight, rps }
    }

    /// One tick; `latency` makes microseconds of a uniform draw, for stable and for the candidate.
    pub(super) fn tick(&mut self, latency: impl Fn(bool, f64) -> u64) -> Verdict {
        let now = self.world.now;
        let thresholds = self.world.gate.thresholds();
        let mut exposures = Vec::new();
        for _ in 0..self.rps / 20 {
            let candidate = self.world.rng.u16(0..10_000) < self.weight;
            let cell = if candidate { Cell::candidate(0) } else { Cell::STABLE };
            let us = latency(candidate, self.world.rng.f64());
            exposures.extend([Channel::BEGUN, Channel::WRITTEN].map(|channel| Exposures { channel, cell, count: 1 }));
            self.waiting.push(Waiting { cell, began: now, us, thresholds });
        }
        let (mut events, mut stable, mut in_flight) = (Vec::new(), Vec::new(), Vec::new());
        self.waiting.retain(|request| {
            let ended = (now - request.began + 1) * 50_000 > request.us;
            for series in 0..3_u8 {
                let limit = request.thresholds.of(usize::from(series));
                let threshold = if request.cell == Cell::STABLE { limit.stable_us } else { limit.candidate_us };
                if ended && request.us > threshold {
                    events.push(Events { series, ..bad(request.cell, request.began, 1) });
                }
                if !ended {
                    let (cell, began) = (request.cell, request.began);
                    in_flight.push(InFlight { series, cell, began, requests: 1, sessions: 1 });
                }
            }
            if ended && request.cell == Cell::STABLE {
                stable.push((bucket_of(request.us), 1));
            }
            !ended
        });
        let input = TickInput {
            hold: 600,
            exposures: &exposures,
            events: &events,
            in_flight: &in_flight,
            latencies: Latencies { stable: &stable, candidate: &[] },
            ..TickInput::quiet(now, grains(self.weight))
        };
        self.world.now += 1;
        self.world.gate.tick(&input)
    }

    /// Seconds until it is condemned, within `seconds`.
    pub(super) fn condemned_after(&mut self, seconds: u64, latency: impl Fn(bool, f64) -> u64) -> Option<f64> {
        (0..seconds * 20).find(|_| self.tick(&latency).outcome.is_harmful()).map(|tick| tick as f64 / 20.0)
    }
}

/// 10 ms and more, with a long tail.
pub(super) fn usual(draw: f64) -> u64 {
    (10_000.0 + 8_000.0 * -(1.0 - draw).ln()) as u64
}

pub(super) fn twins_with_thresholds_taken_from_stable(seed: u64) -> bool {
    // In the middle both become three times as slow for ten seconds.
    let mut slow = Slow::new(seed, 200, 2_500);
    slow.condemned_after(30, |_, draw| usual(draw)).is_some()
        || slow.condemned_after(10, |_, draw| 3 * usual(draw)).is_some()
        || slow.condemned_after(10, |_, draw| usual(draw)).is_some()
}

#[test]
fn a_candidate_twice_as_slow_is_condemned_after_warmup_only() {
    let mut slow = Slow::new(7, 400, 2_500);
    assert_eq!(slow.condemned_after(9, |candidate, draw| usual(draw) * if candidate { 2 } else { 1 }), None);
    assert!(slow.world.gate.report().warming_up);
    let after = slow.condemned_after(20, |candidate, draw| usual(draw) * if candidate { 2 } else { 1 });
    assert!(after.is_some_and(|s| s < 4.0), "{after:?}");
    let report = slow.world.gate.report();
    assert!(!report.warming_up && report.tests.iter().any(|t| t.estimate.is_some() && t.threshold_us.is_some()));
}

#[test]
fn ten_percent_more_is_allowed_and_milliseconds_are_nobodys_reason() {
    let mut slow = Slow::new(9, 400, 2_500);
    let tenth = |candidate, draw| if candidate { usual(draw) * 11 / 10 } else { usual(draw) };
    assert_eq!(slow.condemned_after(60, tenth), None);
    let mut fast = Slow::new(10, 400, 2_500);
    let double = |candidate, draw| usual(draw) / if candidate { 20 } else { 40 };
    assert_eq!(fast.condemned_after(40, double), None);
}

#[test]
fn a_hang_is_seen_at_the_threshold_not_at_the_timeout() {
    let mut slow = Slow::new(11, 400, 2_500);
    assert_eq!(slow.condemned_after(30, |_, draw| usual(draw)), None);
    // From now on no candidate request comes back within a minute.
    let hang = |candidate, draw| if candidate { 60_000_000 } else { usual(draw) };
    let after = slow.condemned_after(20, hang);
    assert!(after.is_some_and(|s| s <= 0.5), "{after:?}");
    // While warming up it is ten times the threshold.
    let mut cold = Slow::new(12, 400, 2_500);
    assert_eq!(cold.condemned_after(5, |_, draw| usual(draw)), None);
    let after = cold.condemned_after(20, hang);
    assert!(after.is_some_and(|s| s <= 1.5), "{after:?}");
}

#[test]
fn a_degraded_stable_pauses_and_resumes_by_itself() {
    let mut world = World::new(errors_only(), 5, 1_000.0, 0.001);
    let mut paused_at = None;
    let mut resumed_at = None;
    for second in 0..120_u64 {
        for _ in 0..20 {
            // Both fail half of their requests from second 20 to 40.
            let outage = (20..40).contains(&second);
            let failed = |n: u32, world: &mut World| {
                let rate = if outage { 0.5 } else { 0.001 };
                (0..n).filter(|_| world.rng.f64() < rate).count() as u32
            };
            let events = [
                bad(Cell::candidate(0), world.now, failed(5, &mut world)),
                bad(Cell::STABLE, world.now, failed(45, &mut world)),
            ];
            let verdict = world.feed(1_000, [5, 45], &events);
            assert!(!verdict.outcome.is_harmful(), "second {second}");
            if verdict.paused.stable_degraded {
                paused_at.get_or_insert(second);
                assert_eq!(resumed_at, None);
            } else if paused_at.is_some() {
                resumed_at.get_or_insert(second);
            }
            world.now += 1;
        }
    }
    assert_eq!(paused_at, Some(20));
    // Thirty clear seconds after the outage, give or take a sixteenth of the hold.
    assert!(resumed_at.is_some_and(|s| (69..=74).contains(&s)), "{resumed_at:?}");
}

#[test]
fn few_sessions_count_their_requests_after_a_while() {
    let run = |distinct: u32| {
        let mut world = World::new(GateConfig { unit: Unit::Session, ..errors_only() }, 3, 100.0, 0.001);
        for tick in 0..600_u64 {
            world.now = BEGIN + tick;
            // Three clients, all of whose requests fail: no first event is left after the third.
            let sessions = u32::from(tick < 3);
            let events = [Events { requests: 1, sessions, ..bad(Cell::candidate(0), world.now, 1) }];
            let exposures = [(Cell::candidate(0), 1), (Cell::STABLE, 19)].map(|(cell, count)| Exposures {
                channel: Channel::BEGUN,
                cell,
                count,
            });
            let quiet = TickInput::quiet(world.now, grains(500));
            let input = TickInput { exposures: &exposures, events: &events, sessions: distinct, ..quiet };
            let verdict = world.gate.tick(&input);
            if verdict.outcome.is_harmful() {
                return Some((tick, verdict.unit));
            }
        }
        None
    };
    assert_eq!(run(20), None);
    let (tick, unit) = run(19).expect("condemned");
    assert!((200..205).contains(&tick) && unit == Unit::Request, "{tick}");
}

#[test]
fn conversions_that_vanish_are_seen() {
    let metric = Metric { name: "checkout".into(), measure: Measure::Custom, method: Method::Good { min_ratio: 0.9 } };
    let run = |rate: f64, seed| {
        let config = GateConfig { metrics: vec![metric.clone()], ..errors_only() };
        let mut world = World::new(config, seed, 100.0, 0.03);
        (0..3_000_u64).find(|tick| {
            world.now = BEGIN + tick;
            let good = |n, rate: f64, world: &mut World| (0..n).filter(|_| world.rng.f64() < rate).count() as u32;
            let counts = [(Cell::candidate(0), 10, rate), (Cell::STABLE, 30, 0.03)];
            let exposures = counts.map(|(cell, count, _)| Exposures { channel: Channel(2), cell, count });
            let events = counts.map(|(cell, n, rate)| bad(cell, world.now, good(n, rate, &mut world)));
            let quiet = TickInput::quiet(world.now, grains(2_500));
            world.gate.tick(&TickInput { exposures: &exposures, events: &events, ..quiet }).outcome.is_harmful()
        })
    };
    for seed in 0..10 {
        assert_eq!(run(0.03, seed), None, "seed {seed}");
        assert!(run(0.0, seed).is_some_and(|tick| tick < 1_500), "seed {seed}: {:?}", run(0.0, seed));
    }
}

#[test]
fn a_ceiling_holds_whatever_stable_does() {
    let method = Method::Bad { max_ratio: 1.5, ignore_below: 0.0005, max_rate: Some(0.01) };
    let metrics = vec![Metric { method, ..errors_only().metrics[0].clone() }];
    let mut world = World::new(GateConfig { metrics, ..errors_only() }, 1, 100.0, 0.001);
    let condemned = (0..400_u64).find(|tick| {
        world.now = BEGIN + tick;
        let failed = [5, 45].map(|n| (0..n).filter(|_| world.rng.u8(0..20) == 0).count() as u32);
        let events = [bad(Cell::candidate(0), world.now, failed[0]), bad(Cell::STABLE, world.now, failed[1])];
        world.feed(1_000, [5, 45], &events).outcome == Outcome::Harmful(Reason::Test(1))
    });
    assert!(condemned.is_some(), "both fail 5 %, 1 % is allowed");
}

#[test]
fn an_endpoint_that_keeps_failing_stops_the_rollout() {
    let mut world = World::new(errors_only(), 1, 100.0, 0.001);
    let mut first = None;
    for tick in 0..900_u64 {
        world.now = BEGIN + tick;
        let cells = [0, 1, 2].map(Cell::candidate);
        let mut exposures = cells.map(|cell| Exposures { channel: Channel::BEGUN, cell, count: 2 }).to_vec();
        exposures.push(Exposures { channel: Channel::BEGUN, cell: Cell::STABLE, count: 50 });
        // The second endpoint fails, pauses as if ejected, and fails again.
        let failing = !(100..400).contains(&tick);
        let events = [bad(cells[1], world.now, if failing { 2 } else { 0 })];
        let quiet = TickInput::quiet(world.now, grains(1_000));
        let verdict = world.gate.tick(&TickInput { pool: 3, exposures: &exposures, events: &events, ..quiet });
        assert!(!verdict.outcome.is_harmful());
        assert_eq!(verdict.eject, (tick >= 2).then_some(1), "tick {tick}");
        if verdict.paused.endpoint == Some(1) {
            first.get_or_insert(tick);
        }
    }
    assert!(first.is_some_and(|tick| (600..610).contains(&tick)), "{first:?}");
}

#[test]
fn a_source_that_fails_is_an_error_until_it_is_clear_for_a_hold() {
    let mut world = World::new(errors_only(), 1, 100.0, 0.001);
    let mut failing = |tick: Tick| {
        let quiet = TickInput::quiet(BEGIN + tick, grains(500));
        let verdict = world.gate.tick(&TickInput { hold: 100, failed: tick == 10, ..quiet });
        assert_eq!(verdict.outcome, Outcome::Inconclusive);
        verdict.paused.gate_error
    };
    let seen: Vec<bool> = (0..200).map(&mut failing).collect();
    assert!(seen.iter().enumerate().all(|(tick, error)| *error == (10..110).contains(&tick)));
}

/// A random tick of a five-test gate with four endpoints; late events, requests in flight, changing weights.
fn random_tick(rng: &mut fastrand::Rng, now: Tick, verdicts: &mut Vec<Verdict>, gates: &mut [(&mut Gate, bool)]) {
    let mut exposures = Vec::new();
    let (mut events, mut in_flight) = (Vec::new(), Vec::new());
    for index in 0..5_u16 {
        let cell = index.checked_sub(1).map_or(Cell::STABLE, Cell::candidate);
        for channel in [Channel::BEGUN, Channel::WRITTEN] {
            exposures.push(Exposures { channel, cell, count: rng.u32(0..if index == 0 { 60 } else { 4 }) });
        }
        let began = now - rng.u64(0..100).min(now - BEGIN);
        if rng.u8(0..3) == 0 {
            events.push(Events { series: rng.u8(0..5), sessions: rng.u32(0..2), ..bad(cell, began, 1) });
        }
        let requests = rng.u32(0..3);
        in_flight.push(InFlight { series: rng.u8(1..4), cell, began, requests, sessions: requests });
    }
    let stable = [(rng.u16(200..300), rng.u32(1..40))];
    let input = TickInput {
        hold: 300,
        pool: 4,
        step: (now / 500) as u32,
        exposures: &exposures,
        events: &events,
        in_flight: &in_flight,
        succeeded: [rng.u32(0..50), rng.u32(0..5)],
        sessions: 100,
        latencies: Latencies { stable: &stable, candidate: &[] },
        ..TickInput::quiet(now, grains([500, 2_500, 9_500][(now / 400 % 3) as usize]))
    };
    for (gate, reversed) in gates {
        let mut order = (exposures.clone(), events.clone(), in_flight.clone());
        if *reversed {
            order.0.reverse();
            order.1.reverse();
            order.2.reverse();
        }
        let input = TickInput { exposures: &order.0, events: &order.1, in_flight: &order.2, ..input };
        verdicts.push(gate.tick(&input));
    }
}

#[test]
fn a_restored_gate_goes_on_as_if_nothing_had_been() {
    for seed in 0..3 {
        let config = GateConfig { warmup: 40, ..five_tests() };
        let mut world = World::new(config.clone(), seed, 100.0, 0.001);
        let (mut rng, mut restored) = (fastrand::Rng::with_seed(seed), world.gate.clone());
        for now in BEGIN..BEGIN + 900 {
            if rng.u8(0..150) == 0 {
                let text = serde_json::to_string(restored.state()).expect("plain data");
                let state: State = serde_json::from_str(&text).expect("what was written");
                assert_eq!(&state, restored.state(), "seed {seed}, tick {now}");
                restored = Gate::restore(config.clone(), state, now).expect("the same metrics");
            }
            let mut verdicts = Vec::new();
            random_tick(&mut rng, now, &mut verdicts, &mut [(&mut world.gate, false), (&mut restored, false)]);
            assert_eq!(verdicts[0], verdicts[1], "seed {seed}, tick {now}");
        }
        assert_eq!(world.gate.state(), restored.state(), "seed {seed}");
        assert_eq!(world.gate.report(), restored.report());
        assert!(Gate::restore(errors_only(), restored.state().clone(), 0).is_err());
        // Another clock, even one younger than the rollout: evidence stays, and time goes on.
        let mut moved = Gate::restore(config, restored.state().clone(), 3).expect("the same metrics");
        moved.tick(&TickInput::quiet(3, grains(500)));
        assert_eq!(moved.report().ticks, restored.report().ticks + 1);
    }
}

#[test]
fn the_order_in_which_workers_are_added_up_does_not_matter() {
    for seed in 0..4 {
        let mut world = World::new(five_tests(), seed, 100.0, 0.001);
        let (mut rng, mut other) = (fastrand::Rng::with_seed(seed), world.gate.clone());
        for now in BEGIN..BEGIN + 400 {
            let mut verdicts = Vec::new();
            random_tick(&mut rng, now, &mut verdicts, &mut [(&mut world.gate, false), (&mut other, true)]);
            let (a, b) = (world.gate.report(), other.report());
            assert!((a.log_e - b.log_e).abs() < 1e-6, "seed {seed}, tick {now}: {} {}", a.log_e, b.log_e);
            assert_eq!(verdicts[0].eject, verdicts[1].eject);
        }
    }
}

#[test]
fn a_late_event_weighs_what_it_would_have_weighed_at_once() {
    for delay in [1, 30, 59] {
        let mut log_e = Vec::new();
        for late in [0, delay] {
            let mut world = World::new(errors_only(), 2, 100.0, 0.001);
            for tick in 0..120_u64 {
                world.now = BEGIN + tick;
                // Exposures differ from tick to tick; the event belongs to tick 20.
                let events = [bad(Cell::candidate(0), BEGIN + 20, u32::from(tick == 20 + late))];
                world.feed(500, [1 + (tick % 5) as u32, 60 + (tick % 31) as u32], &events);
            }
            log_e.push(world.gate.report().log_e);
        }
        assert!((log_e[0] - log_e[1]).abs() < 1e-9, "{delay} ticks late: {log_e:?}");
        assert!(log_e[0] > 0.5);
    }
    // What began before the rollout is not scored, whatever comes of it.
    let mut world = World::new(errors_only(), 2, 100.0, 0.001);
    for tick in 0..50 {
        world.now = BEGIN + tick;
        let verdict = world.feed(500, [3, 60], &[bad(Cell::candidate(0), BEGIN - 1, 3)]);
        assert!(!verdict.outcome.is_harmful());
    }
    assert_eq!(world.gate.report().tests[0].candidate.events, 0);
}

#[test]
fn a_report_says_what_a_pass_is_worth() {
    let mut world = World::new(errors_only(), 2, 1_000.0, 0.001);
    for tick in 0..1_200_u64 {
        world.now = BEGIN + tick;
        world.feed(2_500, [12, 38], &[bad(Cell::STABLE, world.now, u32::from(tick % 26 == 0))]);
    }
    let report = world.gate.report();
    let test = &report.tests[0];
    assert_eq!((test.candidate.exposed, test.stable.exposed), (14_400, 45_600));
    assert!(test.candidate.ci95.1 < 0.001 && test.stable.rate > 0.0009 && report.log_e < 0.0);
    let (_, shown) = test.non_inferior.expect("counts errors");
    assert!(shown, "{:?}", test.non_inferior);
    assert!(test.detectable_ratio.is_some_and(|r| r > 1.5 && r < 6.0), "{:?}", test.detectable_ratio);
    assert!(serde_json::to_string(&report).is_ok());
}

#[test]
fn a_change_of_weight_ends_a_block_and_loses_nothing() {
    // Every tick is a block of its own at either weight, so that only what is lost can make a difference.
    let run = |other: u16| {
        let mut world = World::new(errors_only(), 2, 100.0, 0.001);
        for tick in 0..400_u64 {
            world.now = BEGIN + tick;
            let weight = if tick / 20 % 2 == 0 { 500 } else { other };
            // The three bad events fall into ticks of a change.
            let failed = u32::from(tick > 0 && tick % 20 == 0 && tick <= 60);
            world.feed(weight, [2, 38], &[bad(Cell::candidate(0), world.now, failed)]);
        }
        let report = world.gate.report();
        assert_eq!(report.tests[0].candidate.events, 3);
        report.log_e
    };
    assert!((run(900) - run(500)).abs() < 1e-9 && run(500) > 2.0, "{} {}", run(900), run(500));
}
