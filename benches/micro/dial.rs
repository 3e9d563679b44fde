//! A connection to an upstream in plain text: dialled directly and through pingora-core's connector.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use criterion::Criterion;
use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// Addresses dialled in turn, so that the ports closed connections occupy for a minute do not run out.
const ADDRESSES: u8 = 250;

pub(crate) fn benches(criterion: &mut Criterion) {
    let port = closing_server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let connector = TransportConnector::new(None);
    let addresses = (1..=ADDRESSES).map(|n| SocketAddr::from(([127, 0, 0, n], port)));
    let peers: Vec<_> = addresses.map(|address| (address, HttpPeer::new(address, false, String::new()))).collect();
    let mut turns = peers.iter().cycle();
    let mut group = criterion.benchmark_group("dial");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    group.bench_function("direct", |bencher| {
        bencher.iter(|| {
            let (address, _) = turns.next().expect("endless");
            runtime.block_on(async {
                let stream = TcpStream::connect(address).await.expect("a listener");
                stream.set_nodelay(true).expect("a socket");
                ended(stream).await;
            });
        });
    });
    group.bench_function("pingora", |bencher| {
        bencher.iter(|| {
            let (_, peer) = turns.next().expect("endless");
            runtime.block_on(async { ended(connector.new_stream(peer).await.expect("a listener")).await });
        });
    });
    group.finish();
}

/// Waits until the server has closed, so that its queue never overflows.
async fn ended(mut stream: impl AsyncRead + Unpin) {
    // A reset ends it as well as an end does.
    let _ = black_box(stream.read(&mut [0; 1]).await);
}

/// Accepts and closes.
fn closing_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}
