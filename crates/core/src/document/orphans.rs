//! Changes whose dependencies have not arrived.

use std::collections::HashMap;

use bytes::Bytes;

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
    /// How many ever came.
    came: u64,
}

#[derive(Debug)]
struct Orphan {
    /// Which one it was.
    number: u64,
    change: Change,
    /// Who sent it.
    sender: String,
    /// How many of its dependencies, in their order, are known to be there. They never go away again, so none is looked up twice.
    met: usize,
}

impl Orphan {
    /// The next dependency that is not there.
    fn next_missing(&mut self, is_there: impl Fn(&ChangeHash) -> bool) -> Option<ChangeHash> {
        let deps = &self.change.deps[self.met..];
        let missing = deps.iter().position(|dep| !is_there(dep))?;
        self.met += missing;
        Some(deps[missing])
    }
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

    /// All of them, in the order in which they came.
    pub(super) fn chunks(&self) -> Vec<Bytes> {
        let mut all: Vec<&Orphan> = self.by_hash.values().collect();
        all.sort_unstable_by_key(|orphan| orphan.number);
        all.into_iter().map(|orphan| orphan.change.bytes.clone()).collect()
    }

    /// What they take up, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes + self.by_hash.len() * 200
    }

    /// Whether another orphan is within the limits.
    pub(super) fn has_room_for(&self, change: &Change) -> bool {
        self.by_hash.len() < ORPHANS_MAX && self.bytes + size(change) <= ORPHAN_BYTES_MAX
    }

    /// Takes in a change of which `is_there` denies a dependency.
    pub(super) fn insert(&mut self, change: Change, sender: String, is_there: impl Fn(&ChangeHash) -> bool) {
        let hash = change.hash;
        let mut orphan = Orphan { number: self.came, change, sender, met: 0 };
        self.came += 1;
        let missing = orphan.next_missing(is_there).expect("an orphan lacks a dependency");
        self.bytes += size(&orphan.change);
        self.waiting.entry(missing).or_default().push(hash);
        self.by_hash.insert(hash, orphan);
    }

    /// A change is there: removes and returns those for which it was the last thing missing, with who sent them.
    pub(super) fn take_ready(
        &mut self,
        arrived: &ChangeHash,
        is_there: impl Fn(&ChangeHash) -> bool,
    ) -> Vec<(Change, String)> {
        let mut ready = Vec::new();
        for hash in self.waiting.remove(arrived).unwrap_or_default() {
            let Some(orphan) = self.by_hash.get_mut(&hash) else { continue };
            match orphan.next_missing(&is_there) {
                Some(missing) => self.waiting.entry(missing).or_default().push(hash),
                None => ready.extend(self.by_hash.remove(&hash).map(|orphan| (orphan.change, orphan.sender))),
            }
        }
        self.bytes -= ready.iter().map(|(change, _)| size(change)).sum::<usize>();
        ready
    }
}

/// What a change takes up; one that came compressed is kept in both forms.
fn size(change: &Change) -> usize {
    change.bytes.len().max(change.data.len())
}
