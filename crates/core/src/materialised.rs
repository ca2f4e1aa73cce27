//! A document as `automerge` holds it, with all its values. Slow and large, and never on the way of an edit: for those who want to look.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, LoadOptions, OnPartialLoad, ReadDoc, VerificationMode};
use bytes::Bytes;

/// A document with its values.
#[derive(Debug, Clone, Default)]
pub struct Materialised(Automerge);

impl Materialised {
    /// Applies change chunks, with nothing missing between them. All of them, or none if one cannot be applied; then it says what `automerge` says.
    pub fn apply(&mut self, changes: &[Bytes]) -> Result<(), String> {
        // A panic may leave anything behind, so it is a copy that is worked on.
        let mut document = self.0.clone();
        guarded(|| {
            let parse = |bytes: &Bytes| Change::from_bytes(bytes.to_vec()).map_err(|error| error.to_string());
            let changes = changes.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            document.apply_changes(changes).map_err(|error| error.to_string())?;
            if document.get_missing_deps(&[]).is_empty() {
                Ok(())
            } else {
                Err("a dependency is missing".to_owned())
            }
        })?;
        self.0 = document;
        Ok(())
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
        guarded(|| {
            let options = LoadOptions::new()
                .on_partial_load(OnPartialLoad::Error)
                .verification_mode(VerificationMode::Check);
            let loaded = Automerge::load_with_options(&self.0.save(), options)
                .map_err(|error| format!("saved, it does not load again: {error}"))?;
            if loaded.get_heads() == self.0.get_heads() {
                Ok(())
            } else {
                Err("saved and loaded, it is another document".to_owned())
            }
        })
    }
}

impl From<Automerge> for Materialised {
    fn from(document: Automerge) -> Self {
        Self(document)
    }
}

/// The first of these changes with which the document cannot be materialised, saved and loaded again, and why. They stand in an order in which
/// each comes after its dependencies.
pub fn first_unfit(changes: &[Bytes]) -> Option<(usize, String)> {
    let check = |len: usize| {
        let mut document = Materialised::default();
        document.apply(&changes[..len]).and_then(|()| document.check_saved())
    };
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

fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
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
