//! Asks the DNS: hickory's stub resolver, without its cache, because whoever asks follows the TTL himself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant as Deadline;

use crate::core::endpoint::Question;
use crate::core::resolve::{Addresses, Found, Heard, Target, used};

/// Questions on their way to servers at the same time; more wait for their turn.
pub const QUERIES_MAX: usize = 128;
/// How often one server is asked the same, at most.
const ATTEMPTS_MAX: usize = 2;
/// Longest wait for a name, in waits for one server: several servers and search domains share it.
const PATIENCE: u32 = 4;
/// Domains of `/etc/resolv.conf` a name is searched below; more are left out.
const DOMAINS_MAX: usize = 32;
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
    made: Mutex<Option<(Instant, Arc<Made>)>>,
}

/// What the files of the system, or the settings in their place, say.
struct Made {
    resolver: TokioResolver,
    hosts: Hosts,
    search: Search,
}

/// Below which domains names are searched that have no dot at their end.
#[derive(Clone, Debug, Default)]
struct Search {
    domains: Vec<Name>,
    /// Names with at least so many dots are asked for as they stand first, the others last.
    ndots: usize,
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
        let made = match self.made(now) {
            Ok(made) => made,
            Err(why) => return failed(question, &why),
        };
        match question {
            Question::Host(name) => Heard::Host(self.addresses(&made, name).await),
            Question::Srv(name) => {
                let found = self.targets(&made, name).await;
                let hosts = match &found {
                    Found::Records(targets, _) => self.hosts(&made, &used(targets)).await,
                    _ => BTreeMap::new(),
                };
                Heard::Srv(found, hosts)
            }
        }
    }

    async fn hosts(&self, made: &Arc<Made>, targets: &[Target]) -> BTreeMap<Arc<str>, Addresses> {
        let mut asking = JoinSet::new();
        let mut hosts: Vec<_> = targets.iter().map(|target| Arc::clone(&target.host)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let (this, made) = (self.clone(), Arc::clone(made));
            asking.spawn(async move {
                let found = this.addresses(&made, &host).await;
                (host, found)
            });
        }
        asking.join_all().await.into_iter().collect()
    }

    /// Both families are asked for at every name before the next one, so that they are never of two names.
    async fn addresses(&self, made: &Made, name: &str) -> Addresses {
        let failed = |why: String| [Found::Failed(why.clone()), Found::Failed(why)];
        let names = match parsed(name) {
            Ok(name) => match made.in_hosts(&name) {
                Some(found) => return found,
                None => made.search.names(&name),
            },
            Err(why) => return failed(why),
        };
        let (_permit, until) = match self.turn(2).await {
            Ok(turn) => turn,
            Err(why) => return failed(why),
        };
        let mut found = [Found::Nothing, Found::Nothing];
        for name in &names {
            let (v4, v6) = tokio::join!(
                look(&made.resolver, name, RecordType::A, until, RData::ip_addr),
                look(&made.resolver, name, RecordType::AAAA, until, RData::ip_addr)
            );
            found = [v4, v6];
            if found.iter().any(settles) {
                break;
            }
        }
        found
    }

    async fn targets(&self, made: &Made, name: &str) -> Found<Target> {
        let names = match parsed(name) {
            Ok(name) => made.search.names(&name),
            Err(why) => return Found::Failed(why),
        };
        let (_permit, until) = match self.turn(1).await {
            Ok(turn) => turn,
            Err(why) => return Found::Failed(why),
        };
        let mut found = Found::Nothing;
        for name in &names {
            found = look(&made.resolver, name, RecordType::SRV, until, target).await;
            if settles(&found) {
                break;
            }
        }
        found
    }

    /// Waits for a turn to send `queries` at the same time; until when they have to be answered.
    async fn turn(&self, queries: u32) -> Result<(SemaphorePermit<'_>, Deadline), String> {
        let permit = self.0.queries.acquire_many(queries).await;
        let permit = permit.map_err(|_| "the resolver was closed".to_owned())?;
        Ok((permit, tokio::time::sleep(self.0.timeout * PATIENCE).deadline()))
    }

    fn made(&self, now: Instant) -> Result<Arc<Made>, String> {
        let mut kept = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, made)) = &*kept
            && now.saturating_duration_since(*at) < FILES
        {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(self.0.make().map_err(|error| error.to_string())?);
        *kept = Some((now, Arc::clone(&made)));
        Ok(made)
    }
}

