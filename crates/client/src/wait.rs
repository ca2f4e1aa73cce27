//! Waiting until something is so.

use std::time::Duration;

use crate::engine::Shared;

/// Looks after everything that happens whether there is a result; nothing if there is none in time.
pub(crate) async fn wait<T>(
    shared: &Shared,
    timeout: Duration,
    look: impl FnMut() -> Option<T>,
) -> Option<T> {
    tokio::time::timeout(timeout, until(shared, look)).await.ok()
}

/// As [`wait`], for as long as it takes.
pub(crate) async fn until<T>(shared: &Shared, mut look: impl FnMut() -> Option<T>) -> T {
    let mut ticks = shared.tick.subscribe();
    loop {
        // What happens after this is seen below.
        ticks.mark_unchanged();
        if let Some(result) = look() {
            return result;
        }
        if ticks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
