//! The changes of a history in columns, and where each of them stands.
//!
//! A change takes 32 bytes for its hash and 12 for the rest, and some more to be found by its hash: 4 if a snapshot covers it, about 60 in a table that can
//! grow if not. The chunks of covered changes are not here: the snapshot has them.

use std::collections::HashMap;

use bytes::Bytes;

use super::Index;
use crate::id::ChangeHash;

/// Of the column of dependencies: the rest is a place in the list of those that are not just one.
const SEVERAL: u32 = 1 << 31;

#[derive(Debug, Default)]
pub(crate) struct Nodes {
    hashes: Vec<ChangeHash>,
    /// The one dependency, as nearly always; or [`SEVERAL`] and a place in that list.
    deps: Vec<u32>,
    several: Vec<Box<[Index]>>,
    /// The greatest counter of an operation in the change and all its ancestors.
    max_op: Vec<u32>,
    /// The chunks of the changes behind the covered ones.
    chunks: Vec<Bytes>,
    chunk_bytes: usize,
    /// The covered changes, by their hashes.
    sorted: Vec<Index>,
    /// The others.
    by_hash: HashMap<ChangeHash, Index>,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// How many changes there are of which only the snapshot has the chunks; they are the first ones.
    pub(super) fn covered(&self) -> Index {
        self.sorted.len() as Index
    }

    pub(super) fn hash(&self, index: Index) -> &ChangeHash {
        &self.hashes[index as usize]
    }

    pub(super) fn hashes(&self) -> &[ChangeHash] {
        &self.hashes
    }

    /// The chunk of a change, unless it is a covered one.
    pub(super) fn chunk(&self, index: Index) -> Option<&Bytes> {
        self.chunks.get((index as usize).checked_sub(self.sorted.len())?)
    }

