//! What probes found out, as control takes it down: events in the journal, and endpoints that stayed only until others were ready go.

use crate::core::endpoint::EndpointKey;
use crate::core::health::{Effect, Readiness};
use crate::core::id::Variant;
use crate::core::snapshot::Snapshot;
use crate::state::live::ServiceLive;

use super::journal::{Note, What};

/// What probes found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Something about an endpoint changed.
    Changed {
        /// The endpoint.
        key: EndpointKey,
        /// What changed.
        effect: Effect,
        /// The result that decided it, in words.
        detail: String,
    },
    /// Every endpoint there was at the start was asked once, or the time for it is over.
    FirstRound {
        /// Endpoints that are ready.
        ready: usize,
        /// Endpoints there are.
        all: usize,
    },
}

/// `finding` as an event.
pub(super) fn note(finding: Finding, generation: u64) -> Note {
    let actor = "probes".to_owned();
    match finding {
        Finding::Changed { key, effect, detail } => {
            let (what, from, to) = match effect {
                Effect::Became { from, to: Readiness::Ready } => (What::EndpointReady, from.as_str(), "ready"),
                Effect::Became { from, to } => (What::EndpointNotReady, from.as_str(), to.as_str()),
                Effect::Liveness { alive: true } => (What::EndpointAlive, "not_alive", "alive"),
                Effect::Liveness { alive: false } => (What::EndpointNotAlive, "alive", "not_alive"),
            };
            let change = Some((from.to_owned(), to.to_owned()));
            let detail = Some(format!("{} {}: {detail}", key.version, key.address));
            Note { actor, what, service: Some(key.service.to_string()), change, detail, generation }
        }
        Finding::FirstRound { ready, all } => {
            let detail = Some(format!("{ready} of {all} endpoints are ready"));
            Note { actor, what: What::FirstProbes, service: None, change: None, detail, generation }
        }
    }
}

/// Whether an endpoint of a service is there only because too few of its pool take requests: a change may let it go.
pub(super) fn keeps_left_ones(live: &ServiceLive) -> bool {
    Variant::ALL.into_iter().any(|variant| live.kept(variant) > 0)
}

