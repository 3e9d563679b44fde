//! Endpoints and pools: where a version of a service runs, as it is declared and as it is resolved.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{Name, Version};

/// Least and largest weight of an endpoint.
pub const WEIGHT_MIN: u32 = 1;
/// See [`WEIGHT_MIN`].
pub const WEIGHT_MAX: u32 = 100;
/// Most endpoints of a pool, resolved ones included; what names add beyond it is left out.
pub const ENDPOINTS_MAX: usize = 4_096;

/// Where an endpoint is. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// The path of a unix socket; written `unix:/path`.
    Unix(Arc<str>),
}

/// One address a version is served from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: Address,
    /// Its share among the endpoints of its pool, [`WEIGHT_MIN`] to [`WEIGHT_MAX`].
    pub weight: u32,
}

/// What makes an endpoint the same one across reloads and promotions: its state is kept by this key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The service it belongs to.
    pub service: Name,
    /// The version it serves.
    pub version: Version,
    /// Where it is.
    pub address: Address,
}

/// An element of `endpoints`, as the author wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Declared {
    /// Where, or what to ask for it.
    pub place: Place,
    /// Weight of every endpoint it stands for. Records of [`Place::Srv`] have weights of their own.
    pub weight: u32,
}

/// Where a declared endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// There.
    Fixed(Address),
    /// On this port of every address the name has.
    Host(Arc<str>, u16),
    /// Wherever the SRV records of the name point (RFC 2782); written `srv:NAME`.
    Srv(Arc<str>),
}

/// What has to be asked the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// The addresses of a name, A and AAAA.
    Host(Arc<str>),
    /// The SRV records of a name, and the addresses of their targets.
    Srv(Arc<str>),
}

/// What a [`Question`] was answered: sorted and without duplicates, so that records in another order are the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The addresses of a name.
    Host(BTreeSet<IpAddr>),
    /// Addresses, ports and weights of SRV targets.
    Srv(BTreeSet<(SocketAddr, u32)>),
}

/// The endpoints of one version of a service. Stored as it is declared: what names stand for is asked anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "stored::Pool", into = "stored::Pool")]
pub struct Pool {
    /// The release it serves.
    pub version: Version,
    /// Digest of the artifact, if the author gave one; a version never changes its digest.
    pub digest: Option<String>,
    /// What its author wrote, in file order, without duplicates, never empty.
    pub declared: Vec<Declared>,
    /// Where that is as far as it is known, in the same order and by address within a name, without duplicates. Empty as long as no
    /// name was ever answered.
    pub endpoints: Vec<Endpoint>,
}

// === impl Address ===

impl Address {
    /// What `Host` says when it is to be the endpoint's address. A unix socket has none to tell, and software that is asked through one
    /// expects `localhost` (as curl, nginx and Docker send it).
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Ip(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The port, where there is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl<A: Into<SocketAddr>> From<A> for Address {
    fn from(address: A) -> Self {
        Self::Ip(address.into())
    }
}

/// Neither `IP:port` nor `unix:/path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is IP:port or unix:/path")
    }
}

impl std::error::Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match text.strip_prefix("unix:") {
            Some("") => Err(BadAddress),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Ip).map_err(|_| BadAddress),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint with the usual weight.
    #[must_use]
    pub fn new(address: impl Into<Address>) -> Self {
        Self { address: address.into(), weight: WEIGHT_MIN }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

// === impl EndpointKey ===

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.version, self.address)
    }
}

// === impl Place, Question ===

impl Place {
    /// What has to be asked to know where it is.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        match self {
            Self::Fixed(_) => None,
            Self::Host(name, _) => Some(Question::Host(Arc::clone(name))),
            Self::Srv(name) => Some(Question::Srv(Arc::clone(name))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
            Self::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// How many addresses it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Host(addresses) => addresses.len(),
            Self::Srv(targets) => targets.len(),
        }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Pool ===

impl Pool {
    /// A pool of which nothing is resolved yet.
    #[must_use]
    pub fn new(version: Version, digest: Option<String>, declared: Vec<Declared>) -> Self {
        Self { version, digest, declared, endpoints: Vec::new() }.resolved(&|_| None)
    }

    /// A pool of fixed endpoints.
    #[must_use]
    pub fn fixed(version: Version, digest: Option<String>, endpoints: Vec<Endpoint>) -> Self {
        let declare = |e: Endpoint| Declared { place: Place::Fixed(e.address), weight: e.weight };
        Self::new(version, digest, endpoints.into_iter().map(declare).collect())
    }

    /// The same pool by what `answer` knows. An address several elements stand for is one endpoint, with the largest of their weights.
    #[must_use]
    pub fn resolved<'a>(&self, answer: &dyn Fn(&Question) -> Option<&'a Answer>) -> Self {
        let mut found: Vec<Endpoint> = Vec::new();
        let mut seen = std::collections::BTreeMap::new();
        let mut add = |address: Address, weight: u32| {
            if let Some(&at) = seen.get(&address) {
                let known: &mut Endpoint = &mut found[at];
                known.weight = known.weight.max(weight);
            } else if found.len() < ENDPOINTS_MAX {
                seen.insert(address.clone(), found.len());
                found.push(Endpoint { address, weight });
            }
        };
        for Declared { place, weight } in &self.declared {
            let answered = place.question().and_then(|question| answer(&question));
            match (place, answered) {
                (Place::Fixed(address), _) => add(address.clone(), *weight),
                (Place::Host(_, port), Some(Answer::Host(addresses))) => {
                    for ip in addresses {
                        add(Address::Ip((*ip, *port).into()), *weight);
                    }
                }
                (Place::Srv(_), Some(Answer::Srv(targets))) => {
                    for (address, weight) in targets {
                        add(Address::Ip(*address), *weight);
                    }
                }
                _ => {}
            }
        }
        Self { endpoints: found, ..self.clone() }
    }

