//! Durations and sizes as they are written: a whole number with a unit.

use std::time::Duration;

/// What a duration looks like.
pub const DURATION_FORM: &str =
    "a duration is a whole number with a unit, such as \"250ms\", \"30s\", \"5m\" or \"1h\"";
/// What a size looks like.
pub(super) const SIZE_FORM: &str =
    "a size is a whole number with a unit, such as \"512B\", \"64KiB\", \"10MiB\" or \"1GiB\"";

/// Units of time in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `"250ms"`, `"30s"`, `"5m"`, `"1h"`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    parse(text, &TIME_UNITS).map(Duration::from_millis)
}

/// Writes `duration` with the largest unit that keeps it whole. Less than a millisecond is lost.
pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "s")
}

/// Reads `"512B"`, `"64KiB"`, `"10MiB"`, `"1GiB"`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// Writes `bytes` with the largest unit that keeps it whole.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS, "B")
}

/// Reads `"0.05%"`, `"150%"` with at most two decimals, as a fraction.
pub(super) fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "00"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let grains = format!("{whole}{decimals:0<2}").parse::<u32>().ok()?;
    Some(f64::from(grains) / 10_000.0)
}

/// Writes a fraction that [`percent`] read.
pub(super) fn show_percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)], unit_of_zero: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => format!("0{unit_of_zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_whole_numbers_with_a_known_unit_are_read() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3_600)));
        assert_eq!((size("0B"), size("10MiB")), (Some(0), Some(10 << 20)));
        for bad in ["", "30", "s", "1.5s", "-1s", "+1s", "1 s", "1S", "1d", "1us", "99999999999999999999s", "1h30m"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for bad in ["", "64", "64KB", "64k", "64kib", "1.5MiB", "18446744073709551615GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_largest_whole_unit_is_shown() {
        let shown = [0, 1, 1_500, 60_000, 90_000, 3_600_000].map(|ms| show_duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0s", "1ms", "1500ms", "1m", "90s", "1h"]);
        assert_eq!([0, 512, 1_025, 65_536].map(show_size), ["0B", "512B", "1025B", "64KiB"]);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(value: u64) {
            prop_assert_eq!(size(&show_size(value)), Some(value));
            let time = Duration::from_millis(value);
            prop_assert_eq!(duration(&show_duration(time)), Some(time));
        }
    }
}
