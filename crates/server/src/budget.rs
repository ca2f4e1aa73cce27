//! How much of what was received from one connection may be under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::limits::FRAME_BYTES_MIN;

/// Counts bytes. Taking never waits, so that what was read is always handed on; reading more does.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    taken: AtomicUsize,
    max: usize,
    given_back: Notify,
}

/// Bytes under way; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { taken: AtomicUsize::new(0), max, given_back: Notify::new() }))
    }

    pub(crate) fn take(&self, bytes: usize) -> Taken {
        let bytes = bytes.max(FRAME_BYTES_MIN);
        self.0.taken.fetch_add(bytes, Ordering::AcqRel);
        Taken { budget: self.clone(), bytes }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.0.taken.load(Ordering::Acquire) < self.0.max
    }

    /// Waits until less than the maximum is under way. Only the connection waits for its budget.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.0.given_back.notified().await;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.0.taken.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_taken_and_reading_waits() {
        let budget = Budget::new(1000);
        let large = budget.take(5000);
        assert!(!budget.has_room());
        let small = budget.take(1);
        let waiting = budget.clone();
        let room = tokio::spawn(async move { waiting.room().await });
        drop(small);
        assert!(!budget.has_room());
        drop(large);
        room.await.unwrap();
    }
}
