//! New connections to upstreams. Plain TCP and unix sockets are dialled directly; TLS goes through pingora-core's connector.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use tokio::net::{TcpStream, UnixStream};

use crate::core::endpoint::Address;
use crate::core::service::{PemFile, Protocol, Service, UpstreamTls};
use crate::net::socket::{GONE_AFTER, PROBE_AFTER, PROBE_INTERVAL, PROBES_MAX};
use crate::net::tls_client::{certificates, private_key};

use super::io::Stream;

/// Most prepared TLS peers a worker keeps; beyond it they are prepared anew.
const PEERS_KEPT_MAX: usize = 256;

/// The TLS connector, built with the first TLS upstream: loading the platform's roots takes time and memory.
pub type SharedConnector = Arc<OnceLock<Result<TransportConnector, String>>>;

/// Dials endpoints for one worker.
pub struct Dialer {
    connector: SharedConnector,
    /// Certificates parsed once per service; the `Arc` keeps the pointer it is found by from being used again.
    peers: RefCell<Vec<(Arc<Service>, Arc<HttpPeer>)>>,
}

// === impl Dialer ===

impl Dialer {
    /// A dialer over the connector all workers share.
    #[must_use]
    pub fn new(connector: SharedConnector) -> Self {
        Self { connector, peers: RefCell::default() }
    }

    /// Connects to `address` as `service` wants it. The caller bounds the wait.
    ///
    /// # Errors
    /// Whatever kept the connection from being usable, TLS included.
    pub async fn dial(&self, service: &Arc<Service>, address: &Address) -> io::Result<Stream> {
        let Some(tls) = &service.upstream.tls else {
            return plain(address).await;
        };
        let mut peer = (*self.peer(service, tls)?).clone();
        peer._address = peer_address(address)?;
        let connector = self.connector.get_or_init(connector).as_ref().map_err(|why| io::Error::other(why.as_str()))?;
        // Boxed: it is large and rare, and every connection would carry room for it.
        let stream = Box::pin(connector.new_stream(&peer)).await.map_err(io::Error::other)?;
        if service.upstream.protocol == Protocol::Http2 && stream.selected_alpn_proto() != Some(ALPN::H2) {
            return Err(io::Error::other(
                "the server did not choose HTTP/2 (ALPN h2), which protocol = \"http2\" needs",
            ));
        }
        Ok(Stream::Dialled(stream))
    }

    fn peer(&self, service: &Arc<Service>, tls: &UpstreamTls) -> io::Result<Arc<HttpPeer>> {
        let mut peers = self.peers.borrow_mut();
        if let Some((_, peer)) = peers.iter().find(|(known, _)| Arc::ptr_eq(known, service)) {
            return Ok(Arc::clone(peer));
        }
        let peer = Arc::new(prepare(tls, service.upstream.protocol)?);
        if peers.len() == PEERS_KEPT_MAX {
            peers.clear();
        }
        peers.push((Arc::clone(service), Arc::clone(&peer)));
        Ok(peer)
    }

    /// Forgets what was prepared for services that are not `wanted`.
    pub fn sweep(&self, wanted: impl Fn(&Arc<Service>) -> bool) {
        self.peers.borrow_mut().retain(|(service, _)| wanted(service));
    }
}

async fn plain(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(&**path).await?)),
    }
}

fn peer_address(address: &Address) -> io::Result<PeerAddress> {
    Ok(match address {
        Address::Ip(address) => PeerAddress::Inet(*address),
        Address::Unix(path) => PeerAddress::Unix(UnixAddress::from_pathname(&**path)?),
    })
}

fn connector() -> Result<TransportConnector, String> {
    // It panics on an unreadable `SSL_CERT_FILE`; for us that is one failed dial with a reason.
    catch_unwind(AssertUnwindSafe(|| TransportConnector::new(None)))
        .map_err(|_| "the platform's CA certificates cannot be loaded (see SSL_CERT_FILE)".to_owned())
}

fn ders(file: &PemFile) -> io::Result<Vec<Vec<u8>>> {
    let certificates = certificates(file).map_err(io::Error::other)?;
    Ok(certificates.into_iter().map(|der| der.to_vec()).collect())
}

/// Everything about a TLS peer but its address.
fn prepare(tls: &UpstreamTls, protocol: Protocol) -> io::Result<HttpPeer> {
    let mut peer = HttpPeer::new(SocketAddr::from(([127, 0, 0, 1], 0)), true, tls.sni.clone());
    peer.options.verify_cert = !tls.insecure;
    peer.options.verify_hostname = !tls.insecure;
    match protocol {
        Protocol::Http1 => peer.options.set_http_version(1, 1),
        Protocol::Http2 => {
            peer.options.set_http_version(2, 2);
            peer.options.tcp_keepalive = Some(TcpKeepalive {
                idle: PROBE_AFTER,
                interval: PROBE_INTERVAL,
                count: PROBES_MAX as usize,
                user_timeout: GONE_AFTER,
            });
        }
    }
    if let Some(ca) = &tls.ca {
        let roots = ders(ca)?.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect::<Vec<_>>();
        peer.options.ca = Some(Arc::from(roots.into_boxed_slice()));
    }
    if let Some((chain, key)) = &tls.client {
        let key = private_key(key).map_err(io::Error::other)?;
        peer.client_cert_key = Some(Arc::new(CertKey::new(ders(chain)?, key.secret_der().to_vec())));
    }
    Ok(peer)
}
