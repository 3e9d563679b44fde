//! A service as its author wants it: two pools, how to reach them, who may choose, who stays where.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use super::balance::Balance;
use super::circuit::PoolLimits;
use super::endpoint::{Answer, Pool, Question};
use super::health::wanted::Health;
use super::id::Name;
use super::outlier::OutlierRules;
use super::retry::RetryRules;
use super::rollout::wanted::Wanted;

/// One service, everything resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// The release in service.
    pub stable: Arc<Pool>,
    /// The release on trial, if one is declared.
    pub candidate: Option<Arc<Pool>>,
    /// How its endpoints are reached.
    pub upstream: Upstream,
    /// How its endpoints are probed.
    pub health: Arc<Health>,
    /// When an endpoint is left alone because its requests fail.
    pub outlier: OutlierRules,
    /// Who may choose the variant by header or cookie; absent: nobody.
    pub force: Option<Force>,
    /// Which requests stay together on one variant.
    pub affinity: Affinity,
    /// How a candidate becomes stable, and what it is judged by.
    pub rollout: Arc<Wanted>,
}

/// How the endpoints of a service are reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// What is spoken to them.
    pub protocol: Protocol,
    /// TLS towards the endpoints; absent: plain text.
    pub tls: Option<UpstreamTls>,
    /// The `Host` sent upstream.
    pub host: HostMode,
    /// Longest wait for a connection (TCP and TLS together).
    pub connect_timeout: Duration,
    /// Longest wait for the response head, all attempts together.
    pub response_timeout: Duration,
    /// Longest silence within a body, each way.
    pub body_idle: Duration,
    /// How long an idle connection is kept.
    pub keepalive_idle: Duration,
    /// How much of each pool may be busy at the same time.
    pub limits: PoolLimits,
    /// What is tried again when it failed.
    pub retry: RetryRules,
    /// How an endpoint of the pool is chosen.
    pub balance: Balance,
    /// Sources of the key a request is hashed by, the first present wins; empty unless `balance` is [`Balance::RingHash`].
    pub hash_key: Vec<KeySource>,
    /// How long an endpoint that became ready grows into its share; zero: it has it at once.
    pub slow_start: Duration,
    /// How long requests in flight on a removed endpoint may go on.
    pub drain_timeout: Duration,
    /// How long upgraded streams on a removed endpoint may go on.
    pub websocket_drain: Duration,
}

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    Http1,
    /// HTTP/2, many on one: by prior knowledge in plain text, by ALPN over TLS.
    Http2,
}

/// TLS towards endpoints. PEM contents are read when the configuration is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Trusted roots in PEM instead of the platform's.
    pub ca: Option<PemFile>,
    /// Client certificate chain and key in PEM.
    pub client: Option<(PemFile, PemFile)>,
    /// Server name to ask for and to verify.
    pub sni: String,
    /// Accept any certificate (testing only).
    pub insecure: bool,
}

/// A PEM file as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct PemFile {
    /// Where it was read from.
    pub path: String,
    /// Its bytes; never shown.
    pub pem: Arc<[u8]>,
}

/// Which `Host` an upstream sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMode {
    /// The client's.
    Preserve,
    /// The endpoint's address.
    Endpoint,
    /// This name.
    Name(String),
}

/// Who may choose the variant of a request. Every condition given must hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Force {
    /// Header that names the variant, lower case.
    pub header: Option<String>,
    /// Cookie that names the variant.
    pub cookie: Option<String>,
    /// Client addresses allowed to; empty: all.
    pub allow_from: Vec<IpNet>,
    /// Secret that has to follow the value after a colon (`candidate:SECRET`).
    pub secret: Option<Secret>,
    /// Whether an aborted candidate can still be reached by force.
    pub keep_candidate: bool,
}

/// A secret read from the environment or a file, and the name of the variable or path of the file it came from. The secret
/// is never shown; its origin is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>, pub Arc<str>);

/// Which requests stay together on one variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Affinity {
    /// Sources of the key; the first present wins.
    pub key: Vec<KeySource>,
    /// The cookie issued when the key is ours.
    pub cookie: AffinityCookie,
    /// What the hash of the key is salted with.
    pub salt: SaltMode,
    /// What an increase of the weight does to those on stable.
    pub on_increase: OnIncrease,
    /// Key that authenticates `new_sessions` cookies where several proxies must agree.
    pub secret: Option<Secret>,
}

/// The affinity cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinityCookie {
    /// Its name.
    pub name: String,
    /// How long browsers keep it.
    pub max_age: Duration,
    /// Its `SameSite` attribute.
    pub same_site: SameSite,
}

/// `SameSite` of RFC 6265bis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`
    Strict,
    /// `Lax`
    Lax,
    /// `None` (implies `Secure`)
    None,
}

/// Where an affinity or split key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// Our own cookie.
    OwnCookie,
    /// A cookie of the application.
    Cookie(String),
    /// A request header, lower case.
    Header(String),
    /// A query parameter.
    Query(String),
    /// The client's address.
    ClientIp,
}

/// What salts the bucket hash of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaltMode {
    /// Service, candidate version and retry count: other users go first each time.
    Rollout,
    /// The service alone: the same users always go first.
    Static,
}

