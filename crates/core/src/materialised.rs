//! A document as `automerge` holds it, with all its values. Slow and large, and never on the way of an edit: for those who want to look.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, LoadOptions, OnPartialLoad, ReadDoc, TextEncoding, VerificationMode};
use bytes::Bytes;

use crate::change;
use crate::id::ChangeHash;

/// A document with its values.
#[derive(Debug, Clone)]
pub struct Materialised {
    pub(crate) document: Automerge,
    /// How many bytes the changes have that it was made from, unpacked: more than its values have.
    pub(crate) unpacked_bytes: usize,
}

impl Default for Materialised {
    fn default() -> Self {
        Self { document: Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint), unpacked_bytes: 0 }
    }
}

impl Materialised {
    /// Applies change chunks, with nothing missing between them. All of them, or none if one cannot be applied; then it says what `automerge` says.
    pub fn apply(&mut self, changes: &[Bytes]) -> Result<(), String> {
        // A panic may leave anything behind, so it is a copy that is worked on.
        let mut document = self.document.clone();
        guarded(|| apply(&mut document, changes))?;
        self.document = document;
        self.unpacked_bytes += unpacked_bytes(changes);
        Ok(())
    }

    /// The changes that no other depends on, sorted.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<ChangeHash> =
            self.document.get_heads().iter().map(|head| ChangeHash(head.0)).collect();
        heads.sort_unstable();
        heads
    }

    /// What the document takes up in memory, roughly, in bytes.
    pub fn size(&self) -> usize {
        let stats = self.document.stats();
        // Measured with automerge 0.12: hashes, their index and the clocks of changes; columns of operations, with their indexes.
        let columns = 1_000 + 200 * stats.num_changes as usize + 60 * stats.num_ops as usize;
        columns + self.unpacked_bytes
    }

    /// Loads a document chunk.
    pub fn load(chunk: &Bytes) -> Result<Self, String> {
        let unpacked_bytes = change::unpacked_document_bytes(chunk);
        guarded(|| {
            let document = Automerge::load_with_options(chunk, strictly());
            Ok(Self { document: document.map_err(|error| error.to_string())?, unpacked_bytes })
        })
    }

    /// The document with these change chunks, with nothing missing between them.
    pub fn extended(mut self, changes: &[Bytes]) -> Result<Self, String> {
        guarded(|| {
            apply(&mut self.document, changes)?;
            self.unpacked_bytes += unpacked_bytes(changes);
            Ok(self)
        })
    }

    /// Saves the document.
    pub fn save(&self) -> Result<Bytes, String> {
        guarded(|| Ok(self.document.save().into()))
    }

    /// Saves the document, loads what was saved, and checks that this is the same document.
    pub fn save_checked(&self) -> Result<Saved, String> {
        guarded(|| {
            let bytes = Bytes::from(self.document.save());
            let loaded = Automerge::load_with_options(&bytes, strictly())
                .map_err(|error| format!("saved, it does not load again: {error}"))?;
            let mut heads: Vec<ChangeHash> =
                loaded.get_heads().iter().map(|head| ChangeHash(head.0)).collect();
            heads.sort_unstable();
            if loaded.get_heads() != self.document.get_heads() {
                return Err("saved and loaded, it is another document".to_owned());
            }
            Ok(Saved { changes: loaded.get_changes_meta(&[]).len(), bytes, heads })
        })
    }

    /// Some of the document's changes as chunks, in no particular order; all that are asked for, or none. Costs time for each of them, and a little for the whole document.
    pub fn changes(&self, hashes: &[ChangeHash]) -> Result<Vec<(ChangeHash, Bytes)>, String> {
        guarded(|| {
            let wanted = hashes.iter().map(|hash| automerge::ChangeHash(hash.0));
            let bundle = self.document.bundle(wanted).map_err(|error| error.to_string())?;
            let changes = bundle.to_changes().map_err(|error| error.to_string())?;
            let chunk =
                |change: &Change| (ChangeHash(change.hash().0), Bytes::copy_from_slice(change.raw_bytes()));
            let changes: Vec<(ChangeHash, Bytes)> = changes.iter().map(chunk).collect();
            let found: HashSet<ChangeHash> = changes.iter().map(|(hash, _)| *hash).collect();
            let missing = hashes.iter().filter(|hash| !found.contains(*hash)).count();
            if missing > 0 {
                return Err(format!("the document lacks {missing} of {} changes", hashes.len()));
            }
            Ok(changes)
        })
    }

    /// [Applies](Self::apply) changes and [checks](Self::check_saved) that the document can be saved and loaded with them. Otherwise nothing is applied, and it says at
    /// which place the first of them stands with which it cannot, and why.
    pub fn add(&mut self, changes: &[Bytes]) -> Result<(), (usize, String)> {
        let with = |changes: &[Bytes]| {
            let mut document = self.clone();
            document.apply(changes).and_then(|()| document.check_saved()).map(|()| document)
        };
        match with(changes) {
            Ok(document) => {
                *self = document;
                Ok(())
            }
            Err(reason) => {
                let first = (1..changes.len()).find_map(|len| Some((len - 1, with(&changes[..len]).err()?)));
                Err(first.unwrap_or((changes.len().saturating_sub(1), reason)))
            }
        }
    }

    /// Saves the document and loads it again.
    pub fn check_saved(&self) -> Result<(), String> {
        self.save_checked().map(drop)
    }
}

