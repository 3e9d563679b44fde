//! What the data plane knows at one instant: one immutable value, published whole.

use std::fmt;
use std::sync::Arc;

use super::assign::{Openness, Salt};
use super::endpoint::{Endpoint, Pool, Question};
use super::id::{Name, Variant, Version};
use super::route::Route;
use super::route::table::RouteTable;
use super::service::Service;
use super::weight::Weight;

/// The whole routing state of one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every publication; the answer to "what is true now".
    pub generation: u64,
    /// Which service a request belongs to, as an index into `services`. Shared by every generation with the same routes and services:
    /// a change of weight costs the same with one route as with ten thousand.
    pub routes: Arc<RouteTable>,
    /// The services, in order of name.
    pub services: Vec<ActiveService>,
}

/// A service together with what the control plane decided about it.
#[derive(Clone, Debug)]
pub struct ActiveService {
    /// What its author wants.
    pub service: Arc<Service>,
    /// The stable of before the last promotion, kept connected and probed to go back to. Gets no requests.
    pub warm: Option<Arc<Pool>>,
    /// What runs.
    pub running: Running,
    /// Salt of the variant draw.
    pub salt: Salt,
    /// Names service, candidate and retry count in session cookies; equal on every replica.
    pub session_tag: u64,
    /// Names how its endpoints are dialled: connections opened under other TLS settings are not used again.
    pub dial_tag: u64,
}

/// The decided part: what a command or a rollout changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Share of the candidate.
    pub weight: Weight,
    /// The candidate was aborted: it receives nothing but, if allowed, forced requests.
    pub aborted: bool,
    /// How often this candidate was tried again.
    pub retry: u32,
    /// Names the current rollout in session cookies.
    pub rollout: u64,
}

/// A route names a service that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownService {
    /// The route.
    pub route: String,
    /// The name it uses.
    pub service: Name,
}

// === impl Snapshot ===

impl Snapshot {
    /// Builds a snapshot. `services` are put in order of name.
    ///
    /// # Errors
    /// A route that names a service which is not among `services`.
    pub fn build(
        generation: u64,
        routes: &[Route<Name>],
        mut services: Vec<ActiveService>,
    ) -> Result<Self, UnknownService> {
        services.sort_by(|a, b| a.service.name.cmp(&b.service.name));
        let routes = Self::resolve_routes(routes, services.iter().map(|s| &s.service.name).collect())?;
        Ok(Self { generation, routes, services })
    }

    /// Indexes `routes` for a snapshot with exactly the services called `names`. This is the slow part of building a snapshot.
    ///
    /// # Errors
    /// A route that names a service which is not among `names`.
    pub fn resolve_routes(routes: &[Route<Name>], mut names: Vec<&Name>) -> Result<Arc<RouteTable>, UnknownService> {
        names.sort_unstable();
        let index = |name: &Name| names.binary_search(&name).ok();
        let resolved = routes.iter().map(|route| resolve(route, &index)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(RouteTable::new(resolved)))
    }

    /// The next generation: the same routes over `services`, which have the same names in the same order.
    #[must_use]
    pub fn next(&self, services: Vec<ActiveService>) -> Self {
        Self { generation: self.generation + 1, routes: Arc::clone(&self.routes), services }
    }

    /// The service called `name`, with its index.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<(usize, &ActiveService)> {
        let at = self.services.binary_search_by(|s| s.service.name.as_str().cmp(name)).ok()?;
        Some((at, &self.services[at]))
    }
}

fn resolve(route: &Route<Name>, index: &impl Fn(&Name) -> Option<usize>) -> Result<Route<usize>, UnknownService> {
    let find =
        |name: &Name| index(name).ok_or_else(|| UnknownService { route: route.label.clone(), service: name.clone() });
    Ok(Route {
        matcher: route.matcher.clone(),
        target: route.target.try_map(find)?,
        timeout: route.timeout,
        label: route.label.clone(),
    })
}

// === impl ActiveService ===

impl ActiveService {
    /// `service` with what was decided about it.
    #[must_use]
    pub fn new(service: Arc<Service>, running: Running) -> Self {
        let version = service.candidate.as_ref().map(|pool| &pool.version);
        let salt = Salt::of_service(service.affinity.salt, &service.name, version, running.retry);
        let session_tag = Salt::session_tag(&service.name, version, running.retry);
        let dial_tag = service.upstream.dial_tag();
        Self { service, warm: None, running, salt, session_tag, dial_tag }
    }

    /// The same, with a pool that is kept to go back to.
    #[must_use]
    pub fn with_warm(self, warm: Option<Arc<Pool>>) -> Self {
        Self { warm, ..self }
    }

    /// What has to be asked to know all its endpoints.
    pub fn questions(&self) -> impl Iterator<Item = Question> + '_ {
        self.service.pools().chain(&self.warm).flat_map(|pool| pool.questions())
    }

    /// The pool of `variant`.
    #[must_use]
    pub fn pool(&self, variant: Variant) -> Option<&Arc<Pool>> {
        match variant {
            Variant::Stable => Some(&self.service.stable),
            Variant::Candidate => self.service.candidate.as_ref(),
        }
    }

    /// The version of `variant`.
    #[must_use]
    pub fn version(&self, variant: Variant) -> Option<&Version> {
        self.pool(variant).map(|pool| &pool.version)
    }

    /// Every endpoint with its variant and index in its pool.
    pub fn endpoints(&self) -> impl Iterator<Item = (Variant, usize, &Endpoint)> {
        Variant::ALL.into_iter().flat_map(move |variant| {
            let pool = self.pool(variant);
            pool.into_iter().flat_map(move |p| p.endpoints.iter().enumerate().map(move |(i, e)| (variant, i, e)))
        })
    }

    /// What the candidate may receive; `live_open` is the switch an abort throws before it publishes.
    #[must_use]
    pub fn openness(&self, live_open: bool) -> Openness {
        let keep = self.service.force.as_ref().is_some_and(|force| force.keep_candidate);
        Openness {
            weight: self.running.weight,
            open: live_open && !self.running.aborted,
            open_to_force: keep,
            exists: self.service.candidate.is_some(),
        }
    }

    /// Whether both variants receive assigned requests.
    #[must_use]
    pub fn is_split(&self) -> bool {
        let weight = self.running.weight;
        self.service.candidate.is_some() && !self.running.aborted && weight > Weight::ZERO && weight < Weight::FULL
    }
}

// === impl Running ===

impl Running {
    /// Nothing decided yet: everything on stable.
    #[must_use]
    pub const fn idle(rollout: u64) -> Self {
        Self { weight: Weight::ZERO, aborted: false, retry: 0, rollout }
    }
}

// === impl UnknownService ===

impl fmt::Display for UnknownService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: there is no service \"{}\"", self.route, self.service)
    }
}

impl std::error::Error for UnknownService {}
