//! The proxies: how each is configured and started, and where it listens.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, While};
use crate::load::Protocol;
use crate::origin::Origin;
use crate::process::{Child, Program, files, pause};

/// Longest until a proxy listens.
const START: Duration = Duration::from_secs(20);
/// Longest for a command that answers and ends.
const COMMAND: Duration = Duration::from_secs(10);
/// Ports of the proxies: below those the kernel gives to outgoing connections, so that no load can take one.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// This one.
    Tidegate,
    /// <https://www.haproxy.org>
    Haproxy,
    /// <https://nginx.org>
    Nginx,
    /// <https://www.envoyproxy.io>
    Envoy,
    /// Pingora's `HttpProxy` and nothing else.
    BarePingora,
    /// hyper's server and client and nothing else.
    HyperForwarder,
}

/// How the proxies are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// HTTP/1.1 to the origin, no access log.
    Plain,
    /// The same with one.
    Log,
    /// HTTP/2 to the origin.
    Grpc,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// A directory of this run, in memory where possible.
    pub dir: PathBuf,
    /// The Tidegate to measure.
    pub tidegate: PathBuf,
    /// The directory of our own binaries.
    pub yardsticks: PathBuf,
    /// The directory of downloaded tools.
    pub tools: PathBuf,
    /// The processor of the proxies.
    pub proxy_core: usize,
    /// The processor of everything else.
    pub load_core: usize,
}

/// A running proxy.
#[derive(Debug)]
pub struct Instance {
    /// Which one.
    pub peer: Peer,
    /// Its process.
    pub child: Child,
    ports: Ports,
    access_log: PathBuf,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    plain: SocketAddr,
    tls: SocketAddr,
    h2c: SocketAddr,
    admin: SocketAddr,
}

// === impl Peer ===

impl Peer {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] =
        [Self::Tidegate, Self::Haproxy, Self::Nginx, Self::Envoy, Self::BarePingora, Self::HyperForwarder];

    /// As in the report.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Tidegate => "Tidegate",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::BarePingora => "bare pingora",
            Self::HyperForwarder => "hyper forwarder",
        }
    }

    /// Whether it only forwards: no split, no cookie, no fields.
    #[must_use]
    pub fn only_forwards(self) -> bool {
        matches!(self, Self::BarePingora | Self::HyperForwarder)
    }

    /// Its configuration, before the blanks are filled in; `None` when it has arguments instead.
    fn template(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Tidegate => Some(("tidegate.toml", include_str!("../configs/tidegate.toml"))),
            Self::Haproxy => Some(("haproxy.cfg", include_str!("../configs/haproxy.cfg"))),
            Self::Nginx => Some(("nginx.conf", include_str!("../configs/nginx.conf"))),
            Self::Envoy => Some(("envoy.yaml", include_str!("../configs/envoy.yaml"))),
            Self::BarePingora | Self::HyperForwarder => None,
        }
    }

    /// The program.
    #[must_use]
    pub fn program(self, places: &Places) -> PathBuf {
        match self {
            Self::Tidegate => places.tidegate.clone(),
            Self::Haproxy => in_path("haproxy"),
            Self::Nginx => in_path("nginx"),
            Self::Envoy => {
                let downloaded = places.tools.join("envoy");
                if downloaded.exists() { downloaded } else { in_path("envoy") }
            }
            Self::BarePingora => places.yardsticks.join("bare-pingora"),
            Self::HyperForwarder => places.yardsticks.join("hyper-forwarder"),
        }
    }

    fn command(self, places: &Places, config: &Path, ports: Ports, origin: &Origin) -> Vec<OsString> {
        let program = self.program(places).into_os_string();
        let (certificate, key) = (places.dir.join("cert.pem"), places.dir.join("key.pem"));
        let mut command = vec![program];
        match self {
            Self::Tidegate => command.extend(["run".into(), config.into()]),
            Self::Haproxy => command.extend(["-db".into(), "-f".into(), config.into()]),
            Self::Nginx => command.extend(["-c".into(), config.into(), "-p".into(), places.dir.clone().into()]),
            Self::Envoy => {
                command.extend(["-c".into(), config.into()]);
                command.extend(["--concurrency", "1", "--disable-hot-restart", "-l", "error"].map(Into::into));
            }
            Self::BarePingora => {
                command.extend([ports.plain, ports.tls, origin.stable].map(|address| address.to_string().into()));
                command.extend([certificate.into(), key.into()]);
            }
            Self::HyperForwarder => {
                command.extend([ports.plain, origin.stable].map(|address| address.to_string().into()));
            }
        }
        command
    }
}

// === impl Instance ===

impl Instance {
    /// Starts a proxy and waits until it takes connections, with 5 % for the candidate.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen in time.
    pub fn start(peer: Peer, variant: Variant, places: &Places, origin: &Origin) -> Result<Self, Failure> {
        let ports = Ports::free(peer)?;
        let name = format!("{}-{variant:?}", peer.title().replace(' ', "-")).to_lowercase();
        let dir = places.dir.join(&name);
        fs::create_dir_all(&dir).doing("making a directory")?;
        let access_log = dir.join("access.log");
        let config = dir.join("config").join(peer.template().map_or("none", |(file, _)| file));
        if let Some((_, template)) = peer.template() {
            fs::create_dir_all(dir.join("config")).doing("making a directory")?;
            let text = fill(template, variant, &blanks(variant, places, &dir, &access_log, ports, origin))?;
            fs::write(&config, text).doing("writing a configuration")?;
        }
        let command = peer.command(places, &config, ports, origin);
        // HAProxy has no file for its log: it writes to standard output.
        let stdout = if peer == Peer::Haproxy { access_log.clone() } else { dir.join("stdout") };
        let stderr = dir.join("stderr");
        let _ = fs::remove_file(&stderr);
        let program = Program {
            name: peer.title(),
            core: places.proxy_core,
            command: &command,
            stdout: &stdout,
            stderr: &stderr,
        };
        let mut instance = Self { peer, child: Child::start(&program)?, ports, access_log };
        instance.listening()?;
        if peer == Peer::Tidegate {
            instance.shift(places, &dir)?;
        }
        Ok(instance)
    }