    /// The chunks of all that are not covered.
    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// How many bytes those are.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    pub(super) fn deps(&self, index: Index) -> &[Index] {
        let deps = &self.deps[index as usize];
        if deps & SEVERAL == 0 {
            std::slice::from_ref(deps)
        } else {
            &self.several[(deps & !SEVERAL) as usize]
        }
    }

    pub(super) fn max_op(&self, index: Index) -> u64 {
        u64::from(self.max_op[index as usize])
    }

    pub(super) fn find(&self, hash: &ChangeHash) -> Option<Index> {
        self.by_hash.get(hash).copied().or_else(|| self.find_covered(hash))
    }

    /// Hashes are as good as random, so the place is guessed from the first bytes; and then the guess is made right, in steps that double in case somebody chose theirs.
    fn find_covered(&self, hash: &ChangeHash) -> Option<Index> {
        let len = self.sorted.len();
        if len == 0 {
            return None;
        }
        let at = |place: usize| self.hash(self.sorted[place]);
        let guess = ((u128::from(prefix(hash)) * len as u128) >> 64) as usize;
        let (mut low, mut high, mut step) = (guess, guess, 32);
        while low > 0 && at(low) > hash {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 32;
        while high < len && at(high) < hash {
            high = (high + step).min(len);
            step *= 2;
        }
        let range = &self.sorted[low..(high + 1).min(len)];
        range.binary_search_by_key(&hash, |index| self.hash(*index)).ok().map(|place| range[place])
    }

    pub(super) fn push(&mut self, hash: ChangeHash, deps: &[Index], max_op: u64, chunk: Bytes) {
        self.by_hash.insert(hash, self.len() as Index);
        self.push_columns(hash, deps, max_op);
        self.chunk_bytes += chunk.len();
        self.chunks.push(chunk);
    }

    fn push_columns(&mut self, hash: ChangeHash, deps: &[Index], max_op: u64) {
        let deps = match deps {
            [one] => *one,
            _ => {
                self.several.push(deps.into());
                SEVERAL | (self.several.len() - 1) as u32
            }
        };
        self.hashes.push(hash);
        self.deps.push(deps);
        // Counters have been checked to fit into 32 bits.
        self.max_op.push(max_op as u32);
    }

    /// The next change of a snapshot, whose hash comes with [`cover`](Self::cover).
    pub(super) fn push_covered(&mut self, deps: &[Index], max_op: u64) {
        self.push_columns(ChangeHash([0; 32]), deps, max_op);
    }

    /// Room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.hashes.reserve(more);
        self.deps.reserve(more);
        self.max_op.reserve(more);
    }

    /// Fills in the hashes of the changes of a snapshot, which come by hash. They are all that there are.
    pub(super) fn set_hashes(&mut self, by_hash: impl Iterator<Item = (ChangeHash, Index)>) -> Option<()> {
        let mut sorted = Vec::with_capacity(self.len());
        for (hash, index) in by_hash {
            let known = self.hashes.get_mut(index as usize)?;
            if known.0 != [0; 32] {
                return None;
            }
            *known = hash;
            sorted.push(index);
        }
        let in_order = sorted.is_sorted_by(|a, b| self.hash(*a) < self.hash(*b));
        if sorted.len() != self.len() || !in_order {
            return None;
        }
        self.sorted = sorted;
        Some(())
    }

    /// The first changes are in a snapshot from now on: their chunks are let go, and what finds them is made small. `sorted` are their places by their hashes.
    pub(super) fn cover(&mut self, sorted: Vec<Index>) {
        let newly = sorted.len().saturating_sub(self.sorted.len());
        // What is left moves to memory of its own size.
        self.chunks = self.chunks.split_off(newly.min(self.chunks.len()));
        self.chunk_bytes = self.chunks.iter().map(Bytes::len).sum();
        self.sorted = sorted;
        let len = self.len();
        let rest = self.sorted.len()..len;
        self.by_hash = rest.map(|index| (self.hashes[index], index as Index)).collect();
        self.hashes.shrink_to_fit();
        self.deps.shrink_to_fit();
        self.max_op.shrink_to_fit();
    }

    /// What all this takes up, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        let chunks = self.chunk_bytes + self.chunks.capacity() * size_of::<Bytes>();
        self.hashes.capacity() * 40 + self.sorted.len() * 4 + self.by_hash.capacity() * 40 + chunks
    }
}

/// The first eight bytes.
fn prefix(hash: &ChangeHash) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.0[..8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn covered_changes_are_found_however_their_hashes_lie(mut prefixes: Vec<u64>, skew in 0u32..64) {
            prefixes.sort_unstable();
            prefixes.dedup();
            let hashes: Vec<ChangeHash> = prefixes.iter().map(|prefix| {
                let mut hash = [1; 32];
                hash[..8].copy_from_slice(&(prefix >> skew).to_be_bytes());
                hash[8..16].copy_from_slice(&prefix.to_be_bytes());
                ChangeHash(hash)
            }).collect();
            let mut nodes = Nodes::default();
            // In another order than that of their hashes.
            let arrival: Vec<usize> = (0..hashes.len()).rev().collect();
            for at in &arrival {
                nodes.push(hashes[*at], &[], 1, Bytes::new());
            }
            let mut sorted: Vec<Index> = (0..hashes.len() as Index).collect();
            sorted.sort_by_key(|index| *nodes.hash(*index));
            nodes.cover(sorted);
            for (index, at) in arrival.iter().enumerate() {
                prop_assert_eq!(nodes.find(&hashes[*at]), Some(index as Index));
                prop_assert!(nodes.chunk(index as Index).is_none());
                let mut other = hashes[*at];
                other.0[31] = 2;
                prop_assert_eq!(nodes.find(&other), None);
            }
            prop_assert_eq!(nodes.find(&ChangeHash([0; 32])), None);
            prop_assert_eq!(nodes.find(&ChangeHash([255; 32])), None);
        }
    }
}
