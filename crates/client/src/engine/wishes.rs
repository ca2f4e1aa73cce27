//! What is to be written to the outbox: the last that was said about each change.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use highwater_core::{ChangeHash, DocumentId};

/// A change to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) bytes: Bytes,
    pub(crate) since: u64,
}

type Key = (DocumentId, ChangeHash);
/// To keep a change, or to remove it.
type Wish = Option<Put>;

/// What is being written. In the order in which it was wished for.
pub(crate) type Writing = Vec<(Key, Wish)>;

/// What is to be written, and what is being written. Bounded by what is owed, and by what the outbox holds.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    waiting: BTreeMap<i64, (Key, Wish)>,
    places: HashMap<Key, i64>,
    writing: HashMap<Key, bool>,
    next: i64,
    first: i64,
}

impl Wishes {
    /// Something is to be written.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Keep this change.
    pub(crate) fn put(&mut self, document: DocumentId, hash: ChangeHash, put: Put) {
        self.wish((document, hash), Some(put));
    }

    /// Do not keep this change any longer. `is_stored` says that the outbox has it.
    pub(crate) fn remove(&mut self, document: DocumentId, hash: ChangeHash, is_stored: bool) {
        let key = (document, hash);
        if let Some(place) = self.places.remove(&key) {
            self.waiting.remove(&place);
        }
        // What no write was ever begun for need not be removed either.
        if is_stored || self.writing.contains_key(&key) {
            self.wish(key, None);
        }
    }

    /// Everything that waits; it is being written until [`written`](Self::written) or [`failed`](Self::failed).
    pub(crate) fn take(&mut self) -> Writing {
        self.places.clear();
        let taken: Writing = std::mem::take(&mut self.waiting).into_values().collect();
        self.writing = taken.iter().map(|(key, wish)| (*key, wish.is_some())).collect();
        taken
    }

    /// The write is durable.
    pub(crate) fn written(&mut self) {
        self.writing.clear();
    }

    /// The write failed, and nobody knows what of it is there: it is to be written again, unless something newer was said since.
    pub(crate) fn failed(&mut self, writing: Writing) {
        self.writing.clear();
        for (key, wish) in writing.into_iter().rev() {
            if !self.places.contains_key(&key) {
                self.first -= 1;
                self.places.insert(key, self.first);
                self.waiting.insert(self.first, (key, wish));
            }
        }
    }

    fn wish(&mut self, key: Key, wish: Wish) {
        if let Some(place) = self.places.insert(key, self.next) {
            self.waiting.remove(&place);
        }
        self.waiting.insert(self.next, (key, wish));
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: DocumentId = DocumentId::from_bytes([1; 16]);

    fn hash(n: u8) -> ChangeHash {
        ChangeHash([n; 32])
    }

    fn put(wishes: &mut Wishes, n: u8) {
        wishes.put(DOCUMENT, hash(n), Put { bytes: Bytes::from(vec![n]), since: 0 });
    }

    /// What would be written: a number to keep it, its negative to remove it.
    fn told(writing: &Writing) -> Vec<i32> {
        writing
            .iter()
            .map(|((_, hash), wish)| i32::from(hash.0[0]) * if wish.is_some() { 1 } else { -1 })
            .collect()
    }

    #[test]
    fn what_is_settled_before_it_was_written_is_not_written_at_all() {
        let mut wishes = Wishes::default();
        put(&mut wishes, 1);
        put(&mut wishes, 2);
        wishes.remove(DOCUMENT, hash(1), false);
        assert_eq!(told(&wishes.take()), [2]);
        wishes.remove(DOCUMENT, hash(2), false);
        wishes.written();
        assert_eq!(told(&wishes.take()), [-2], "it was being written");
        wishes.written();
        assert!(!wishes.has_waiting());
    }

    #[test]
    fn what_failed_is_written_again_in_its_order_but_not_what_was_removed_since() {
        let mut wishes = Wishes::default();
        for n in [3, 1, 2] {
            put(&mut wishes, n);
        }
        let writing = wishes.take();
        put(&mut wishes, 4);
        wishes.remove(DOCUMENT, hash(1), false);
        wishes.failed(writing);
        assert_eq!(told(&wishes.take()), [3, 2, 4, -1]);
    }
}
