//! Asks the DNS: hickory's stub resolver, without its cache, because whoever asks follows the TTL himself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::core::endpoint::Question;
use crate::core::resolve::{Addresses, Found, Heard, Target, used};

/// Questions on their way to servers at the same time; more wait for their turn.
pub const QUERIES_MAX: usize = 32;
/// How often one server is asked the same, at most.
const ATTEMPTS_MAX: usize = 2;
/// Longest wait for one type of record, in waits for one server: several servers and search domains share it.
const PATIENCE: u32 = 4;
/// How long what `/etc/resolv.conf` and `/etc/hosts` say is used before they are read again.
const FILES: Duration = Duration::from_secs(30);

/// Asks the DNS. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    queries: Semaphore,
    /// Made when it is needed first.
    made: Mutex<Option<(Instant, Arc<TokioResolver>)>>,
}

// === impl Resolver ===

impl Resolver {
    /// Asks `servers`; if there are none, those of `/etc/resolv.conf`. Each is waited for `timeout` at most.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>, timeout: Duration) -> Self {
        let (queries, made) = (Semaphore::new(QUERIES_MAX), Mutex::new(None));
        Self(Arc::new(Inner { servers, timeout, queries, made }))
    }

    /// Asks, at `now`. What cannot be had is said in the answer; how long that takes is bounded.
    pub async fn ask(&self, question: &Question, now: Instant) -> Heard {
        let resolver = match self.resolver(now) {
            Ok(resolver) => resolver,
            Err(why) => return failed(question, &why),
        };
        match question {
            Question::Host(name) => Heard::Host(self.addresses(&resolver, name).await),
            Question::Srv(name) => {
                let found = self.look(&resolver, name, RecordType::SRV, target).await;
                let hosts = match &found {
                    Found::Records(targets, _) => self.hosts(&resolver, &used(targets)).await,
                    _ => BTreeMap::new(),
                };
                Heard::Srv(found, hosts)
            }
        }
    }

    async fn hosts(&self, resolver: &Arc<TokioResolver>, targets: &[Target]) -> BTreeMap<Arc<str>, Addresses> {
        let mut asking = JoinSet::new();
        let mut hosts: Vec<_> = targets.iter().map(|target| Arc::clone(&target.host)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let (this, resolver) = (self.clone(), Arc::clone(resolver));
            asking.spawn(async move {
                let found = this.addresses(&resolver, &host).await;
                (host, found)
            });
        }
        asking.join_all().await.into_iter().collect()
    }

    async fn addresses(&self, resolver: &TokioResolver, name: &str) -> Addresses {
        let ip = |data: &RData| data.ip_addr();
        let (v4, v6) =
            tokio::join!(self.look(resolver, name, RecordType::A, ip), self.look(resolver, name, RecordType::AAAA, ip));
        [v4, v6]
    }

    /// Records of one type, as `read` takes them.
    async fn look<T>(
        &self,
        resolver: &TokioResolver,
        name: &str,
        record: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Found<T> {
        // Checked when the file was read: ASCII, and no label is too long.
        let name = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return Found::Failed(error.to_string()),
        };
        let Ok(_permit) = self.0.queries.acquire().await else {
            return Found::Failed("the resolver was closed".to_owned());
        };
        let patience = self.0.timeout * PATIENCE;
        match tokio::time::timeout(patience, resolver.lookup(name, record)).await {
            Ok(Ok(lookup)) => records(&lookup, read),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Found::Nothing,
            Ok(Err(error)) => Found::Failed(format!("{record}: {error}")),
            Err(_) => Found::Failed(format!("{record}: no answer within {patience:?}")),
        }
    }

    fn resolver(&self, now: Instant) -> Result<Arc<TokioResolver>, String> {
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, resolver)) = &*made
            && now.saturating_duration_since(*at) < FILES
        {
            return Ok(Arc::clone(resolver));
        }
        let resolver = Arc::new(self.0.make().map_err(|error| error.to_string())?);
        *made = Some((now, Arc::clone(&resolver)));
        Ok(resolver)
    }
}

// === impl Inner ===

impl Inner {
    fn make(&self) -> Result<TokioResolver, NetError> {
        let provider = TokioRuntimeProvider::default;
        let with = |servers| {
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, provider())
        };
        let mut builder = if self.servers.is_empty() {
            // Without servers, names of /etc/hosts are all there is.
            TokioResolver::builder(provider()).unwrap_or_else(|error| {
                tracing::warn!(%error, "no DNS server is known");
                with(Vec::new())
            })
        } else {
            with(self.servers.iter().map(server).collect())
        };
        let options = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = ATTEMPTS_MAX;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Always;
        builder.build()
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn failed(question: &Question, why: &str) -> Heard {
    match question {
        Question::Host(_) => Heard::Host([Found::Failed(why.to_owned()), Found::Failed(why.to_owned())]),
        Question::Srv(_) => Heard::Srv(Found::Failed(why.to_owned()), BTreeMap::new()),
    }
}

fn records<T>(lookup: &Lookup, read: impl Fn(&RData) -> Option<T>) -> Found<T> {
    let found: Vec<T> = lookup.answers().iter().filter_map(|record| read(&record.data)).collect();
    // Aliases on the way count: after them the name may lead elsewhere.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    if found.is_empty() { Found::Nothing } else { Found::Records(found, Duration::from_secs(ttl.into())) }
}

fn target(data: &RData) -> Option<Target> {
    let RData::SRV(srv) = data else { return None };
    // Asked for as it stands, below no search domain: so its dot stays. The root alone is nobody (RFC 2782).
    let host = if srv.target.is_root() { String::new() } else { srv.target.to_ascii().to_ascii_lowercase() };
    Some(Target { priority: srv.priority, weight: srv.weight, port: srv.port, host: host.into() })
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("servers", &self.0.servers).field("timeout", &self.0.timeout).finish()
    }
}
