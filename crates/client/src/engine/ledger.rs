//! What one document owes the server, by change hash.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use highwater_core::ChangeHash;

use crate::error::RejectedChange;

/// A change that the server has not called durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) bytes: Bytes,
    /// When it was made or found, in milliseconds since 1970.
    pub(crate) since: u64,
    /// Whether it is in the outbox, durably.
    pub(crate) stored: bool,
}

/// The changes of one document that are not durable, in causal order.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pending: BTreeMap<u64, Owed>,
    places: HashMap<ChangeHash, u64>,
    next: u64,
    bytes: usize,
    unstored: usize,
    rejected: BTreeMap<ChangeHash, String>,
}

impl Ledger {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Size of all pending changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all pending changes are in the outbox.
    pub(crate) fn is_stored(&self) -> bool {
        self.unstored == 0
    }

    /// When the first pending change was made.
    pub(crate) fn since(&self) -> Option<u64> {
        self.pending.first_key_value().map(|(_, owed)| owed.since)
    }

    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        self.places.contains_key(hash)
    }

    /// The pending changes, in causal order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Owed> {
        self.pending.values()
    }

    /// Adds a change at the end. Returns false if it is pending already.
    pub(crate) fn add(&mut self, owed: Owed) -> bool {
        if self.contains(&owed.hash) {
            return false;
        }
        self.bytes += owed.bytes.len();
        self.unstored += usize::from(!owed.stored);
        self.places.insert(owed.hash, self.next);
        self.pending.insert(self.next, owed);
        self.next += 1;
        true
    }

    /// A change is durable on the server.
    pub(crate) fn remove(&mut self, hash: &ChangeHash) -> Option<Owed> {
        let owed = self.pending.remove(&self.places.remove(hash)?)?;
        self.bytes -= owed.bytes.len();
        self.unstored -= usize::from(!owed.stored);
        self.rejected.remove(hash);
        Some(owed)
    }

    /// Puts the changes into this order; those that are not in it come after the others, as they stood.
    pub(crate) fn reorder(&mut self, order: &[ChangeHash]) {
        let mut places: Vec<u64> = order.iter().filter_map(|hash| self.places.get(hash).copied()).collect();
        let named: HashSet<u64> = places.iter().copied().collect();
        places.extend(self.pending.keys().filter(|place| !named.contains(place)));
        let ordered: Vec<Owed> = places.iter().filter_map(|place| self.pending.remove(place)).collect();
        for owed in ordered {
            self.places.insert(owed.hash, self.next);
            self.pending.insert(self.next, owed);
            self.next += 1;
        }
    }

    /// A change is in the outbox now.
    pub(crate) fn mark_stored(&mut self, hash: &ChangeHash) {
        let Some(owed) = self.places.get(hash).and_then(|place| self.pending.get_mut(place)) else { return };
        if !owed.stored {
            owed.stored = true;
            self.unstored -= 1;
        }
    }

    /// The server will never take this change. Others' changes, and those that are durable, are none of this.
    pub(crate) fn reject(&mut self, hash: ChangeHash, reason: String) {
        if self.contains(&hash) {
            self.rejected.insert(hash, reason);
        }
    }

    /// Forgets what the server refused: it is another server.
    pub(crate) fn forget_rejections(&mut self) {
        self.rejected.clear();
    }

    /// The pending changes that the server refused.
    pub(crate) fn rejected(&self) -> Vec<RejectedChange> {
        let one =
            |(hash, reason): (&ChangeHash, &String)| RejectedChange { hash: *hash, reason: reason.clone() };
        self.rejected.iter().map(one).collect()
    }

    pub(crate) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// The pending changes that can still become durable: neither refused nor built on what was. In causal order.
    pub(crate) fn hopeful(&self) -> Vec<ChangeHash> {
        let mut lost = HashSet::new();
        let mut hopeful = Vec::new();
        for owed in self.iter() {
            let is_lost = self.rejected.contains_key(&owed.hash)
                || (self.has_rejected() && owed.deps.iter().any(|dep| lost.contains(dep)));
            if is_lost {
                lost.insert(owed.hash);
            } else {
                hopeful.push(owed.hash);
            }
        }
        hopeful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> ChangeHash {
        ChangeHash([n; 32])
    }

    fn owed(n: u8, deps: &[u8]) -> Owed {
        let deps = deps.iter().map(|dep| hash(*dep)).collect();
        Owed {
            hash: hash(n),
            deps,
            bytes: Bytes::from(vec![n; usize::from(n)]),
            since: u64::from(n),
            stored: false,
        }
    }

    #[test]
    fn hope_is_given_up_for_what_builds_on_a_refused_change_and_only_for_that() {
        let mut ledger = Ledger::default();
        for change in [owed(1, &[]), owed(2, &[1]), owed(3, &[1]), owed(4, &[2, 3]), owed(5, &[3])] {
            assert!(ledger.add(change));
        }
        assert!(!ledger.add(owed(3, &[])), "twice");
        ledger.reject(hash(2), "no".to_owned());
        ledger.reject(hash(9), "not known".to_owned());
        assert_eq!(ledger.hopeful(), [1, 3, 5].map(hash));
        assert_eq!(ledger.rejected().len(), 1);
        ledger.remove(&hash(2));
        assert!(!ledger.has_rejected());
    }

    #[test]
    fn counts_return_to_zero_and_the_order_can_be_changed() {
        let mut ledger = Ledger::default();
        for change in [owed(3, &[]), owed(1, &[]), owed(2, &[])] {
            ledger.add(change);
        }
        assert_eq!((ledger.bytes(), ledger.is_stored(), ledger.since()), (6, false, Some(3)));
        ledger.reorder(&[hash(1), hash(8), hash(2)]);
        assert_eq!(ledger.iter().map(|owed| owed.hash).collect::<Vec<_>>(), [1, 2, 3].map(hash));
        for n in [1, 2, 3] {
            ledger.mark_stored(&hash(n));
            ledger.mark_stored(&hash(n));
        }
        assert!(ledger.is_stored());
        for n in [2, 1, 3] {
            assert!(ledger.remove(&hash(n)).is_some());
        }
        assert_eq!((ledger.len(), ledger.bytes(), ledger.since()), (0, 0, None));
    }
}
