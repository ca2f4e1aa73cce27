//! What one document owes the server, by change hash.

use std::collections::{BTreeMap, HashMap, HashSet};

use automerge::Change;
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

impl Owed {
    /// A change that is not in the outbox.
    pub(crate) fn new(change: &Change, since: u64) -> Self {
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        Self { hash: change.hash(), deps: change.deps().to_vec(), bytes, since, stored: false }
    }
}

/// The changes of one document that are not durable, in causal order.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pending: BTreeMap<u64, Owed>,
    places: HashMap<ChangeHash, u64>,
    /// Those on which no others build, and perhaps some more: what stands for all of them.
    tops: HashSet<ChangeHash>,
    /// When they were made, and how many then.
    times: BTreeMap<u64, usize>,
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

    /// When the oldest pending change was made. It need not be the first: what a server lost was found later than what builds on it was made.
    pub(crate) fn since(&self) -> Option<u64> {
        self.times.first_key_value().map(|(since, _)| *since)
    }

    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        self.places.contains_key(hash)
    }

    /// Those of the pending changes that stand for all: each of the others is below one of these.
    pub(crate) fn tops(&self) -> impl Iterator<Item = &ChangeHash> {
        self.tops.iter()
    }

    /// What a pending change builds on.
    pub(crate) fn deps(&self, hash: &ChangeHash) -> Option<&[ChangeHash]> {
        Some(&self.pending.get(self.places.get(hash)?)?.deps)
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
        *self.times.entry(owed.since).or_default() += 1;
        for dep in &owed.deps {
            self.tops.remove(dep);
        }
        self.tops.insert(owed.hash);
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
        if let Some(count) = self.times.get_mut(&owed.since) {
            *count -= 1;
            if *count == 0 {
                self.times.remove(&owed.since);
            }
        }
        self.rejected.remove(hash);
        self.tops.remove(hash);
        // Nothing else may stand for these.
        self.tops.extend(owed.deps.iter().filter(|dep| self.places.contains_key(dep)));
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

    /// Puts the changes into causal order. An outbox has them as they were put: what a server lost stands behind what builds on it.
    pub(crate) fn sort(&mut self) {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for owed in self.iter() {
            let mut stack = vec![(owed, false)];
            while let Some((owed, has_deps)) = stack.pop() {
                if has_deps {
                    order.push(owed.hash);
                } else if seen.insert(owed.hash) {
                    stack.push((owed, true));
                    let deps = owed.deps.iter().filter_map(|dep| self.pending.get(self.places.get(dep)?));
                    stack.extend(deps.map(|dep| (dep, false)));
                }
            }
        }
        self.reorder(&order);
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

    /// The pending changes that the server refused, in causal order.
    pub(crate) fn rejected(&self) -> Vec<RejectedChange> {
        let refused = |owed: &Owed| {
            let reason = self.rejected.get(&owed.hash)?.clone();
            Some(RejectedChange { hash: owed.hash, reason })
        };
        self.iter().filter_map(refused).collect()
    }

    /// Whether the server itself has refused this change, by name.
    pub(crate) fn is_rejected(&self, hash: &ChangeHash) -> bool {
        self.rejected.contains_key(hash)
    }

    pub(crate) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// The pending changes that can still become durable: neither refused nor built on what was. In causal order.
    pub(crate) fn hopeful(&self) -> Vec<ChangeHash> {
        let lost = self.hopeless();
        self.iter().map(|owed| owed.hash).filter(|hash| !lost.contains(hash)).collect()
    }

    /// The pending changes that never will be durable: those that were refused, and those that build on them.
    pub(crate) fn hopeless(&self) -> HashSet<ChangeHash> {
        let mut lost = HashSet::new();
        if !self.has_rejected() {
            return lost;
        }
        for owed in self.iter() {
            if self.rejected.contains_key(&owed.hash) || owed.deps.iter().any(|dep| lost.contains(dep)) {
                lost.insert(owed.hash);
            }
        }
        lost
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
    fn what_an_outbox_had_in_another_order_comes_after_what_it_builds_on() {
        let mut ledger = Ledger::default();
        for change in [owed(4, &[3, 2]), owed(5, &[4]), owed(3, &[1]), owed(2, &[1, 9]), owed(1, &[])] {
            assert!(ledger.add(change));
        }
        ledger.sort();
        assert_eq!(ledger.iter().map(|owed| owed.hash).collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(hash));
        ledger.reject(hash(3), "no".to_owned());
        assert_eq!(ledger.hopeful(), [1, 2].map(hash));
        assert_eq!(ledger.since(), Some(1));
    }

    #[test]
    fn the_tops_stand_for_all_whatever_is_taken_away() {
        let mut ledger = Ledger::default();
        for change in [owed(1, &[]), owed(2, &[1]), owed(3, &[2]), owed(4, &[2])] {
            ledger.add(change);
        }
        let tops = |ledger: &Ledger| ledger.tops().copied().collect::<HashSet<_>>();
        assert_eq!(tops(&ledger), [3, 4].map(hash).into());
        ledger.remove(&hash(3));
        ledger.remove(&hash(4));
        assert_eq!(tops(&ledger), [hash(2)].into());
        ledger.remove(&hash(1));
        ledger.remove(&hash(2));
        assert!(tops(&ledger).is_empty());
    }

    #[test]
    fn counts_return_to_zero_and_the_order_can_be_changed() {
        let mut ledger = Ledger::default();
        for change in [owed(3, &[]), owed(1, &[]), owed(2, &[])] {
            ledger.add(change);
        }
        assert_eq!((ledger.bytes(), ledger.is_stored(), ledger.since()), (6, false, Some(1)));
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
