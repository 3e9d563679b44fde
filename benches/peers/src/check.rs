//! That every proxy does the same work, tried before it is measured: the right body, both pools in their shares, a cookie that keeps a user
//! where he is, and the added fields at the origin.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::load::{Kind, Load, Protocol};
use crate::origin::Origin;
use crate::peer::{Instance, Places};
use crate::probe::{Answer, ask};
use crate::process::pause;
use crate::tool::{Extra, Running};

/// Requests of one user, who has to stay where he is.
const SAME_USER: usize = 40;
/// The share of the candidate.
const SHARE: f64 = 0.05;
/// What is forgiven, beside five standard deviations of chance.
const SHARE_OFF: f64 = 0.005;
/// Requests to judge the share by, and how many seconds are spent on getting them.
const SHARE_REQUESTS_MIN: u64 = 2_000;
const SHARE_SECONDS_MAX: u32 = 10;
/// Longest until lines of the access log are written.
const LOG_DELAY_MAX: Duration = Duration::from_secs(15);
/// Fields that the origin has to see.
const FIELDS: [&str; 5] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id"];

/// What later runs need to know.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// `NAME=VALUE` of a cookie the proxy issued, for a user on stable.
    pub cookie: Option<String>,
}

/// Tries all of it.
///
/// # Errors
/// The first thing that is not as it has to be.
pub fn check(load: &Load, instance: &mut Instance, places: &Places, origin: &Origin) -> Result<Checked, Failure> {
    instance.child.alive()?;
    body(load, instance, places)?;
    if instance.peer.only_forwards() {
        return Ok(Checked::default());
    }
    fields(load, instance, places)?;
    share(load, instance, places, origin)?;
    let cookie = affinity(load, instance, places)?;
    if load.kind == Kind::Logged {
        logged(instance)?;
    }
    Ok(Checked { cookie: Some(cookie) })
}

/// Lines in the access log, at once or when its buffer is written.
fn logged(instance: &Instance) -> Result<(), Failure> {
    let begun = Instant::now();
    while instance.truncate_log() == 0 {
        if begun.elapsed() > LOG_DELAY_MAX {
            return Err(Failure("the access log is empty".into()));
        }
        pause(Duration::from_millis(100))?;
    }
    Ok(())
}

/// The answer of the load itself: its status, and its length.
fn body(load: &Load, instance: &Instance, places: &Places) -> Result<(), Failure> {
    let mut arguments = vec!["-H", "Expect:"];
    let upload = places.dir.join("upload");
    let file = format!("@{}", upload.display());
    if load.kind == Kind::Upload {
        std::fs::write(&upload, vec![b'x'; 64 << 10])?;
        arguments.extend(["--data-binary", &file]);
    }
    let answer = ask(load, instance, places, load.path, 1, &arguments)?;
    good(&answer, 1)?;
    if load.protocol == Protocol::Grpc {
        // curl writes trailers right behind the body.
        if answer.text.trim_end().ends_with("grpc-status: 0") {
            return Ok(());
        }
        return Err(Failure(format!("no trailer grpc-status: 0 in: {}", answer.start())));
    }
    let body = answer.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let right = if load.kind == Kind::Upload { body == "65536" } else { body.len() as u64 == load.answer };
    if right { Ok(()) } else { Err(Failure(format!("a body of {} bytes, wanted {}", body.len(), load.answer))) }
}

/// What the origin saw.
fn fields(load: &Load, instance: &Instance, places: &Places) -> Result<(), Failure> {
    let answer = ask(load, instance, places, "/echo", 1, &[])?;
    good(&answer, 1)?;
    for name in FIELDS {
        if answer.values(name).iter().all(|value| value.is_empty()) {
            return Err(Failure(format!("the origin does not see {name}: {}", answer.text.replace("\r\n", " | "))));
        }
    }
    Ok(())
}

/// Both pools in their shares, counted by the origin while the load runs for a second.
fn share(load: &Load, instance: &Instance, places: &Places, origin: &Origin) -> Result<(), Failure> {
    let before = origin.served();
    // A light one, so that large bodies do not take long.
    let light = match load.protocol {
        Protocol::Grpc => *load,
        _ => Load { kind: Kind::Small, path: "/64", answer: 64, connections: load.connections.min(16), ..*load },
    };
    let (mut stable, mut candidate) = (0, 0);
    for _ in 0..SHARE_SECONDS_MAX {
        Running::start(&light, instance, places, &Extra::default(), Duration::from_secs(1))?.finish()?;
        let now = origin.served();
        (stable, candidate) = (now.0 - before.0, now.1 - before.1);
        if stable + candidate >= SHARE_REQUESTS_MIN {
            break;
        }
    }
    let requests = (stable + candidate) as f64;
    let chance = 5.0 * (SHARE * (1.0 - SHARE) / requests).sqrt();
    if stable + candidate < SHARE_REQUESTS_MIN || (candidate as f64 / requests - SHARE).abs() > SHARE_OFF.max(chance) {
        return Err(Failure(format!(
            "{candidate} of {requests} requests reached the candidate, wanted 5 % of at least {SHARE_REQUESTS_MIN}"
        )));
    }
    Ok(())
}

/// A user of either pool stays there. Returns the cookie of one on stable.
fn affinity(load: &Load, instance: &Instance, places: &Places) -> Result<String, Failure> {
    let mut cookie = None;
    for pool in ["stable", "candidate"] {
        let found = user_of(pool, load, instance, places)?;
        let field = format!("Cookie: {found}");
        let answer = ask(load, instance, places, small(load), SAME_USER, &["-H", &field])?;
        good(&answer, SAME_USER)?;
        if answer.values("x-pool").iter().any(|&seen| seen != pool) {
            return Err(Failure(format!("a user of {pool} did not stay there")));
        }
        cookie.get_or_insert(found);
    }
    cookie.ok_or_else(|| Failure("no cookie".into()))
}

/// A cookie that was issued together with an answer of `pool`.
fn user_of(pool: &str, load: &Load, instance: &Instance, places: &Places) -> Result<String, Failure> {
    // With 5 % for the candidate, 400 users without one have a chance of one in a billion.
    for _ in 0..40 {
        let answers = ask(load, instance, places, small(load), 10, &[])?;
        for text in answers.text.split("HTTP/").skip(1) {
            let answer = Answer { text: text.into(), version: answers.version };
            if answer.values("x-pool") == [pool] {
                return answer.cookie().ok_or_else(|| Failure(format!("no cookie is issued: {}", answer.start())));
            }
        }
    }
    Err(Failure(format!("no user reached {pool}")))
}

fn small(load: &Load) -> &'static str {
    if load.protocol == Protocol::Grpc { load.path } else { "/64" }
}

fn good(answer: &Answer, wanted: usize) -> Result<(), Failure> {
    if answer.good() == wanted {
        return Ok(());
    }
    Err(Failure(format!(
        "{} of {wanted} answers in HTTP/{} with status 200: {}",
        answer.good(),
        answer.version,
        answer.start()
    )))
}