// === impl Inner ===

impl Inner {
    fn make(&self) -> Result<Made, NetError> {
        let with = |servers| (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default());
        let (config, options) = if self.servers.is_empty() {
            // Without servers, names of /etc/hosts are all there is.
            read_system_conf().unwrap_or_else(|error| {
                tracing::warn!(%error, "no DNS server is known");
                with(Vec::new())
            })
        } else {
            with(self.servers.iter().map(server).collect())
        };
        // No such file: nobody is in it.
        let hosts = Hosts::from_system().unwrap_or_default();
        Made::new(&config, options, hosts, self.timeout)
    }
}

// === impl Made ===

impl Made {
    /// Names are put together here and looked up in `hosts` here: the resolver is only asked for whole ones.
    fn new(
        config: &ResolverConfig,
        mut options: ResolverOpts,
        hosts: Hosts,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        let search = Search::of(config, options.ndots);
        options.timeout = timeout;
        options.attempts = ATTEMPTS_MAX;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build()?, hosts, search })
    }

    /// What the file of hosts says; a family it leaves out is one the host does not have.
    fn in_hosts(&self, name: &Name) -> Option<Addresses> {
        let found = [RecordType::A, RecordType::AAAA].map(|record| {
            let lookup = self.hosts.lookup_static_host(&Query::query(name.clone(), record));
            lookup.map_or(Found::Nothing, |lookup| records(&lookup, RData::ip_addr))
        });
        found.iter().any(settles).then_some(found)
    }
}

// === impl Search ===

impl Search {
    /// As `resolv.conf(5)` has it: the domain of the system counts where no others are listed.
    fn of(config: &ResolverConfig, ndots: usize) -> Self {
        let system = config.domain().filter(|_| config.search().is_empty());
        Self { domains: config.search().iter().chain(system).take(DOMAINS_MAX).cloned().collect(), ndots }
    }

    /// The whole names `name` may mean, in the order they are asked for.
    fn names(&self, name: &Name) -> Vec<Name> {
        let mut whole = name.clone();
        whole.set_fqdn(true);
        if name.is_fqdn() || name.is_localhost() {
            return vec![whole];
        }
        // What becomes too long below a domain is no name there.
        let below = self.domains.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut names: Vec<Name> = Vec::new();
        let first = usize::from(name.num_labels()) > self.ndots;
        names.extend(first.then(|| whole.clone()));
        for name in below.chain([whole]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

// === functions ===

/// Checked when the file was read: ASCII, and no label is too long. What an SRV record says was not.
fn parsed(name: &str) -> Result<Name, String> {
    Name::from_ascii(name).map_err(|error| error.to_string())
}

/// Whether no further name is asked for: there are records, or nobody knows. After a failure the next name would be another one's.
fn settles<T>(found: &Found<T>) -> bool {
    !matches!(found, Found::Nothing)
}

/// Records of one type of a whole name, as `read` takes them.
async fn look<T>(
    resolver: &TokioResolver,
    name: &Name,
    record: RecordType,
    until: Deadline,
    read: impl Fn(&RData) -> Option<T>,
) -> Found<T> {
    match tokio::time::timeout_at(until, resolver.lookup(name.clone(), record)).await {
        Ok(Ok(lookup)) => records(&lookup, read),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Found::Nothing,
        Ok(Err(error)) => Found::Failed(format!("{record} of {name}: {error}")),
        Err(_) => Found::Failed(format!("{record} of {name}: no answer in time")),
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

#[cfg(test)]
mod tests;
