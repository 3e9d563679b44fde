//! Shapes of traffic in which nothing is wrong with the candidate. Each says of a seed whether it was condemned all the same.

use tidegate::core::gate::{Cell, Channel, Events, Exposures, GateConfig, Tick, TickInput, Unit};

use super::world::{BEGIN, Phase, Poisson, Shape, World, bad, errors_only, five_tests, grains, run};

fn steady(rps: f64, weight: u16, rate: f64, seconds: f64) -> Shape {
    let phases = vec![Phase { from: 0.0, candidate: rate, stable: rate }];
    Shape { rps, weight, phases, seconds, stride: 5, fault: 0.0 }
}

fn is_condemned(shape: &Shape, seed: u64) -> bool {
    run(shape, seed).aborted.is_some()
}

pub(super) fn twins_at_a_thousand_requests_per_second(seed: u64) -> bool {
    is_condemned(&steady(1_000.0, 500, 0.001, 120.0), seed)
}

pub(super) fn twins_at_a_quarter(seed: u64) -> bool {
    is_condemned(&steady(200.0, 2_500, 0.01, 120.0), seed)
}

pub(super) fn twins_with_little_traffic(seed: u64) -> bool {
    is_condemned(&steady(50.0, 500, 0.02, 120.0), seed)
}

pub(super) fn twins_that_fail_half_of_the_time(seed: u64) -> bool {
    is_condemned(&steady(1_000.0, 100, 0.5, 120.0), seed)
}

pub(super) fn a_shared_outage(seed: u64) -> bool {
    let mut shape = steady(1_000.0, 500, 0.001, 60.0);
    shape.phases.push(Phase { from: 20.0, candidate: 0.5, stable: 0.5 });
    shape.phases.push(Phase { from: 40.0, candidate: 0.001, stable: 0.001 });
    is_condemned(&shape, seed)
}

pub(super) fn exactly_as_bad_as_allowed(seed: u64) -> bool {
    let mut shape = steady(1_000.0, 500, 0.001, 120.0);
    shape.phases[0].candidate = 0.002;
    is_condemned(&shape, seed)
}

pub(super) fn under_the_floor_and_then_a_shared_outage(seed: u64) -> bool {
    let mut shape = steady(1_000.0, 500, 0.00002, 320.0);
    shape.phases[0].candidate = 0.0005;
    shape.phases.push(Phase { from: 300.0, candidate: 0.5, stable: 0.5 });
    shape.stride = 10;
    is_condemned(&shape, seed)
}

pub(super) fn five_requests_per_second(seed: u64) -> bool {
    let mut shape = steady(5.0, 500, 0.02, 600.0);
    shape.stride = 10;
    is_condemned(&shape, seed)
}

/// Latencies fall into classes: above the median, the 95th and the 99th percentile of stable; the candidate's likewise, which is as slow as
/// allowed. Plus errors and client errors.
fn five(seed: u64, rps: f64, weight: u16, seconds: u64, config: GateConfig) -> bool {
    let mut world = World::new(config, seed, rps, 0.001);
    let share = f64::from(weight) / 10_000.0;
    let classes = [0.5, 0.45, 0.04, 0.01];
    let sides = [(Cell::candidate(0), share), (Cell::STABLE, 1.0 - share)];
    let latency = sides.map(|(_, s)| classes.map(|c| Poisson::new(rps / 4.0 * s * c)));
    let errors = sides.map(|(_, s)| [0.001, 0.02].map(|rate| Poisson::new(rps / 4.0 * s * rate)));
    for at in 1..=seconds * 4 {
        world.now = BEGIN + at * 5 - 1;
        let (mut exposures, mut events) = (Vec::new(), Vec::new());
        for (side, (cell, _)) in sides.into_iter().enumerate() {
            let drawn = [0, 1, 2, 3].map(|i| latency[side][i].draw(&mut world.rng));
            let count = drawn.iter().sum();
            exposures.extend([Channel::BEGUN, Channel::WRITTEN].map(|channel| Exposures { channel, cell, count }));
            let slow = [drawn[1] + drawn[2] + drawn[3], drawn[2] + drawn[3], drawn[3]];
            let failed = [0, 1].map(|i| errors[side][i].draw(&mut world.rng));
            for (series, n) in [failed[0], slow[0], slow[1], slow[2], failed[1]].into_iter().enumerate() {
                let series = u8::try_from(series).expect("small");
                events.push(Events { series, cell, began: world.now, requests: n, sessions: n });
            }
        }
        let input = TickInput { exposures: &exposures, events: &events, ..TickInput::quiet(world.now, grains(weight)) };
        if world.gate.tick(&input).outcome.is_harmful() {
            return true;
        }
    }
    false
}

pub(super) fn five_default_tests(seed: u64) -> bool {
    five(seed, 1_000.0, 500, 60, five_tests())
}

pub(super) fn latencies_as_slow_as_allowed(seed: u64) -> bool {
    five(seed + 10_000, 100.0, 2_500, 60, five_tests())
}

