//! How long to wait between attempts to connect.

use super::{Millis, Random};

/// Exponential backoff with full jitter: each pause is anywhere between nothing and a limit that doubles.
/// The jitter keeps clients that lost the same server from coming back in one wave.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Millis,
    max: Millis,
    failures: u32,
}

impl Backoff {
    /// Pauses of at most `min` at first, and never more than `max`.
    pub(crate) fn new(min: Millis, max: Millis) -> Self {
        Self { min: min.max(1), max: max.max(1), failures: 0 }
    }

    /// The next pause.
    pub(crate) fn next(&mut self, random: &mut Random) -> Millis {
        let doubled = self.min.saturating_mul(1 << self.failures.min(32));
        let limit = doubled.min(self.max);
        if limit < self.max {
            self.failures += 1;
        }
        random.below(limit + 1)
    }

    /// The connection works again: the next pause is a short one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_up_to_the_largest_and_starts_over_after_a_success() {
        let mut random = Random::new(1);
        let mut backoff = Backoff::new(500, 30_000);
        for limit in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            // The same limit, drawn from many times.
            let drawn: Vec<_> = (0..200).map(|_| backoff.clone().next(&mut random)).collect();
            assert!(drawn.iter().all(|pause| *pause <= limit));
            assert!(drawn.iter().any(|pause| *pause > limit / 2), "spreads over all of the pause");
            backoff.next(&mut random);
        }
        backoff.reset();
        assert!(backoff.next(&mut random) <= 500);
    }
}