/// The same decisions as a generation of their own: only endpoints differ.
pub(super) fn next_generation(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        generation: snapshot.generation + 1,
        routes: std::sync::Arc::clone(&snapshot.routes),
        services: snapshot.services.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::core::health::Readiness;
    use crate::core::id::{Name, Version};
    use crate::state::fixture::service_at;
    use crate::state::live::EndpointLive;
    use std::sync::Arc;

    fn stable(bench: &fake::Bench) -> Vec<Arc<EndpointLive>> {
        bench.current.load().live[0].stable.clone()
    }

    fn ports(endpoints: &[Arc<EndpointLive>]) -> Vec<u16> {
        endpoints.iter().filter_map(|e| e.key.address.port()).collect()
    }

    async fn tell(bench: &fake::Bench, endpoint: &EndpointLive, from: Readiness, to: Readiness) {
        endpoint.health.set_readiness(to);
        let key = endpoint.key.clone();
        bench.handle.found(Finding::Changed { key, effect: Effect::Became { from, to }, detail: "asked".into() }).await;
        // Whatever was sent before is done once a command is answered.
        let _ = bench.handle.set_weight("web", crate::core::weight::Weight::ZERO, "test", None).await;
    }

    #[tokio::test]
    async fn the_last_ready_endpoints_go_once_a_replacement_is_ready() {
        let bench = fake::start(fake::settings(vec![service_at("web", 8_000, 2)])).await;
        let old = stable(&bench);
        old[0].health.set_readiness(Readiness::Ready);
        bench.write(fake::settings(vec![service_at("web", 8_100, 2)]));
        bench.handle.reload("test").await.expect("applied");
        let kept = stable(&bench);
        assert_eq!(ports(&kept), [8_100, 8_101, 8_000], "the ready one of the old stays");
        assert!(!old[0].is_removed() && old[1].is_removed());
        let before = bench.current.load().snapshot.generation;
        tell(&bench, &kept[1], Readiness::Unknown, Readiness::Ready).await;
        assert_eq!(ports(&stable(&bench)), [8_100, 8_101]);
        assert!(old[0].is_removed() && bench.current.load().snapshot.generation == before + 1);
        let event = bench.handle.events(1).pop().expect("an event");
        assert_eq!((event.what.as_str(), event.to.as_deref()), ("endpoint_ready", Some("ready")));
        assert!(event.detail.expect("words").starts_with("v1 127.0.0.1:8101: asked"));
    }

    /// Ten were replaced by ten: one that is up need not carry what ten did, and one that never comes up keeps nobody.
    #[tokio::test]
    async fn old_endpoints_stay_until_as_many_serve_or_all_new_ones_are_decided() {
        let bench = fake::start(fake::settings(vec![service_at("web", 8_000, 3)])).await;
        let old = stable(&bench);
        for endpoint in &old {
            endpoint.health.set_readiness(Readiness::Ready);
        }
        bench.write(fake::settings(vec![service_at("web", 8_100, 3)]));
        bench.handle.reload("test").await.expect("applied");
        let new = stable(&bench);
        let (unknown, ready) = (Readiness::Unknown, Readiness::Ready);
        tell(&bench, &new[0], unknown, ready).await;
        assert_eq!(ports(&stable(&bench)), [8_100, 8_101, 8_102, 8_000, 8_001, 8_002], "one is not enough");
        tell(&bench, &old[0], ready, Readiness::Lost).await;
        assert_eq!(ports(&stable(&bench))[3..], [8_001, 8_002]);
        tell(&bench, &new[1], unknown, ready).await;
        assert_eq!(ports(&stable(&bench)), [8_100, 8_101, 8_102], "as many as the old ones are");

        // One never comes up.
        let old = stable(&bench);
        tell(&bench, &old[2], unknown, ready).await;
        bench.write(fake::settings(vec![service_at("web", 8_200, 3)]));
        bench.handle.reload("test").await.expect("applied");
        let new = stable(&bench);
        tell(&bench, &new[0], unknown, ready).await;
        tell(&bench, &new[1], unknown, Readiness::NotReady).await;
        assert_eq!(stable(&bench).len(), 6, "the third may still come");
        tell(&bench, &new[2], unknown, Readiness::NotReady).await;
        assert_eq!(ports(&stable(&bench)), [8_200, 8_201, 8_202]);
    }

    #[tokio::test]
    async fn one_that_stayed_and_fails_goes_too() {
        let bench = fake::start(fake::settings(vec![service_at("web", 8_000, 1)])).await;
        let old = stable(&bench);
        old[0].health.set_readiness(Readiness::Ready);
        bench.write(fake::settings(vec![service_at("web", 8_100, 1)]));
        bench.handle.reload("test").await.expect("applied");
        tell(&bench, &old[0], Readiness::Ready, Readiness::Lost).await;
        assert_eq!(ports(&stable(&bench)), [8_100]);
        assert!(old[0].is_removed());
    }

    #[test]
    fn findings_are_events_in_words() {
        let key = EndpointKey {
            service: Name::new("web").expect("name"),
            version: Version::new("v2").expect("version"),
            address: "10.0.0.1:80".parse().expect("address"),
        };
        let effect = Effect::Became { from: Readiness::Ready, to: Readiness::Lost };
        let event = note(Finding::Changed { key, effect, detail: "readiness failed".into() }, 7);
        assert_eq!(event.change, Some(("ready".into(), "not_ready".into())));
        assert_eq!(event.detail.as_deref(), Some("v2 10.0.0.1:80: readiness failed"));
        let round = note(Finding::FirstRound { ready: 1, all: 3 }, 7);
        assert_eq!((round.what, round.detail.as_deref()), (What::FirstProbes, Some("1 of 3 endpoints are ready")));
    }
}
