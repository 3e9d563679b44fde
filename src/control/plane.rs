//! What control needs of the data plane, as a trait: the workers implement it, tests replace it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::settings::{ListenAddress, Listener};

/// An answer that comes later.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The workers, as control sees them. Every wait in here is bounded by the implementation.
pub trait DataPlane: Send + Sync + 'static {
    /// Binds what `wanted` adds to the listeners in force, one socket per worker, without accepting yet. Listeners that stay are
    /// matched by address; their settings (limits, certificates) are taken over at commit.
    ///
    /// # Errors
    /// A sentence that names the listener and the reason; nothing is changed then.
    fn prepare(&self, wanted: &[Arc<Listener>]) -> Result<Box<dyn Prepared>, String>;

    /// Resolves once every worker has seen the newest published snapshot, swept its idle connections, and will begin no attempt
    /// by an older one. `false` if a worker did not answer within its bound.
    fn settled(&self) -> Pending<bool>;
}

/// Listeners bound but not yet accepting; dropping it lets them go.
pub trait Prepared: Send {
    /// Accepts on the new ones, takes over the settings of those that stay, closes those that go (after emptying their accept queues).
    fn commit(self: Box<Self>) -> Pending<()>;

    /// Where each wanted listener is bound, in order (port 0 resolved).
    fn addresses(&self) -> Vec<ListenAddress>;
}
