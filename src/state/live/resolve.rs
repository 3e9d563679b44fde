//! The live state of a service from what is live of its parts: the one before as far as nothing changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::core::balance::Balance;
use crate::core::endpoint::{Pool, WEIGHT_MIN};
use crate::core::id::Variant;
use crate::core::snapshot::ActiveService;
use crate::state::layout::Layout;

use super::{EndpointLive, ServiceLive};

/// The place of the stable before among layouts, behind the variants.
pub(super) const WARM: usize = Variant::ALL.len();

/// What is live of one service.
pub(super) struct Parts {
    pub(super) number: usize,
    /// Of each variant.
    pub(super) pools: [Vec<Arc<EndpointLive>>; 2],
    pub(super) warm: Vec<Arc<EndpointLive>>,
    pub(super) kept: [usize; 2],
    pub(super) shut: [Arc<AtomicU64>; 2],
}

// === impl Parts ===

impl Parts {
    /// The live state of `active`: the one before if nothing changed, else a new one that keeps the candidate's switch within a rollout.
    pub(super) fn live_of(self, active: &ActiveService, previous: Option<&Arc<ServiceLive>>) -> Arc<ServiceLive> {
        let layouts = self.layouts(active, previous);
        let Self { number, pools: [stable, candidate], warm, kept, shut } = self;
        let panic = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.panic));
        let watch = previous.and_then(|previous| previous.watch.clone());
        let (rollout, version) = (active.running.rollout, active.version(Variant::Candidate));
        let open = version.is_some() && !active.running.aborted;
        let previous = previous.filter(|p| p.rollout == rollout && p.candidate_version.as_ref() == version);
        let (candidate_open, turns) = match previous {
            Some(previous) => {
                if !open {
                    previous.close_candidate();
                }
                let same_layouts = all_same(&layouts, &previous.layouts) && Arc::ptr_eq(&shut[0], &previous.shut[0]);
                let same_pools = all_same(&previous.stable, &stable) && all_same(&previous.candidate, &candidate);
                if same_layouts && same_pools && all_same(&previous.warm, &warm) && previous.kept == kept {
                    return Arc::clone(previous);
                }
                (Arc::clone(&previous.candidate_open), Arc::clone(&previous.turns))
            }
            None => (Arc::new(AtomicBool::new(open)), Arc::default()),
        };
        let candidate_version = version.cloned();
        let watch = watch.map(|watch| Arc::new(watch.over(&candidate)));
        Arc::new(ServiceLive {
            rollout,
            candidate_open,
            number,
            turns,
            panic,
            layouts,
            shut,
            watch,
            stable,
            candidate,
            warm,
            kept,
            candidate_version,
        })
    }

    fn layouts(&self, active: &ActiveService, previous: Option<&Arc<ServiceLive>>) -> [Arc<Layout>; 3] {
        let ringed = active.service.upstream.balance == Balance::RingHash;
        let layout = |pool: Option<&Arc<Pool>>, endpoints| layout(pool, endpoints, ringed, previous);
        let [stable, candidate] = &self.pools;
        [
            layout(active.pool(Variant::Stable), stable),
            layout(active.pool(Variant::Candidate), candidate),
            layout(active.warm.as_ref(), &self.warm),
        ]
    }
}

/// Weights and ring of a pool: those it had before if it is the same one, whatever role that was in. A ring takes a while to build.
fn layout(
    wanted: Option<&Arc<Pool>>,
    endpoints: &[Arc<EndpointLive>],
    ringed: bool,
    previous: Option<&Arc<ServiceLive>>,
) -> Arc<Layout> {
    let wanted = wanted.map_or(&[][..], |pool| &pool.endpoints);
    // Those that stay only until others are ready come last, and have left the file with their weight.
    let weight = |at: usize| wanted.get(at).map_or(WEIGHT_MIN, |endpoint| endpoint.weight);
    let weights: Vec<u32> = (0..endpoints.len()).map(weight).collect();
    let before = previous.into_iter().flat_map(|p| [&p.stable, &p.candidate, &p.warm].into_iter().zip(&p.layouts));
    let mut before = before.filter(|(pool, _)| all_alike(pool, endpoints)).map(|(_, layout)| layout);
    if let Some(before) = before.find(|before| before.serves(&weights, ringed)) {
        return Arc::clone(before);
    }
    let named: Vec<_> = endpoints.iter().zip(weights).map(|(e, weight)| (e.address_text.to_string(), weight)).collect();
    Arc::new(Layout::new(&named, ringed))
}

fn all_same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Whether both are the same endpoints, in whatever role.
fn all_alike(a: &[Arc<EndpointLive>], b: &[Arc<EndpointLive>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.slot == b.slot)
}
