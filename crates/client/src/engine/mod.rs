//! What a client knows and decides, without any I/O: time, randomness and frames are handed in, orders and frames are asked for.

mod backoff;
mod close;
mod ledger;
mod link;
mod machine;
mod patience;
mod registry;
mod replica;
mod wishes;

pub(crate) use close::{ABNORMAL, FORBIDDEN, TOKEN_EXPIRED};
pub(crate) use ledger::Owed;
pub(crate) use link::{LinkOptions, Order};
pub(crate) use machine::{Incoming, Machine};
pub(crate) use registry::{Ended, Entry, Question, Registry, Shared, Wanted};
pub(crate) use replica::{Effects, Facts, Presence, Replica, Unusable};
pub(crate) use wishes::Writing;

/// Milliseconds on a clock that only goes forward.
pub(crate) type Millis = u64;

/// Random numbers that need not be good ones, from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, not including, `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}
