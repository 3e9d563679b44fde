//! Bounded waits on conditions: the only place where a test lets time pass.

use std::future::Future;
use std::time::Duration;

/// Longest wait for anything a test expects; generous, because machines under load are slow and a hang must still end.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks at a condition.
const POLL_EVERY: Duration = Duration::from_millis(2);

/// The result of `future`, which has to come within [`WAIT_MAX`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(WAIT_MAX, what, future).await
}

/// The result of `future`, which has to come within `limit`.
pub(crate) async fn within_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} in vain for {what}"))
}

/// Returns once `condition` holds, which has to be within [`WAIT_MAX`].
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            pause(POLL_EVERY).await;
        }
    })
    .await;
}

/// The first `Some` that `attempt` gives, which has to come within `limit`.
pub(crate) async fn eventually<T, F>(limit: Duration, what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within_time(limit, what, async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            pause(POLL_EVERY).await;
        }
    })
    .await
}

/// Fails if `future` finishes within `period`: for what must not happen.
pub(crate) async fn quiet<T: std::fmt::Debug>(period: Duration, what: &str, future: impl Future<Output = T>) {
    if let Ok(value) = tokio::time::timeout(period, future).await {
        panic!("{what}, but within {period:?} came {value:?}");
    }
}

/// Lets `period` pass: the pace of a scripted peer (a byte every so often), never a test's way to wait for something.
pub(crate) async fn pause(period: Duration) {
    tokio::time::sleep(period).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conditions_are_awaited() {
        let mut looks = 0;
        until("the third look", || {
            looks += 1;
            looks == 3
        })
        .await;
        let mut tries = 0;
        let got = eventually(WAIT_MAX, "the second try", || {
            tries += 1;
            let value = (tries == 2).then_some(tries);
            async move { value }
        })
        .await;
        assert_eq!((looks, got), (3, 2));
        quiet(Duration::from_millis(5), "nothing comes", std::future::pending::<()>()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for the moon")]
    async fn a_wait_ends_and_says_what_it_was_for() {
        within_time(Duration::from_millis(5), "the moon", std::future::pending::<()>()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "no answer, but within")]
    async fn noise_is_noticed() {
        quiet(Duration::from_secs(1), "no answer", async { 7 }).await;
    }
}
