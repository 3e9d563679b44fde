//! Who asks, and what they may: bearer tokens (RFC 6750) over TCP, the mode of the file on a unix socket.
//!
//! Without tokens whoever reaches the API on this machine may do everything. With any, every request over TCP needs one, on loopback too:
//! other users of this machine, and programs made to fetch an address, reach loopback as well. A network never gets in without.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};

use super::guard::one;
use super::problem::Problem;
use super::serve::{Connection, Peer, Reach};
use crate::config::settings::{Admin, Role, Token, TokenDigest};
use crate::control::handle::Author;
use crate::control::landing::Landing;

/// Answered to anyone: they say nothing but that the process lives.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// Time between two log lines about refusals; those between are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    actor: String,
    /// Where it is.
    source: String,
    role: Role,
    /// The token it is known by.
    token: Option<TokenDigest>,
    /// What has to land in the store with the effect of the command.
    landing: Option<Landing>,
}

/// Why nobody may ask so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// A token is needed.
    Missing,
    /// Whatever was sent is no bearer token.
    Malformed,
    /// There is no such token.
    Unknown,
}

/// Keeps the log short when someone tries again and again.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    logged_at: Option<Instant>,
    /// Refusals since then.
    unsaid: u64,
}

/// What a request with `method` needs.
pub(super) fn needed(method: &Method) -> Role {
    if method.is_safe() { Role::Viewer } else { Role::Operator }
}

/// Whether `path` is answered to anyone.
pub(super) fn is_open(path: &str) -> bool {
    OPEN.contains(&path)
}

// === impl Caller ===

impl Caller {
    /// Who asks with `headers` over `connection`.
    ///
    /// # Errors
    /// Why nobody may ask so; more than one `Authorization` is a problem of its own.
    pub(super) fn of(
        connection: &Connection,
        admin: &Admin,
        headers: &HeaderMap,
    ) -> Result<Result<Self, Denied>, Problem> {
        let sent = one(headers, &AUTHORIZATION)?;
        Ok(match sent.filter(|_| !admin.tokens.is_empty()) {
            Some(sent) => known(admin, sent).map(|token| Self::with_token(token, connection.peer)),
            None if is_let_in(admin, connection.reach()) => Ok(Self::without_token(connection.peer)),
            None => Err(Denied::Missing),
        })
    }

    fn with_token(token: &Token, peer: Peer) -> Self {
        let (actor, source) = (format!("token {}", token.name), peer.source());
        Self { actor, source, role: token.role, token: Some(token.digest), landing: None }
    }

    fn without_token(peer: Peer) -> Self {
        Self { actor: peer.actor(), source: peer.source(), role: Role::Admin, token: None, landing: None }
    }

    /// How it is called in events.
    pub(super) fn actor(&self) -> &str {
        &self.actor
    }

    /// Its address.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Who it is in the audit.
    pub(super) fn author(&self) -> Author {
        Author { actor: self.actor.clone(), source: self.source.clone() }
    }

    /// What keys of its commands and its places among readers belong to: its token, or all who have none.
    pub(super) fn scope(&self) -> &str {
        if self.has_token() { &self.actor } else { "" }
    }

    /// Has `landing` land with the effect of the command.
    pub(super) fn lands_with(&mut self, landing: Option<Landing>) {
        self.landing = landing;
    }

    /// What has to land in the store with the effect of the command.
    pub(super) fn landing(&self) -> Option<Landing> {
        self.landing.clone()
    }

    /// Whether it has shown a token: then it is no page in a browser, whatever it calls us.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// # Errors
    /// Its role is not enough for `what`.
    pub(super) fn may(&self, needed: Role, what: &str) -> Result<(), Problem> {
        if self.role >= needed {
            return Ok(());
        }
        let (role, needed) = (self.role.as_str(), needed.as_str());
        Err(Problem::forbidden(format!("{what} needs the role {needed}; {} has the role {role}", self.actor), needed))
    }

    /// Whether it would still be let in: tokens change while streams go on.
    pub(super) fn is_still_known(&self, admin: &Admin, reach: Reach) -> bool {
        match &self.token {
            Some(digest) => admin.tokens.iter().any(|token| token.digest.matches(digest)),
            None => is_let_in(admin, reach),
        }
    }
}

/// Whether a request without a token gets in.
fn is_let_in(admin: &Admin, reach: Reach) -> bool {
    match reach {
        Reach::Unix => true,
        Reach::Loopback => admin.tokens.is_empty(),
        Reach::Network => false,
    }
}

fn known<'a>(admin: &'a Admin, sent: &str) -> Result<&'a Token, Denied> {
    let (scheme, token) = sent.split_once(' ').ok_or(Denied::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::Malformed);
    }
    let sent = TokenDigest::of(token.trim().as_bytes());
    // Every token is looked at: the time says nothing about which it was.
    let found =
        admin.tokens.iter().fold(None, |found, token| if token.digest.matches(&sent) { Some(token) } else { found });
    found.ok_or(Denied::Unknown)
}

// === impl Denied ===

impl Denied {
    /// Why, for people.
    pub(super) const fn detail(self) -> &'static str {
        match self {
            Self::Missing => {
                "this needs a token, sent as Authorization: Bearer TOKEN (the command line takes it from $TIDEGATE_TOKEN or --token-file)"
            }
            Self::Malformed => "the Authorization header has to be: Bearer TOKEN",
            Self::Unknown => "the token is none of [admin] tokens of the configuration in force",
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::unauthorized(denied.detail(), denied == Denied::Unknown)
    }
}