    /// What has to be asked to know all its endpoints.
    pub fn questions(&self) -> impl Iterator<Item = Question> + '_ {
        self.declared.iter().filter_map(|declared| declared.place.question())
    }
}

/// The stored form.
mod stored {
    use serde::{Deserialize, Serialize};

    use super::{BadAddress, Version};

    #[derive(Clone, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Pool {
        version: Version,
        digest: Option<String>,
        declared: Vec<Declared>,
    }

    #[derive(Clone, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Declared {
        place: Place,
        weight: u32,
    }

    #[derive(Clone, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Place {
        Fixed(String),
        Host(String, u16),
        Srv(String),
    }

    impl From<super::Pool> for Pool {
        fn from(pool: super::Pool) -> Self {
            let declare = |declared: super::Declared| Declared {
                place: match declared.place {
                    super::Place::Fixed(address) => Place::Fixed(address.to_string()),
                    super::Place::Host(name, port) => Place::Host(name.to_string(), port),
                    super::Place::Srv(name) => Place::Srv(name.to_string()),
                },
                weight: declared.weight,
            };
            let declared = pool.declared.into_iter().map(declare).collect();
            Self { version: pool.version, digest: pool.digest, declared }
        }
    }

    impl TryFrom<Pool> for super::Pool {
        type Error = BadAddress;

        fn try_from(pool: Pool) -> Result<Self, BadAddress> {
            let declare = |declared: Declared| {
                let place = match declared.place {
                    Place::Fixed(address) => super::Place::Fixed(address.parse()?),
                    Place::Host(name, port) => super::Place::Host(name.into(), port),
                    Place::Srv(name) => super::Place::Srv(name.into()),
                };
                Ok(super::Declared { place, weight: declared.weight })
            };
            let declared = pool.declared.into_iter().map(declare).collect::<Result<_, _>>()?;
            Ok(Self::new(pool.version, pool.digest, declared))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    fn pool(declared: &[(Place, u32)]) -> Pool {
        let declared = declared.iter().map(|(place, weight)| Declared { place: place.clone(), weight: *weight });
        Pool::new(Version::new("v1").expect("version"), None, declared.collect())
    }

    fn shown(pool: &Pool) -> Vec<String> {
        pool.endpoints.iter().map(|e| format!("{}*{}", e.address, e.weight)).collect()
    }

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for text in ["10.0.0.1:80", "[fd00::1]:80", "unix:/run/app.sock"] {
            assert_eq!(address(text).to_string(), text);
        }
        for bad in ["unix:", "10.0.0.1", "web:80", ""] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
        assert_eq!(address("unix:/a").authority(), "localhost");
        assert_eq!((address("[::1]:9").authority().as_str(), address("[::1]:9").port()), ("[::1]:9", Some(9)));
    }

    #[test]
    fn every_record_of_a_name_is_an_endpoint_and_the_same_address_is_one() {
        let host = |port| Place::Host("web.internal".into(), port);
        let pool = pool(&[
            (host(80), 2),
            (Place::Fixed(address("10.0.0.2:80")), 7),
            (Place::Fixed(address("unix:/s")), 1),
            (host(81), 1),
            (Place::Srv("_http._tcp.web".into()), 1),
        ]);
        assert_eq!(shown(&pool), ["10.0.0.2:80*7", "unix:/s*1"], "what is fixed is there at once");
        let ips = ["fd00::1", "10.0.0.2", "10.0.0.1"].map(|ip| ip.parse().expect("ip"));
        let hosts = Answer::Host(ips.into());
        let srv = Answer::Srv([("10.0.0.1:80".parse().expect("address"), 9)].into());
        let resolved = pool.resolved(&|question| match question {
            Question::Host(_) => Some(&hosts),
            Question::Srv(_) => Some(&srv),
        });
        let expected = [
            "10.0.0.1:80*9",
            "10.0.0.2:80*7",
            "[fd00::1]:80*2",
            "unix:/s*1",
            "10.0.0.1:81*1",
            "10.0.0.2:81*1",
            "[fd00::1]:81*1",
        ];
        assert_eq!(shown(&resolved), expected);
        assert_eq!(shown(&resolved.resolved(&|_| None)), shown(&pool), "by what is declared, not by what was resolved");
        assert_eq!(pool.questions().count(), 3);
    }

    #[test]
    fn a_pool_is_stored_as_it_is_declared() {
        let places = [
            Place::Fixed(address("[fd00::1]:80")),
            Place::Fixed(address("unix:/s")),
            Place::Host("web".into(), 80),
            Place::Srv("_http._tcp.web".into()),
        ];
        let pool = pool(&places.map(|place| (place, 3)));
        let stored = serde_json::to_string(&pool).expect("stored");
        assert_eq!(serde_json::from_str::<Pool>(&stored).expect("read"), pool);
        assert!(serde_json::from_str::<Pool>(&stored.replace("unix:/s", "nowhere")).is_err());
        assert!(serde_json::from_str::<Pool>(&stored.replace("\"digest\"", "\"later\"")).is_err());
    }

    #[test]
    fn a_pool_is_bounded_whatever_names_say() {
        let many: BTreeSet<IpAddr> = (0..5_000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into())).collect();
        let answer = Answer::Host(many);
        let pool = pool(&[(Place::Host("web".into(), 80), 1)]).resolved(&|_| Some(&answer));
        assert_eq!(pool.endpoints.len(), ENDPOINTS_MAX);
    }
}
