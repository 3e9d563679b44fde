//! Other readers of HTTP/1.1, each asked the same question: which messages are these bytes?

pub mod hyper;
pub mod pingora;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Runs `future`, which waits for nothing outside this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}
