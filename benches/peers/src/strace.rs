//! System calls per request, counted by strace in a run of its own, since it slows everything down.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use crate::failure::{Failure, While};
use crate::load::Load;
use crate::origin::Origin;
use crate::peer::{Instance, Places, in_path};
use crate::process::{Child, Program, pause};
use crate::tool::{Extra, Running};

/// How long calls are counted.
const COUNTED: Duration = Duration::from_secs(2);
/// How long the load runs before and after that.
const AROUND: Duration = Duration::from_secs(2);
/// Longest for strace to attach, and to write its table.
const STRACE: Duration = Duration::from_secs(5);
/// Calls that are fewer than this per request are left out of the list; the sum has them.
const CALLS_MIN: f64 = 0.01;

/// Calls per request, by name and all together.
pub type Calls = (f64, BTreeMap<String, f64>);

/// Counts them under `load`.
///
/// # Errors
/// When strace may not attach, or the load fails.
pub fn count(
    load: &Load,
    instance: &Instance,
    places: &Places,
    origin: &Origin,
    extra: &Extra,
) -> Result<Calls, Failure> {
    let running = Running::start(load, instance, places, extra, COUNTED + AROUND)?;
    pause(AROUND / 4)?;
    let (table, words) = (places.dir.join("strace.table"), places.dir.join("strace.err"));
    for file in [&table, &words] {
        let _ = fs::remove_file(file);
    }
    let mut command: Vec<OsString> =
        vec![in_path("strace").into(), "-c".into(), "-f".into(), "-o".into(), table.clone().into()];
    command.extend(["-p".into(), instance.child.id().to_string().into()]);
    let program = Program { name: "strace", core: places.load_core, command: &command, stdout: &words, stderr: &words };
    let mut strace = Child::start(&program)?;
    let begun = Instant::now();
    while !fs::read_to_string(&words).unwrap_or_default().contains("attached") {
        strace.alive()?;
        if begun.elapsed() > STRACE {
            return Err(Failure("strace does not attach".into()));
        }
        pause(Duration::from_millis(1))?;
    }
    let before = origin.total();
    pause(COUNTED)?;
    let requests = origin.total() - before;
    strace.interrupt(STRACE)?;
    // Slowed down by strace, some requests may have timed out: what counts here are the calls.
    let _ = running.finish();
    read(&fs::read_to_string(&table).doing("reading the table of strace")?, requests)
}

/// The table of `strace -c`: the fourth column has the calls, the last the name.
fn read(table: &str, requests: u64) -> Result<Calls, Failure> {
    if requests == 0 {
        return Err(Failure("no request was answered under strace".into()));
    }
    let (mut sum, mut calls) = (0.0, BTreeMap::new());
    for line in table.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (Some(Ok(count)), Some(&name)) = (columns.get(3).map(|text| text.parse::<u64>()), columns.last()) else {
            continue;
        };
        if name == "total" {
            continue;
        }
        let each = count as f64 / requests as f64;
        sum += each;
        if each >= CALLS_MIN {
            calls.insert(name.to_owned(), each);
        }
    }
    if calls.is_empty() { Err(Failure("strace counted nothing".into())) } else { Ok((sum, calls)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_and_without_errors_in_it() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ----------------\n 50.00    0.000100           1       200        10 read\n 50.00    0.000100           1       100           write\n------ ----------- ----------- --------- --------- ----------------\n100.00    0.000200           0       300        10 total\n";
        let (sum, calls) = read(table, 100).unwrap();
        assert_eq!((sum, calls), (3.0, BTreeMap::from([("read".into(), 2.0), ("write".into(), 1.0)])));
        assert!(read("", 1).is_err());
    }
}
