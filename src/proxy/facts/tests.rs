//! Who the client is: the peer, or what trusted proxies say about it.

use super::*;
use crate::config::settings::Limits;
use crate::proxy::fixture::{get, ip, listener};
use proptest::prelude::*;

const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

fn from(peer: &str) -> ConnFacts {
    ConnFacts::new(listener(&PROXIES, Limits::default()), Some(ip(peer)), false)
}

/// The client of a request through `10.0.0.1` that carries `values`, a field each.
fn client(values: &[&str]) -> String {
    let fields: Vec<String> = values.iter().map(|value| format!("X-Forwarded-For: {value}\r\n")).collect();
    client_ip(&get(&fields.concat()), &from("10.0.0.1")).expect("a client").to_string()
}

#[test]
fn only_a_trusted_peer_is_believed() {
    let head = get("X-Forwarded-For: 192.0.2.7\r\n");
    for (peer, client) in [
        ("10.1.2.3", "192.0.2.7"),
        ("fd00::1", "192.0.2.7"),
        ("::ffff:10.1.2.3", "192.0.2.7"),
        ("11.0.0.1", "11.0.0.1"),
        ("::ffff:11.0.0.1", "11.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        assert_eq!(client_ip(&head, &from(peer)), Some(ip(client)), "{peer}");
    }
    let unix = ConnFacts::new(listener(&["0.0.0.0/0"], Limits::default()), None, false);
    assert_eq!((client_ip(&head, &unix), &*unix.peer_text, unix.trusted), (None, "", false));
}

#[test]
fn elements_are_read_from_the_right_up_to_the_first_hop_nobody_trusts() {
    for (values, expected) in [
        (&[][..], "10.0.0.1"),
        (&["192.0.2.7"], "192.0.2.7"),
        (&["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (&["198.51.100.1, 192.0.2.7, 10.0.0.9"], "192.0.2.7"),
        (&["198.51.100.1", "192.0.2.7", "10.0.0.9,10.0.0.8"], "192.0.2.7"),
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ] {
        assert_eq!(client(values), expected, "{values:?}");
    }
}

#[test]
fn an_element_is_an_address_bare_with_a_port_or_in_brackets() {
    for (value, expected) in [
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (" \t192.0.2.7 ", "192.0.2.7"),
    ] {
        assert_eq!(client(&[value]), expected, "{value:?}");
    }
}

#[test]
fn garbage_ends_the_walk_at_the_last_hop_known() {
    for garbage in
        ["", "unknown", "_hidden", "192.0.2", "192.0.2.7.8", "[2001:db8::1", "fe80::1%eth0", "256.0.0.1", "\""]
    {
        assert_eq!(client(&[&format!("192.0.2.7, {garbage}, 10.0.0.9")]), "10.0.0.9", "{garbage:?}");
        assert_eq!(client(&[&format!("192.0.2.7, {garbage}")]), "10.0.0.1", "{garbage:?}");
    }
    assert_eq!(client(&["192.0.2.7", "\u{fc}nknown"]), "10.0.0.1");
}

#[test]
fn no_more_than_so_many_hops_are_walked() {
    let hops = |count: usize| (0..count).map(|i| format!("10.0.1.{i}")).collect::<Vec<_>>().join(", ");
    let all = format!("192.0.2.7, {}", hops(FORWARDED_HOPS_MAX - 1));
    assert_eq!(client(&[&all]), "192.0.2.7");
    let one_too_many = format!("192.0.2.7, {}", hops(FORWARDED_HOPS_MAX));
    assert_eq!(client(&[&one_too_many]), "10.0.1.0");
}

#[test]
fn a_field_the_sender_nominated_for_its_own_hop_says_nothing() {
    let mut head = get("X-Forwarded-For: 192.0.2.7\r\n");
    for field in &mut head.fields {
        field.known = Known::Nominated;
    }
    assert_eq!(client_ip(&head, &from("10.0.0.1")), Some(ip("10.0.0.1")));
}

proptest! {
    /// Whatever a client writes, whoever stands to the right of what a trusted proxy added is not chosen.
    #[test]
    fn what_stands_left_of_an_untrusted_hop_never_counts(left in "[ -~]{0,40}") {
        let value = format!("{left}, 192.0.2.7, 10.0.0.2");
        prop_assert_eq!(client(&[&value]), "192.0.2.7");
    }

    #[test]
    fn any_value_gives_an_address(value in "[0-9a-f.:\\[\\], ]{0,60}") {
        let _: std::net::IpAddr = client(&[&value]).parse().expect("an address");
    }
}
