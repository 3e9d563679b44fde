//! `/metrics`: put together beside the thread of the API, one at a time, so that an abort does not wait for a scrape of thousands of series.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::problem::Problem;

/// Texts put together at the same time; more wait.
const AT_ONCE: usize = 1;

/// Puts the text of `/metrics` together.
#[derive(Clone)]
pub struct Scrape {
    render: Arc<dyn Fn() -> String + Send + Sync>,
    turns: Arc<Semaphore>,
}

// === impl Scrape ===

impl Scrape {
    /// The text is what `render` returns; it may take its time.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { render: Arc::new(render), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The text as of now.
    pub(super) async fn text(&self) -> Result<String, Problem> {
        // An error: the semaphore is closed, which it never is.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let render = Arc::clone(&self.render);
        let rendered = spawn_blocking(move || {
            // Given back when the text is there, not when whoever asked for it is gone.
            let _turn = turn;
            render()
        });
        rendered.await.map_err(|_| Problem::internal("the metrics could not be put together; see the log"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_scrape_takes_its_time_and_holds_up_nobody_but_other_scrapes() {
        let ((go, gate), begun, at_once) =
            (sync_channel(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gate, most) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
        let (seen, now, top) = (Arc::clone(&begun), Arc::clone(&at_once), Arc::clone(&most));
        let scrape = Scrape::new(move || {
            top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            seen.fetch_add(1, Ordering::SeqCst);
            gate.lock().expect("lock").recv().expect("told to go on");
            now.fetch_sub(1, Ordering::SeqCst);
            "text".to_owned()
        });
        let asked =
            [scrape.clone(), scrape].map(|scrape| tokio::spawn(async move { scrape.text().await.expect("text") }));
        // This thread is the only one of the runtime: it goes on while the first waits.
        let under_way = async {
            while begun.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), under_way).await.expect("begun");
        for _ in 0..2 {
            go.send(()).expect("waited for");
        }
        for asked in asked {
            assert_eq!(asked.await.expect("no panic"), "text");
        }
        assert_eq!((begun.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (2, 1));
    }
}
