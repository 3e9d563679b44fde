//! Numbers, times and addresses as text, without `std::fmt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `n` in decimal.
pub(super) fn integer(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + low(n % 10);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `n` in decimal with zeros in front up to `width`.
pub(super) fn padded(out: &mut Vec<u8>, n: u64, width: u32) {
    for place in (1..width).rev() {
        if n < 10_u64.pow(place) {
            out.push(b'0');
        }
    }
    integer(out, n);
}

/// `duration` in milliseconds with three decimals.
pub(super) fn millis(out: &mut Vec<u8>, duration: Duration) {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    integer(out, us / 1_000);
    out.push(b'.');
    padded(out, us % 1_000, 3);
}

/// Two hexadecimal digits.
pub(super) fn hex(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Time since 1970 as `2026-01-02T03:04:05.678Z` (RFC 3339, milliseconds).
pub(super) fn timestamp(out: &mut Vec<u8>, unix: Duration) {
    let (days, second) = (unix.as_secs() / 86_400, unix.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    padded(out, year, 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
    out.push(b'T');
    padded(out, second / 3_600, 2);
    out.push(b':');
    padded(out, second / 60 % 60, 2);
    out.push(b':');
    padded(out, second % 60, 2);
    out.push(b'.');
    padded(out, u64::from(unix.subsec_millis()), 3);
    out.push(b'Z');
}

/// An address as `std` displays it (RFC 5952).
pub(super) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => ipv4(out, v4),
        IpAddr::V6(v6) => ipv6(out, v6),
    }
}

/// An address and port as `std` displays them.
pub(super) fn socket(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => ipv4(out, *v4.ip()),
        SocketAddr::V6(v6) => {
            out.push(b'[');
            ipv6(out, *v6.ip());
            if v6.scope_id() != 0 {
                out.push(b'%');
                integer(out, u64::from(v6.scope_id()));
            }
            out.push(b']');
        }
    }
    out.push(b':');
    integer(out, u64::from(address.port()));
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years that begin on 1 March 0000; 719,468 days lie before 1970.
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn ipv4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (i, octet) in address.octets().into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        integer(out, u64::from(octet));
    }
}

fn ipv6(out: &mut Vec<u8>, address: Ipv6Addr) {
    if let Some(v4) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return ipv4(out, v4);
    }
    let groups = address.segments();
    let zeros = longest_zeros(&groups);
    let mut separate = false;
    for (i, &group) in groups.iter().enumerate() {
        if zeros.contains(&i) {
            if i == zeros.start {
                out.extend_from_slice(b"::");
            }
            separate = false;
            continue;
        }
        if separate {
            out.push(b':');
        }
        separate = true;
        group_hex(out, group);
    }
}

/// The first longest run of at least two zero groups; empty without one.
fn longest_zeros(groups: &[u16; 8]) -> std::ops::Range<usize> {
    let (mut best, mut start) = (0..0, 0);
    for (i, &group) in groups.iter().enumerate() {
        if group != 0 {
            start = i + 1;
        } else if i + 1 - start > best.len().max(1) {
            best = start..i + 1;
        }
    }
    best
}

fn group_hex(out: &mut Vec<u8>, group: u16) {
    let mut shown = false;
    for shift in [12, 8, 4, 0] {
        let digit = usize::from(group >> shift & 15);
        shown |= digit != 0 || shift == 0;
        if shown {
            out.push(HEX[digit]);
        }
    }
}

fn low(n: u64) -> u8 {
    n.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.123Z"),
            (951_782_399, "2000-02-28T23:59:59.123Z"),
            (951_782_400, "2000-02-29T00:00:00.123Z"),
            (1_709_164_800, "2024-02-29T00:00:00.123Z"),
            (1_767_225_599, "2025-12-31T23:59:59.123Z"),
            (4_107_542_400, "2100-03-01T00:00:00.123Z"),
        ] {
            assert_eq!(shown(|out| timestamp(out, Duration::from_millis(seconds * 1_000 + 123))), text);
        }
        // Absurd clocks give absurd dates, not a panic.
        assert!(shown(|out| timestamp(out, Duration::MAX)).ends_with('Z'));
    }

    #[test]
    fn durations_are_milliseconds() {
        assert_eq!(shown(|out| millis(out, Duration::ZERO)), "0.000");
        assert_eq!(shown(|out| millis(out, Duration::from_nanos(1_234_567))), "1.234");
        assert_eq!(shown(|out| millis(out, Duration::from_micros(12_050))), "12.050");
    }

    proptest! {
        #[test]
        fn integers_are_as_std_writes_them(n: u64, width in 1_u32..12) {
            prop_assert_eq!(shown(|out| integer(out, n)), n.to_string());
            prop_assert_eq!(shown(|out| padded(out, n >> 40, width)), format!("{:0w$}", n >> 40, w = width as usize));
        }

        #[test]
        fn addresses_are_as_std_writes_them(groups: [u16; 8], keep: u8, shift in 0_u32..16, port: u16, scope in 0_u32..3) {
            // Zero groups and leading zeros are rare among uniform ones.
            let mut sparse = groups.map(|g| g >> shift);
            for (i, group) in sparse.iter_mut().enumerate() {
                *group *= u16::from(keep >> i & 1);
            }
            let mapped = Ipv4Addr::from(u32::from(groups[0]) << 16 | u32::from(groups[1])).to_ipv6_mapped();
            for v6 in [Ipv6Addr::from(groups), Ipv6Addr::from(sparse), mapped] {
                prop_assert_eq!(shown(|out| ip(out, v6.into())), v6.to_string());
                let full = SocketAddr::V6(std::net::SocketAddrV6::new(v6, port, 0, scope));
                prop_assert_eq!(shown(|out| socket(out, full)), full.to_string());
            }
            let v4 = SocketAddr::from(([keep, 0, 255, 7], port));
            prop_assert_eq!(shown(|out| socket(out, v4)), v4.to_string());
            prop_assert_eq!(shown(|out| ip(out, v4.ip())), v4.ip().to_string());
        }
    }
}