    /// The URL of `path`.
    #[must_use]
    pub fn url(&self, protocol: Protocol, path: &str) -> String {
        match protocol {
            Protocol::Plain => format!("http://{}{path}", self.ports.plain),
            Protocol::Tls | Protocol::H2 => format!("https://{}{path}", self.ports.tls),
            Protocol::H2c | Protocol::Grpc => format!("http://{}{path}", self.ports.h2c),
        }
    }

    /// The address for HTTP/1.1 in plain text.
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        self.ports.plain
    }

    /// Empties the access log and says how long it was.
    #[must_use]
    pub fn truncate_log(&self) -> u64 {
        let length = fs::metadata(&self.access_log).map_or(0, |data| data.len());
        if length > 0 {
            // The writers append, so that it begins anew.
            let _ = fs::File::options().write(true).open(&self.access_log).and_then(|file| file.set_len(0));
        }
        length
    }

    fn listening(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            if TcpStream::connect(self.ports.plain).is_ok() {
                return Ok(());
            }
            self.child.alive()?;
            if begun.elapsed() > START {
                return Err(Failure(format!("{} does not listen: {}", self.peer.title(), self.child.last_words())));
            }
            pause(Duration::from_millis(20))?;
        }
    }

    /// Gives the candidate its share.
    fn shift(&self, places: &Places, dir: &Path) -> Result<(), Failure> {
        let admin = format!("http://{}", self.ports.admin);
        let mut command = vec![places.tidegate.clone().into_os_string()];
        command.extend(["weight", "web", "5%", "--admin", &admin].map(Into::into));
        let (stdout, stderr) = (dir.join("weight.out"), dir.join("weight.err"));
        let core = places.load_core;
        Child::start(&Program { name: "tidegate weight", core, command: &command, stdout: &stdout, stderr: &stderr })?
            .finish(COMMAND)
    }
}

// === impl Ports ===

impl Ports {
    /// Some that are free. Those that tell the protocols apart by themselves need one for both versions of HTTP.
    fn free(peer: Peer) -> Result<Self, Failure> {
        let plain = free_port()?;
        let h2c = if matches!(peer, Peer::Nginx | Peer::Haproxy) { free_port()? } else { plain };
        Ok(Self { plain, h2c, tls: free_port()?, admin: free_port()? })
    }
}

fn free_port() -> Result<SocketAddr, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    for _ in PORTS {
        let port = NEXT.fetch_add(1, Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if PORTS.contains(&port) && TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Failure(format!("no port is free from {} to {}", PORTS.start, PORTS.end)))
}

/// What goes into the blanks of a configuration.
fn blanks(
    variant: Variant,
    places: &Places,
    dir: &Path,
    log: &Path,
    ports: Ports,
    origin: &Origin,
) -> Vec<(&'static str, String)> {
    let (stable, candidate, server) = match variant {
        Variant::Grpc => (origin.grpc_stable, origin.grpc_candidate, "proto h2"),
        Variant::Plain | Variant::Log => (origin.stable, origin.candidate, ""),
    };
    let path = |file: &str| places.dir.join(file).display().to_string();
    vec![
        ("dir", dir.display().to_string()),
        ("log", log.display().to_string()),
        ("cert", path("cert.pem")),
        ("key", path("key.pem")),
        ("pem", path("both.pem")),
        ("plain", ports.plain.to_string()),
        ("tls", ports.tls.to_string()),
        ("h2c", ports.h2c.to_string()),
        ("admin", ports.admin.to_string()),
        ("plain_port", ports.plain.port().to_string()),
        ("tls_port", ports.tls.port().to_string()),
        ("stable", stable.to_string()),
        ("candidate", candidate.to_string()),
        ("stable_port", stable.port().to_string()),
        ("candidate_port", candidate.port().to_string()),
        ("server", server.to_owned()),
        ("files", files().to_string()),
    ]
}

/// Keeps the lines between `#if NAME`, `#else` and `#end` that hold for `variant`, and fills `{{name}}`.
fn fill(template: &str, variant: Variant, blanks: &[(&str, String)]) -> Result<String, Failure> {
    let mut text = String::new();
    let mut keep = true;
    for line in template.lines() {
        match line.trim() {
            "#if log" => keep = variant == Variant::Log,
            "#if grpc" => keep = variant == Variant::Grpc,
            "#else" => keep = !keep,
            "#end" => keep = true,
            _ if keep => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    for (name, value) in blanks {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    match text.split_once("{{") {
        Some((_, rest)) => {
            Err(Failure(format!("a blank is not filled: {}", rest.chars().take(20).collect::<String>())))
        }
        None => Ok(text),
    }
}

/// A program by its name, also where only root looks.
#[must_use]
pub fn in_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file()).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_keeps_what_holds_and_fills_its_blanks() {
        let template = "a {{x}}\n#if log\nlogged\n#end\n  #if grpc\nh2\n  #else\nh1\n  #end\nz\n";
        let blanks = [("x", "1".to_owned())];
        assert_eq!(fill(template, Variant::Log, &blanks).unwrap(), "a 1\nlogged\nh1\nz\n");
        assert_eq!(fill(template, Variant::Grpc, &blanks).unwrap(), "a 1\nh2\nz\n");
        assert!(fill(template, Variant::Plain, &[]).is_err());
    }
}
