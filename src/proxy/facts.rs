//! What is known of a client connection before any request: who is there, through what, by which rules.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::settings::Listener;

use super::headers::{Known, RequestHead};

/// Most elements of `X-Forwarded-For` looked at, from the right.
const FORWARDED_HOPS_MAX: usize = 32;

/// Facts about one client connection.
#[derive(Debug)]
pub struct ConnFacts {
    /// The listener it came through, as configured when it was accepted.
    pub listener: Arc<Listener>,
    /// The peer; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// The peer as text; empty on a unix socket.
    pub peer_text: Box<str>,
    /// Encrypted.
    pub secure: bool,
    /// The peer is a trusted proxy: what it says about the client is believed.
    pub trusted: bool,
}

// === impl ConnFacts ===

impl ConnFacts {
    /// Facts about a connection from `peer`.
    #[must_use]
    pub fn new(listener: Arc<Listener>, peer: Option<IpAddr>, secure: bool) -> Self {
        // An IPv4 client of a dual-stack socket is the same client.
        let peer = peer.map(|ip| ip.to_canonical());
        let trusted = peer.is_some_and(|ip| is_trusted(&listener, ip));
        let peer_text = peer.map_or_else(Box::default, |ip| ip.to_string().into_boxed_str());
        Self { listener, peer, peer_text, secure, trusted }
    }
}

/// The client's address: the peer, or what trusted proxies say, read from the right up to the first untrusted hop.
#[must_use]
pub fn client_ip(head: &RequestHead, facts: &ConnFacts) -> Option<IpAddr> {
    if !facts.trusted {
        return facts.peer;
    }
    let mut client = facts.peer;
    let mut hops = 0;
    for at in (0..head.fields.len()).rev() {
        let field = &head.fields[at];
        if field.known != Known::XForwardedFor {
            continue;
        }
        for element in head.get(field.value).rsplit(|&b| b == b',') {
            let Some(ip) = parse_ip(element.trim_ascii()) else { return client };
            client = Some(ip);
            hops += 1;
            if hops == FORWARDED_HOPS_MAX || !is_trusted(&facts.listener, ip) {
                return client;
            }
        }
    }
    client
}

fn is_trusted(listener: &Listener, ip: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|net| net.contains(&ip))
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