/// A document as it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The document chunk.
    pub bytes: Bytes,
    /// The changes that no other depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// How many changes it has.
    pub changes: usize,
}

fn strictly<'a>() -> LoadOptions<'a> {
    LoadOptions::new()
        .on_partial_load(OnPartialLoad::Error)
        .verification_mode(VerificationMode::Check)
        .text_encoding(TextEncoding::UnicodeCodePoint)
}

/// How many bytes change chunks have, unpacked.
pub(crate) fn unpacked_bytes(changes: &[Bytes]) -> usize {
    changes.iter().map(change::unpacked_change_bytes).sum()
}

fn apply(document: &mut Automerge, changes: &[Bytes]) -> Result<(), String> {
    let parse = |bytes: &Bytes| Change::from_bytes(bytes.to_vec()).map_err(|error| error.to_string());
    let changes = changes.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    document.apply_changes(changes).map_err(|error| error.to_string())?;
    if document.get_missing_deps(&[]).is_empty() { Ok(()) } else { Err("a dependency is missing".to_owned()) }
}

impl From<Automerge> for Materialised {
    fn from(document: Automerge) -> Self {
        Self { document, unpacked_bytes: 0 }
    }
}

/// The first of these changes with which the document cannot be materialised, saved and loaded again, and why. They stand in an order in which
/// each comes after its dependencies.
pub fn first_unfit(changes: &[Bytes]) -> Option<(usize, String)> {
    first_unfit_on(&Materialised::default(), changes)
}

/// The same for changes that are added to a document.
pub(crate) fn first_unfit_on(base: &Materialised, changes: &[Bytes]) -> Option<(usize, String)> {
    let check = |len: usize| base.clone().extended(&changes[..len])?.check_saved();
    let mut reason = check(changes.len()).err()?;
    // Fits with the first `fits` of them, and not with the first `fails`.
    let (mut fits, mut fails) = (0, changes.len());
    while fails - fits > 1 {
        let middle = fits + (fails - fits) / 2;
        match check(middle) {
            Ok(()) => fits = middle,
            Err(error) => (fails, reason) = (middle, error),
        }
    }
    Some((fails - 1, reason))
}

/// Runs `automerge`, whose panics become errors.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("automerge panics: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    use super::*;

    #[test]
    fn the_first_change_that_does_not_fit_is_found() {
        let mut document = AutoCommit::new();
        let mut changes: Vec<Bytes> = (0..20)
            .map(|n| {
                document.put(ROOT, "n", n).unwrap();
                document.commit();
                Bytes::copy_from_slice(document.get_last_local_change().unwrap().raw_bytes())
            })
            .collect();
        assert_eq!(first_unfit(&changes), None);
        changes.remove(13);
        assert_eq!(first_unfit(&changes).unwrap().0, 13);
        assert_eq!(first_unfit(&[]), None);
    }
}
