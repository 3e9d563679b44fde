//! A connection to an upstream in plain text: dialled directly and through pingora-core's connector.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use criterion::Criterion;
use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;

pub(crate) fn benches(criterion: &mut Criterion) {
    let address = closing_server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let connector = TransportConnector::new(None);
    let peer = HttpPeer::new(address, false, String::new());
    let mut group = criterion.benchmark_group("dial");
    // Every turn is a connection: bounded, so that loopback ports last.
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    group.bench_function("direct", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let stream = TcpStream::connect(address).await.expect("a listener");
                stream.set_nodelay(true).expect("a socket");
                black_box(stream);
            });
        });
    });
    group.bench_function("pingora", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async { black_box(connector.new_stream(&peer).await.expect("a listener")) });
        });
    });
    group.finish();
}

/// Accepts and resets, so that no port waits after its connection.
fn closing_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    });
    address
}
