//! Little traffic, and none.

use super::Joined;
use super::traffic::Weather;

/// Rollouts at five requests per second.
const RUNS: u64 = 12;

/// flagger#1035, flagger#883, argo#1945: they fail a rollout for want of traffic.
#[test]
fn flagger_1035_five_requests_per_second_take_about_ten_minutes_through_the_default_plan() {
    let mut took = Vec::new();
    for seed in 1..=RUNS {
        let weather = Weather::fair(5.0);
        let mut joined = Joined::new("", weather, seed);
        while !joined.is_over() && joined.time() < 3_600.0 {
            joined.tick(weather, 4);
        }
        assert_eq!(joined.sight().phase, "succeeded", "seed {seed}: {:?}", joined.seen);
        assert!(!joined.was("paused"), "seed {seed}: {:?}", joined.seen);
        took.push(joined.time() / 60.0);
    }
    println!("minutes: {took:.1?}");
    assert!(took.iter().all(|minutes| (7.5..12.5).contains(minutes)), "{took:?}");
}

#[test]
fn flagger_883_without_a_request_it_waits_and_is_neither_aborted_nor_promoted() {
    for policy in ["advance_if_clean", "pause"] {
        let weather = Weather::fair(0.0);
        let settings = format!("[services.web.gate]\non_low_traffic = {policy:?}");
        let mut joined = Joined::new(&settings, weather, 1);
        while joined.time() < 4.0 * 3_600.0 {
            joined.tick(weather, 20);
        }
        let seen: Vec<&str> = joined.seen.iter().map(|(_, said)| said.as_str()).collect();
        assert_eq!(seen, ["verifying at 0%", "progressing at 5%", "paused(low_traffic) at 5%"]);
        // Its hold and the longest extension.
        assert!((329.0..=332.0).contains(&joined.seen[2].0), "{:?}", joined.seen);
    }
}

#[test]
fn argo_1945_traffic_that_stops_stops_the_rollout_wherever_it_is() {
    let fair = Weather::fair(200.0);
    for (weight, last) in [("5%", "paused(low_traffic) at 25%"), ("25%", "paused(low_traffic) at 100%")] {
        let mut joined = Joined::new("", fair, 7);
        while !joined.was(&format!("progressing at {weight}")) {
            joined.tick(fair, 4);
        }
        // Enough for the step it is in; nothing from then on.
        for _ in 0..200 {
            joined.tick(fair, 2);
        }
        while joined.time() < 2.0 * 3_600.0 {
            joined.tick(Weather::fair(0.0), 20);
        }
        assert_eq!(joined.seen.last().map(|(_, said)| said.as_str()), Some(last), "{:?}", joined.seen);
    }
}
