//! The bounded runs of `make test`: made-up inputs from a seed, and every input kept by the fuzzers.
//!
//! `TIDEGATE_CASES` says how many inputs each target gets, `TIDEGATE_SEED` which; a failure names the seed that repeats it alone.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

use super::message::{End, Requests};
use super::{TARGETS, Target, codec, generate};

/// Inputs for a target with a share of one, unless asked for otherwise.
const CASES: u64 = 1_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn run(target: &Target) {
    let seed = number("TIDEGATE_SEED", 0x7469_6465);
    for case in 0..number("TIDEGATE_CASES", CASES * target.share) {
        let seed = seed.wrapping_add(case);
        let input = (target.generate)(&mut Rng::with_seed(seed));
        if let Err(cause) = tried(target, &input) {
            panic!(
                "{} fails; again: TIDEGATE_SEED={seed} TIDEGATE_CASES=1\ninput: \"{}\"\n{cause}",
                target.name,
                input.escape_ascii()
            );
        }
    }
}

fn tried(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.check)(input))).map_err(|panic| text(&*panic))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

macro_rules! seeded {
    ($($name:ident = $at:literal),* $(,)?) => {
        $(#[test] fn $name() {
            assert_eq!(TARGETS[$at].name, stringify!($name));
            run(&TARGETS[$at]);
        })*

        #[test]
        fn every_target_is_run() {
            assert_eq!([$($at),*].len(), TARGETS.len());
        }
    };
}

seeded! {
    h1_request_stream = 0,
    h1_response_stream = 1,
    h1_chunked = 2,
    head_edit = 3,
    ws_frames = 4,
    path_normaliser = 5,
    cookie = 6,
    config = 7,
}

/// The streams made up are not refused at once, nor are all of them valid: otherwise the runs above would compare nothing.
#[test]
fn made_up_streams_are_worth_reading() {
    let requests =
        |seed| codec::requests(&generate::requests(&mut Rng::with_seed(seed)), &[], codec::limits(super::KEEP)).0;
    let streams: Vec<_> = (0..500).map(requests).collect();
    let count = |test: &dyn Fn(&Requests) -> bool| streams.iter().filter(|stream| test(stream)).count();
    assert!(count(&|stream| stream.messages.iter().any(|message| message.complete)) > 200);
    assert!(count(&|stream| stream.messages.len() > 1) > 40);
    assert!(count(&|stream| stream.messages.iter().any(|message| !message.body.is_empty())) > 60);
    assert!(count(&|stream| stream.messages.iter().any(|m| m.trailers.as_ref().is_some_and(|t| !t.is_empty()))) > 10);
    assert!(count(&|stream| matches!(stream.end, End::Refused(..))) > 100);
    let answers = (0..500).map(|seed| generate::responses(&mut Rng::with_seed(seed)));
    assert!(answers.filter(|raw| codec::answer("GET", raw, &[]).is_ok_and(|answer| answer.complete)).count() > 100);
}

/// Every file below `tests/fuzz/corpus` and `tests/fuzz/regressions` that is part of the repository.
#[test]
fn what_the_fuzzers_found_stays_found() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let mut tried_in = 0;
    for target in TARGETS {
        for kept in ["corpus", "regressions"] {
            let dir = fuzz.join(kept).join(target.name);
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                let input = fs::read(&path).expect("a file");
                if let Err(cause) = tried(target, &input) {
                    panic!("{} fails on {}\n{cause}", target.name, path.display());
                }
                tried_in += 1;
            }
        }
    }
    assert!(tried_in >= TARGETS.len(), "each target has seeds: {tried_in} files");
}
