//! Changes whose dependencies have not arrived.

use std::collections::HashMap;

use crate::change::Change;
use crate::id::ChangeHash;
use crate::limits::{ORPHAN_BYTES_MAX, ORPHANS_MAX};

/// Stored, but not part of the history: not acknowledged, not passed on. Each waits for one of the changes that it lacks.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_hash: HashMap<ChangeHash, Orphan>,
    /// Per missing change, who waits for it.
    waiting: HashMap<ChangeHash, Vec<ChangeHash>>,
    bytes: usize,
}

#[derive(Debug)]
struct Orphan {
    change: Change,
    /// Who sent it.
    sender: String,
}

impl Orphans {
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    pub(super) fn get(&self, hash: &ChangeHash) -> Option<&Change> {
        self.by_hash.get(hash).map(|orphan| &orphan.change)
    }

    /// Whether another orphan is within the limits.
    pub(super) fn has_room_for(&self, change: &Change) -> bool {
        self.by_hash.len() < ORPHANS_MAX && self.bytes + size(change) <= ORPHAN_BYTES_MAX
    }

    /// Takes in a change of which `is_there` denies a dependency.
    pub(super) fn insert(&mut self, change: Change, sender: String, is_there: impl Fn(&ChangeHash) -> bool) {
        let missing = change.deps.iter().find(|dep| !is_there(dep));
        let missing = *missing.expect("an orphan lacks a dependency");
        self.bytes += size(&change);
        self.waiting.entry(missing).or_default().push(change.hash);
        self.by_hash.insert(change.hash, Orphan { change, sender });
    }

    /// Removes and returns those that wait for a change, with who sent them.
    pub(super) fn take_waiting_for(&mut self, hash: &ChangeHash) -> Vec<(Change, String)> {
        let waiting = self.waiting.remove(hash).unwrap_or_default();
        let taken = waiting.iter().filter_map(|hash| self.by_hash.remove(hash));
        let taken: Vec<_> = taken.map(|orphan| (orphan.change, orphan.sender)).collect();
        self.bytes -= taken.iter().map(|(change, _)| size(change)).sum::<usize>();
        taken
    }
}

/// What a change takes up; one that came compressed is kept in both forms.
fn size(change: &Change) -> usize {
    change.bytes.len().max(change.data.len())
}
