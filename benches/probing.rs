//! What probing costs: processor time of the binary with a thousand endpoints it asks over HTTP at the default interval, in plain text and
//! with TLS. Fails when plain text costs more than the bound.
//!
//! `cargo bench --bench probing -- --tidegate PATH`; without a path it is the binary built beside the benchmark.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate::clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

/// Endpoints: addresses of the loopback, all of which one server answers.
const ENDPOINTS: u32 = 1_000;
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(30);
/// Most seconds of processor time in that time: 5 % of one.
const CPU_SECONDS_MAX: f64 = 1.5;
/// Probes before the watching begins: each endpoint is ready, and was asked once more since.
const SETTLED_PROBES: f64 = 2_000.0;
/// Longest wait until it has settled.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(100);
/// The name the servers' certificate is for.
const NAME: &str = "probed.test";

type Error = Box<dyn std::error::Error>;

/// A running Tidegate with its directory, both gone when it is dropped.
struct Proxy {
    child: Child,
    dir: PathBuf,
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug)]
struct Figures {
    cpu_seconds: f64,
    /// Readiness probes.
    probes: f64,
    /// Those of them that failed.
    failed: f64,
}

fn main() -> ExitCode {
    let binary = std::env::args_os().skip_while(|argument| argument != "--tidegate").nth(1);
    let binary = binary.unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_tidegate")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(run(Path::new(&binary))));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("probing costs more than {CPU_SECONDS_MAX} s of processor time in {WATCHED:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("probing: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether plain text keeps the bound.
async fn run(binary: &Path) -> Result<bool, Error> {
    let plain = watch(binary, false).await?;
    watch(binary, true).await?;
    Ok(plain <= CPU_SECONDS_MAX)
}

/// The processor time of one proxy while it is watched, in seconds.
async fn watch(binary: &Path, with_tls: bool) -> Result<f64, Error> {
    let dir = std::env::temp_dir().join(format!("tidegate-probing-{}-{with_tls}", std::process::id()));
    fs::create_dir(&dir)?;
    let acceptor = if with_tls { Some(certified(&dir)?) } else { None };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let port = listener.local_addr()?.port();
    let serving = tokio::spawn(serve(listener, acceptor));
    let proxy = Proxy::start(binary, dir, port, with_tls)?;
    let before = proxy.settled().await?;
    tokio::time::sleep(WATCHED).await;
    let after = proxy.figures().await?;
    serving.abort();
    if after.failed > before.failed {
        return Err(
            format!("{} probes failed: the machine has too much else to do", after.failed - before.failed).into()
        );
    }
    let (cpu, probes) = (after.cpu_seconds - before.cpu_seconds, after.probes - before.probes);
    let (percent, each) = (cpu / WATCHED.as_secs_f64() * 100.0, cpu / probes.max(1.0) * 1e6);
    let what = if with_tls { "https" } else { "http" };
    println!(
        "probing/{what:<5} {ENDPOINTS} endpoints: {cpu:.2} s in {WATCHED:?}, {percent:.1} % of a core; {probes} probes, {each:.0} us each"
    );
    Ok(cpu)
}

// === impl Proxy ===

impl Proxy {
    fn start(binary: &Path, dir: PathBuf, port: u16, with_tls: bool) -> Result<Self, Error> {
        let place = dir.display();
        let endpoints: Vec<String> =
            (0..ENDPOINTS).map(|n| format!("127.0.{}.{}:{port}", 1 + n / 250, 1 + n % 250)).collect();
        let tls =
            if with_tls { format!("tls = {{ ca = \"{place}/ca.pem\", sni = \"{NAME}\" }}") } else { String::new() };
        let text = format!(
            "[admin]\nlisten = \"unix:{place}/admin.sock\"\n[state]\ndir = \"{place}/state\"\n[runtime]\nworkers = 2\n[log]\nlevel = \"error\"\n\
             [[listeners]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n[[routes]]\nservice = \"web\"\n\
             [services.web.stable]\nversion = \"v1\"\nendpoints = {endpoints:?}\n\
             [services.web.upstream]\n{tls}\n[services.web.health]\npath = \"/ready\"\n"
        );
        let config = dir.join("tidegate.toml");
        fs::write(&config, text)?;
        let child = Command::new(binary).arg("run").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok(Self { child, dir })
    }

    /// What it has done by the time all its endpoints are ready and asked at their usual pace.
    async fn settled(&self) -> Result<Figures, Error> {
        let began = clock::now();
        while began.elapsed() < SETTLE_MAX {
            tokio::time::sleep(LOOK).await;
            // It may not listen yet.
            let Ok(figures) = self.figures().await else { continue };
            if figures.probes >= SETTLED_PROBES {
                return Ok(figures);
            }
        }
        Err(format!("{ENDPOINTS} endpoints were not probed twice within {SETTLE_MAX:?}").into())
    }

    async fn figures(&self) -> Result<Figures, Error> {
        let mut stream = UnixStream::connect(self.dir.join("admin.sock")).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        let sum = |name: &str, label: &str| -> f64 {
            text.lines().filter(|line| line.starts_with(name) && line.contains(label)).map(value).sum()
        };
        Ok(Figures {
            cpu_seconds: sum("process_cpu_seconds_total ", ""),
            probes: sum("tidegate_probes_total{", "probe=\"readiness\""),
            failed: sum("tidegate_probes_total{", "result=\"failed\""),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already, and what is left over in a directory for temporary files harms no one.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A server's TLS, and in `dir` the authority to trust.
fn certified(dir: &Path) -> Result<TlsAcceptor, Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers every probe with 200.
async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let acceptor = acceptor.clone();
        // A connection that breaks is a probe that failed, which the proxy counts.
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match acceptor {
                None => drop(answer(stream).await),
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        drop(answer(stream).await);
                    }
                }
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
    // Until the proxy has closed.
    stream.read_to_end(&mut head).await.map(drop)
}
