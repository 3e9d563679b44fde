//! Clients that send much that costs them nothing: their connection ends with `ENHANCE_YOUR_CALM`, others are served.

use crate::harness::h2_raw::{
    CONTINUATION, END_HEADERS, END_STREAM, End, HEADERS, PING, Pair, RST_STREAM, RawH2, SETTINGS, block, frame,
};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::frames::WINDOW_UPDATE;
use crate::harness::upstream::{Behaviour, Upstream};

use super::pair;

const PRIORITY: u8 = 2;
const CALM: End = End::Gone(11);
const GET: [Pair<'_>; 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")];
/// Resets within ten seconds that are always allowed.
const RESETS_MAX: u32 = 1_000;

async fn served(proxy: &Proxy) {
    let mut client = RawH2::connect(&proxy.address()).await;
    client.head(1, &GET, true).await;
    assert_eq!(client.end(1).await, End::Response(200, b"v1".to_vec()));
}

/// Never so many at once that the queue of requests nobody has looked at would be full of them.
#[tokio::test]
async fn resets_a_few_at_a_time_end_the_connection() {
    const AT_ONCE: u32 = 8;
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    let (head, mut count) = (block(&GET), 0);
    while count < 4 * RESETS_MAX {
        let one = |n: u32| {
            let stream = 2 * n + 1;
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
            [head, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        };
        client.send(&(count..count + AT_ONCE).flat_map(one).collect::<Vec<u8>>()).await;
        if !client.ping().await {
            break;
        }
        count += AT_ONCE;
    }
    assert_eq!(client.end(u32::MAX).await, CALM);
    assert!((RESETS_MAX - AT_ONCE..=RESETS_MAX + AT_ONCE).contains(&count), "{count} streams were reset");
    let ended = proxy.admin.metric("tidegate_http2_goaways_sent_total", &["code=\"ENHANCE_YOUR_CALM\""]).await;
    assert!((ended - 1.0).abs() < f64::EPSILON, "{ended} connections ended");
    served(&proxy).await;
}

#[tokio::test]
async fn frames_about_no_request_end_the_connection() {
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    for (kind, stream, payload) in [(PING, 0, &[7; 8][..]), (SETTINGS, 0, &[]), (PRIORITY, 1, &[0; 5]), (0xee, 0, &[])]
    {
        let one = frame(kind, 0, stream, payload);
        let mut client = RawH2::connect(&proxy.address()).await;
        client.send(&one.repeat(900)).await;
        assert!(client.ping().await, "900 frames of type {kind} are no attack");
        client.send(&one.repeat(5_000)).await;
        assert_eq!(client.end(1).await, CALM, "frames of type {kind}");
    }
    served(&proxy).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    client.frame(HEADERS, END_STREAM, 1, &block(&GET)).await;
    client.send(&frame(CONTINUATION, 0, 1, &[]).repeat(5_000)).await;
    assert_eq!(client.end(1).await, CALM);
    assert_eq!(upstream.arrived(), 0);
    served(&proxy).await;
}

/// A client may have the server reset its streams instead (CVE-2025-8671): here with windows that are too large.
#[tokio::test]
async fn mistakes_that_make_us_reset_end_the_connection() {
    const MISTAKES_MAX: usize = 10;
    let upstream = Upstream::start(Behaviour::hang()).await;
    let strict = format!("h2 = {{ max_error_resets = {MISTAKES_MAX} }}");
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits(&strict)).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    let mut resets = 0;
    let end = loop {
        let stream = 2 * u32::try_from(resets).unwrap() + 1;
        client.head(stream, &GET, true).await;
        client.frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()).await;
        match client.end(stream).await {
            End::Reset(3) => resets += 1,
            end => break end,
        }
    };
    assert_eq!((end, resets), (CALM, MISTAKES_MAX));
    let counted = proxy.admin.metric("tidegate_http2_resets_sent_total", &["code=\"FLOW_CONTROL_ERROR\""]).await;
    assert!((counted - 10.0).abs() < f64::EPSILON, "{counted} resets were counted");
    upstream.behave(Behaviour::version("v1"));
    served(&proxy).await;
}