/// What happens to sessions on stable when the weight rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIncrease {
    /// Whoever's bucket falls below the weight moves to the candidate; nobody moves back.
    Move,
    /// Sessions stay where they began.
    NewSessions,
}

// === impl Service ===

impl Service {
    /// Its pools.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.stable).chain(&self.candidate)
    }

    /// The tables of the file in which it differs from `other`, its pools left out.
    #[must_use]
    pub fn differing_tables(&self, other: &Self) -> Vec<&'static str> {
        let tables = [
            ("upstream", self.upstream != other.upstream),
            ("health", self.health != other.health),
            ("outlier", self.outlier != other.outlier),
            ("force", self.force != other.force),
            ("affinity", self.affinity != other.affinity),
            ("rollout", self.rollout != other.rollout),
        ];
        tables.into_iter().filter_map(|(table, differs)| differs.then_some(table)).collect()
    }

    /// What has to be asked to know all its endpoints.
    pub fn questions(&self) -> impl Iterator<Item = Question> + '_ {
        self.pools().flat_map(|pool| pool.questions())
    }

    /// The same service by what `answer` knows; `None` if that changes nothing about its endpoints.
    #[must_use]
    pub fn resolved<'a>(&self, answer: &dyn Fn(&Question) -> Option<&'a Answer>) -> Option<Self> {
        let stable = self.stable.resolved(answer);
        let candidate = self.candidate.as_ref().map(|pool| pool.resolved(answer));
        let same = stable == *self.stable && candidate.as_ref() == self.candidate.as_deref();
        let kept = |new: Pool, old: &Arc<Pool>| if new == **old { Arc::clone(old) } else { Arc::new(new) };
        (!same).then(|| Self {
            stable: kept(stable, &self.stable),
            candidate: candidate.zip(self.candidate.as_ref()).map(|(new, old)| kept(new, old)),
            ..self.clone()
        })
    }
}

// === impl Upstream ===

#[cfg(test)]
impl Upstream {
    /// One for tests: plain HTTP/1.1, every wait a second long.
    pub(crate) fn in_seconds() -> Self {
        let second = Duration::from_secs(1);
        Self {
            protocol: Protocol::Http1,
            tls: None,
            host: HostMode::Preserve,
            connect_timeout: second,
            response_timeout: second,
            body_idle: second,
            keepalive_idle: second,
            limits: PoolLimits::default(),
            retry: RetryRules::default(),
            balance: Balance::LeastRequest,
            hash_key: Vec::new(),
            slow_start: Duration::ZERO,
            drain_timeout: second,
            websocket_drain: second,
        }
    }
}

impl Upstream {
    /// Names how endpoints are dialled. Equal for equal protocol and TLS settings, within a process.
    #[must_use]
    pub fn dial_tag(&self) -> u64 {
        // Even in plain text, odd with TLS.
        let Some(tls) = &self.tls else { return self.protocol as u64 * 2 };
        let mut hasher = SipHasher13::new();
        hasher.write_u8(self.protocol as u8);
        hasher.write(tls.sni.as_bytes());
        hasher.write_u8(u8::from(tls.insecure));
        let (cert, key) = tls.client.as_ref().map_or((None, None), |(cert, key)| (Some(cert), Some(key)));
        for file in [tls.ca.as_ref(), cert, key] {
            hasher.write_usize(file.map_or(0, |file| file.pem.len() + 1));
            hasher.write(file.map_or(&[], |file| &file.pem));
        }
        hasher.finish() | 1
    }
}

// === impl Force ===

impl Force {
    /// Whether a client at `ip` may choose at all (the secret is checked with the value).
    #[must_use]
    pub fn allows(&self, ip: Option<IpAddr>) -> bool {
        self.allow_from.is_empty() || ip.is_some_and(|ip| self.allow_from.iter().any(|net| net.contains(&ip)))
    }
}

// === Debug without secrets ===

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl std::fmt::Debug for PemFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Force {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Force")
            .field("header", &self.header)
            .field("cookie", &self.cookie)
            .field("allow_from", &self.allow_from)
            .field("secret", &self.secret)
            .field("keep_candidate", &self.keep_candidate)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_how_endpoints_are_dialled_changes_the_tag() {
        let tls = |sni: &str| Some(UpstreamTls { ca: None, client: None, sni: sni.into(), insecure: false });
        let upstream = Upstream::in_seconds();
        let tag = |protocol, tls| Upstream { protocol, tls, ..upstream.clone() }.dial_tag();
        let tags = [
            tag(Protocol::Http1, None),
            tag(Protocol::Http2, None),
            tag(Protocol::Http1, tls("a")),
            tag(Protocol::Http2, tls("a")),
            tag(Protocol::Http2, tls("b")),
        ];
        for (at, one) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(one), "{tags:?}");
        }
        assert_eq!(tag(Protocol::Http2, tls("b")), tags[4]);
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let secret = Secret(Arc::from(&b"hunter2"[..]), Arc::from("FORCE_SECRET"));
        let pem = PemFile { path: "a.pem".into(), pem: Arc::from(&b"hunter2"[..]) };
        assert!(!format!("{secret:?} {pem:?}").contains("hunter2"));
        assert!(!format!("{pem:?}").contains("104"));
    }
}