// === impl Refusals ===

impl Refusals {
    /// Takes down that `peer` was refused, and logs it if it is time.
    pub(super) fn note(&self, now: Instant, peer: Peer, why: &str) {
        let Some(unsaid) = self.0.lock().unwrap_or_else(PoisonError::into_inner).refused(now) else { return };
        let from = peer.source();
        tracing::warn!(from, why, unsaid, "admin: refused");
    }
}

impl Window {
    /// How many went unsaid before this one, if it is to be logged.
    fn refused(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOG_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::settings::TokenSource;
    use crate::core::id::Name;
    use axum::http::HeaderValue;
    use std::net::Ipv4Addr;

    fn admin(tokens: &[(&str, Role)]) -> Admin {
        let token = |(name, role): &(&str, Role)| Token {
            name: Name::new(name).expect("name"),
            role: *role,
            digest: TokenDigest::of(format!("secret-of-{name}").as_bytes()),
            source: TokenSource::Env("X".to_owned()),
        };
        Admin { tokens: tokens.iter().map(token).collect(), ..Admin::default() }
    }

    fn ask(admin: &Admin, reach: Reach, sent: Option<&str>) -> Result<Caller, Denied> {
        let peer = match reach {
            Reach::Unix => Peer::Unix,
            Reach::Loopback | Reach::Network => Peer::Tcp((Ipv4Addr::LOCALHOST, 7).into()),
        };
        let mut headers = HeaderMap::new();
        if let Some(sent) = sent {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(sent).expect("a value"));
        }
        Caller::of(&Connection::fake(peer, reach), admin, &headers).expect("one header at most")
    }

    #[test]
    fn without_tokens_only_this_machine_gets_in() {
        let open = admin(&[]);
        for reach in [Reach::Unix, Reach::Loopback] {
            assert_eq!(ask(&open, reach, None).map(|caller| caller.role), Ok(Role::Admin));
            assert!(ask(&open, reach, Some("Bearer of-something-else")).is_ok(), "a token nobody asks for");
        }
        // The file may say loopback by now while the socket is still an open one.
        assert_eq!(ask(&open, Reach::Network, None).map(|_| ()), Err(Denied::Missing));
        assert_eq!(ask(&open, Reach::Network, Some("Bearer x")).map(|_| ()), Err(Denied::Missing));
    }

    #[test]
    fn with_tokens_every_request_over_tcp_needs_one() {
        let admin = admin(&[("ci", Role::Operator), ("dash", Role::Viewer)]);
        for reach in [Reach::Loopback, Reach::Network, Reach::Unix] {
            let ask = |sent| ask(&admin, reach, sent).map(|caller| (caller.actor, caller.role));
            assert_eq!(ask(Some("Bearer secret-of-ci")), Ok(("token ci".to_owned(), Role::Operator)));
            assert_eq!(ask(Some("bearer  secret-of-dash")), Ok(("token dash".to_owned(), Role::Viewer)));
            assert_eq!(ask(Some("Bearer secret-of-nobody")), Err(Denied::Unknown));
            assert_eq!(ask(Some("Bearer secret-of-c")), Err(Denied::Unknown));
            assert_eq!(ask(Some("Basic secret-of-ci")), Err(Denied::Malformed));
            assert_eq!(ask(Some("secret-of-ci")), Err(Denied::Malformed));
        }
        assert_eq!(ask(&admin, Reach::Loopback, None).map(|_| ()), Err(Denied::Missing));
        assert_eq!(ask(&admin, Reach::Network, None).map(|_| ()), Err(Denied::Missing));
        assert_eq!(ask(&admin, Reach::Unix, None).map(|caller| caller.actor), Ok("admin unix".to_owned()));
    }

    #[test]
    fn a_role_may_what_those_below_it_may() {
        let caller = |role| Caller::with_token(&admin(&[("x", role)]).tokens[0], Peer::Unix);
        for (role, allowed) in [(Role::Viewer, 1), (Role::Operator, 2), (Role::Admin, 3)] {
            let may = [Role::Viewer, Role::Operator, Role::Admin].iter().filter(|r| caller(role).may(**r, "x").is_ok());
            assert_eq!(may.count(), allowed);
        }
        assert_eq!(needed(&Method::GET), Role::Viewer);
        assert_eq!(needed(&Method::HEAD), Role::Viewer);
        assert_eq!(needed(&Method::POST), Role::Operator);
        assert_eq!(needed(&Method::DELETE), Role::Operator);
    }

    #[test]
    fn whoever_lost_its_token_is_not_known_any_more() {
        let (before, after) = (admin(&[("ci", Role::Viewer)]), admin(&[("other", Role::Admin)]));
        let caller = ask(&before, Reach::Network, Some("Bearer secret-of-ci")).expect("known");
        assert!(caller.is_still_known(&before, Reach::Network) && !caller.is_still_known(&after, Reach::Network));
        let open = ask(&admin(&[]), Reach::Loopback, None).expect("open");
        assert!(open.is_still_known(&admin(&[]), Reach::Loopback) && !open.is_still_known(&after, Reach::Loopback));
    }

    #[test]
    fn refusals_are_logged_once_in_a_while_with_their_number() {
        let (mut window, began) = (Window::default(), clock::now());
        assert_eq!(window.refused(began), Some(0));
        for _ in 0..1_000 {
            assert_eq!(window.refused(began + Duration::from_secs(9)), None);
        }
        assert_eq!(window.refused(began + LOG_EVERY), Some(1_000));
    }
}
