//! The promise: in every shape of healthy traffic at most alpha of the rollouts are condemned.

use tidegate::core::gate::{Cell, Channel, Events, Exposures, GateConfig, Tick, TickInput, Unit};

use super::world::{
    BEGIN, Phase, Poisson, Shape, World, bad, errors_only, five_tests, grains, no_false_aborts, run, runs,
};

fn steady(rps: f64, weight: u16, rate: f64, seconds: f64) -> Shape {
    let phases = vec![Phase { from: 0.0, candidate: rate, stable: rate }];
    Shape { rps, weight, phases, seconds, stride: 5, fault: 0.0 }
}

fn is_condemned(shape: &Shape) -> impl FnMut(u64) -> bool + '_ {
    |seed| run(shape, seed).aborted.is_some()
}

#[test]
fn twins_at_a_thousand_requests_per_second() {
    no_false_aborts("A/A 1000/s 5 % 0.1 %", runs(300), is_condemned(&steady(1_000.0, 500, 0.001, 120.0)));
}

#[test]
fn twins_at_a_quarter() {
    no_false_aborts("A/A 200/s 25 % 1 %", runs(300), is_condemned(&steady(200.0, 2_500, 0.01, 120.0)));
}

#[test]
fn twins_with_little_traffic() {
    no_false_aborts("A/A 50/s 5 % 2 %", runs(300), is_condemned(&steady(50.0, 500, 0.02, 120.0)));
}

#[test]
fn twins_that_fail_half_of_the_time() {
    no_false_aborts("A/A 1000/s 1 % 50 %", runs(300), is_condemned(&steady(1_000.0, 100, 0.5, 120.0)));
}

#[test]
fn a_shared_outage() {
    let mut shape = steady(1_000.0, 500, 0.001, 60.0);
    shape.phases.push(Phase { from: 20.0, candidate: 0.5, stable: 0.5 });
    shape.phases.push(Phase { from: 40.0, candidate: 0.001, stable: 0.001 });
    no_false_aborts("shared outage of 50 %", runs(250), is_condemned(&shape));
}

#[test]
fn exactly_as_bad_as_allowed() {
    let mut shape = steady(1_000.0, 500, 0.001, 120.0);
    shape.phases[0].candidate = 0.002;
    no_false_aborts("exactly at the bound", runs(250), is_condemned(&shape));
}

#[test]
fn under_the_floor_and_then_a_shared_outage() {
    let mut shape = steady(1_000.0, 500, 0.00002, 320.0);
    shape.phases[0].candidate = 0.0005;
    shape.phases.push(Phase { from: 300.0, candidate: 0.5, stable: 0.5 });
    shape.stride = 10;
    no_false_aborts("under the floor, then a shared outage", runs(100), is_condemned(&shape));
}

#[test]
fn five_requests_per_second() {
    let mut shape = steady(5.0, 500, 0.02, 600.0);
    shape.stride = 10;
    no_false_aborts("low traffic, 5/s", runs(100), is_condemned(&shape));
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

#[test]
fn five_default_tests() {
    no_false_aborts("five default tests", runs(120), |seed| five(seed, 1_000.0, 500, 60, five_tests()));
}

#[test]
fn latencies_as_slow_as_allowed() {
    let latency_only = || {
        let mut config = five_tests();
        config.metrics.retain(|metric| metric.name == "latency");
        config.metrics.insert(0, errors_only().metrics[0].clone());
        config.metrics.push(five_tests().metrics[2].clone());
        GateConfig { alpha: 0.001, ..config }
    };
    no_false_aborts("latency A/A", runs(120), |seed| five(seed + 10_000, 100.0, 2_500, 60, latency_only()));
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

#[test]
fn sessions_with_bursts_of_errors() {
    no_false_aborts("sessions with bursts", runs(200), |seed| bursts(seed, 200, Unit::Session, 60));
    // Counted per request the same traffic is condemned: what the unit is for, and proof that the bursts are there.
    let per_request = (1..=60).filter(|seed| bursts(*seed, 200, Unit::Request, 60)).count();
    assert!(per_request >= 2, "{per_request} of 60 per request");
}

/// Failures are known after 0.1 s or after 10 s, successes never before 5 s: whoever counts at completion condemns it.
fn delayed(seed: u64) -> bool {
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

#[test]
fn slow_successes_beside_fast_failures() {
    no_false_aborts("slow successes, fast failures", runs(120), delayed);
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

#[test]
fn one_dead_endpoint_of_four() {
    let mut missed = 0;
    no_false_aborts("one dead endpoint of four", runs(100), |seed| {
        let (condemned, flagged) = endpoints(seed, true);
        missed += u32::from(!flagged);
        condemned
    });
    assert_eq!(missed, 0, "a dead endpoint that was not flagged");
    no_false_aborts("four healthy endpoints", runs(60), |seed| endpoints(seed, false) != (false, false));
}

/// All traffic on the candidate; `shared` decides whether stable is as broken when it is asked again. What the verdicts were.
fn trial(seed: u64, shared: bool) -> (bool, bool, bool) {
    let mut world = World::new(errors_only(), seed, 1_000.0, 0.001);
    let (mut weight, mut tried, mut paused) = (10_000_u16, false, false);
    for at in 1..=50 * 20_u64 {
        world.now = BEGIN + at - 1;
        let broken = at > 100;
        let rate = |side: usize| if broken && (side == 0 || shared) { 0.5 } else { 0.001 };
        let share = [f64::from(weight) / 1e4, 1.0 - f64::from(weight) / 1e4];
        let mut exposed = [0; 2];
        let mut failed = [0; 2];
        for side in 0..2 {
            let mean = 50.0 * share[side];
            // Fifty requests per tick, each with its own draw: rates change on the way.
            exposed[side] = (mean + world.rng.f64()) as u32;
            failed[side] = (0..exposed[side]).filter(|_| world.rng.f64() < rate(side)).count() as u32;
        }
        let events = [bad(Cell::candidate(0), world.now, failed[0]), bad(Cell::STABLE, world.now, failed[1])];
        let verdict = world.feed(weight, exposed, &events);
        tried |= verdict.trial;
        paused |= verdict.paused.stable_degraded;
        if verdict.outcome.is_harmful() {
            return (true, tried, paused);
        }
        weight = if verdict.trial { 5_000 } else { 10_000 };
    }
    (false, tried, paused)
}

#[test]
fn alone_with_all_traffic_it_takes_a_trial() {
    no_false_aborts("shared outage at 100 %", runs(80), |seed| {
        let (condemned, tried, paused) = trial(seed, true);
        assert!(condemned || tried && paused, "seed {seed}: {condemned} {tried} {paused}");
        condemned
    });
    for seed in 1..=20 {
        assert_eq!(trial(seed, false), (true, true, false), "seed {seed}");
    }
}
