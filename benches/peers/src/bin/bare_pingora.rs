//! Yardstick: pingora's `HttpProxy` and nothing else. No split, no affinity, no metrics, no fields added: what a program pays for it alone.
//! `bare-pingora PLAIN TLS ORIGIN CERT KEY`; PLAIN takes HTTP/2 with prior knowledge as well, TLS by ALPN.

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// Without this a compression module is run for every request.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain, tls, origin, cert, key] = arguments.as_slice() else {
        return Err("usage: bare-pingora PLAIN TLS ORIGIN CERT KEY".into());
    };
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 4_096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = HttpPeer::new(origin.parse::<std::net::SocketAddr>()?, false, String::new());
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, Bare(peer));
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    service.app_logic_mut().ok_or("a service has its proxy")?.server_options = Some(options);
    service.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(cert, key)?;
    settings.enable_h2();
    service.add_tls_with_settings(tls, None, settings);
    server.add_service(service);
    server.run_forever()
}