/// Sessions of thirty requests; every fiftieth fails three of five of its requests, on both sides.
fn bursts(seed: u64, rps: u32, unit: Unit, seconds: u64) -> bool {
    #[derive(Clone, Default)]
    struct Session {
        left: u8,
        bursting: bool,
        failed: bool,
    }
    let mut world = World::new(GateConfig { unit, ..errors_only() }, seed, 200.0, 0.01);
    let mut sessions = vec![Session::default(); 400];
    let mut distinct = 0_u32;
    for at in 1..=seconds * 4 {
        world.now = BEGIN + at * 5 - 1;
        let (mut exposed, mut requests, mut firsts) = ([0; 2], [0; 2], [0; 2]);
        for _ in 0..rps / 4 {
            let index = world.rng.usize(0..400);
            let side = usize::from(index >= 40);
            let session = &mut sessions[index];
            if session.left == 0 {
                *session = Session { left: 30, bursting: world.rng.u8(0..50) == 0, failed: false };
                distinct += u32::from(side == 0);
            }
            session.left -= 1;
            exposed[side] += 1;
            if session.bursting && world.rng.u8(0..5) < 3 {
                requests[side] += 1;
                firsts[side] += u32::from(!session.failed);
                session.failed = true;
            }
        }
        let [c, s] = [(0, Cell::candidate(0)), (1, Cell::STABLE)]
            .map(|(i, cell)| Events { sessions: firsts[i], ..bad(cell, world.now, requests[i]) });
        let exposures = [(0, Cell::candidate(0)), (1, Cell::STABLE)].map(|(i, cell)| Exposures {
            channel: Channel::BEGUN,
            cell,
            count: exposed[i],
        });
        let input = TickInput {
            exposures: &exposures,
            events: &[c, s],
            sessions: distinct,
            ..TickInput::quiet(world.now, grains(1_000))
        };
        if world.gate.tick(&input).outcome.is_harmful() {
            return true;
        }
    }
    false
}

pub(super) fn sessions_with_bursts_of_errors(seed: u64) -> bool {
    bursts(seed, 200, Unit::Session, 60)
}

/// Counted per request the same traffic is condemned: what the unit is for, and proof that the bursts are there.
#[test]
fn bursts_counted_per_request_condemn() {
    let per_request = (1..=60).filter(|seed| bursts(*seed, 200, Unit::Request, 60)).count();
    assert!(per_request >= 2, "{per_request} of 60 per request");
}

/// Failures are known after 0.1 s or after 10 s, successes never before 5 s: whoever counts at completion condemns it.
pub(super) fn slow_successes_beside_fast_failures(seed: u64) -> bool {
    let mut world = World::new(errors_only(), seed, 400.0, 0.02);
    let draw =
        [0.05, 0.95].map(|share| (Poisson::new(400.0 / 10.0 * share * 0.02), Poisson::new(400.0 / 10.0 * share)));
    let mut late: Vec<(Tick, Events)> = Vec::new();
    for at in 1..=600_u64 {
        world.now = BEGIN + at * 2 - 1;
        let mut exposed = [0; 2];
        for (side, cell) in [(0, Cell::candidate(0)), (1, Cell::STABLE)] {
            let failed = draw[side].0.draw(&mut world.rng);
            exposed[side] = draw[side].1.draw(&mut world.rng) + failed;
            for _ in 0..failed {
                let delay = if world.rng.bool() { 2 } else { 200 };
                late.push((world.now + delay, bad(cell, world.now, 1)));
            }
        }
        let known: Vec<Events> = late.iter().filter(|(at, _)| *at <= world.now).map(|(_, e)| *e).collect();
        late.retain(|(at, _)| *at > world.now);
        if world.feed(500, exposed, &known).outcome.is_harmful() {
            return true;
        }
    }
    false
}

/// Four endpoints; with `dead` the third fails every request.
fn endpoints(seed: u64, dead: bool) -> (bool, bool) {
    let mut world = World::new(errors_only(), seed, 1_000.0, 0.001);
    let each = Poisson::new(1_000.0 / 4.0 * 0.25 / 4.0);
    let [stable_bad, stable] = [0.001, 0.999].map(|r| Poisson::new(1_000.0 / 4.0 * 0.75 * r));
    let mut flagged = false;
    for at in 1..=240_u64 {
        world.now = BEGIN + at * 5 - 1;
        let b = stable_bad.draw(&mut world.rng);
        let count = stable.draw(&mut world.rng) + b;
        let mut exposures = vec![Exposures { channel: Channel::BEGUN, cell: Cell::STABLE, count }];
        let mut events = vec![bad(Cell::STABLE, world.now, b)];
        for index in 0..4_u16 {
            let (cell, count) = (Cell::candidate(index), each.draw(&mut world.rng));
            let fails = if dead && index == 2 { count } else { u32::from(count > 0 && world.rng.u16(0..60) == 0) };
            exposures.push(Exposures { channel: Channel::BEGUN, cell, count });
            events.push(bad(cell, world.now, fails));
        }
        let input =
            TickInput { pool: 4, exposures: &exposures, events: &events, ..TickInput::quiet(world.now, grains(2_500)) };
        let verdict = world.gate.tick(&input);
        assert!(verdict.eject.is_none_or(|endpoint| endpoint == 2), "seed {seed}: {:?}", verdict.eject);
        flagged |= verdict.eject == Some(2);
        if verdict.outcome.is_harmful() {
            return (true, flagged);
        }
    }
    (false, flagged)
}

pub(super) fn one_dead_endpoint_of_four(seed: u64) -> bool {
    let (condemned, flagged) = endpoints(seed, true);
    assert!(condemned || flagged, "seed {seed}: a dead endpoint that was not flagged");
    condemned
}

pub(super) fn four_healthy_endpoints(seed: u64) -> bool {
    endpoints(seed, false) != (false, false)
}
