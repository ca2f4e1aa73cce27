//! Changes made beforehand, so that a client has nothing to do during the measurement but send them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use highwater_core::ChangeHash;

use super::progress::Progress;

/// A document with some history, and one writer's edits on top of it, each on top of the one before.
pub(crate) struct Chain {
    /// The document before the edits: one document chunk.
    pub(crate) base: Bytes,
    /// The one head of the document before the edits.
    pub(crate) base_head: ChangeHash,
    /// The edits.
    pub(crate) edits: Vec<Edit>,
    /// The place of an edit's hash in `edits`.
    pub(crate) index: HashMap<ChangeHash, usize>,
}

/// One prepared change: a character typed at the end of a text.
pub(crate) struct Edit {
    /// The change chunk.
    pub(crate) bytes: Bytes,
    /// Its hash.
    pub(crate) hash: ChangeHash,
}

/// One chain for each of `writers`, all on the same document, which has `history` changes (at least the one that creates the text).
pub(crate) async fn chains(
    history: usize,
    edits: usize,
    writers: usize,
    progress: &Progress,
) -> Result<Vec<Arc<Chain>>> {
    let progress = progress.clone();
    // Seconds of work for long histories; the time limit and the progress line go on meanwhile.
    tokio::task::spawn_blocking(move || prepare(history, edits, writers, &progress)).await?
}

/// The one chain of a document that has one writer.
pub(crate) async fn chain_of_one(history: usize, edits: usize, progress: &Progress) -> Result<Arc<Chain>> {
    chains(history, edits, 1, progress).await?.pop().context("one writer has one chain")
}

/// The same, at once.
pub(super) fn prepare(
    history: usize,
    edits: usize,
    writers: usize,
    progress: &Progress,
) -> Result<Vec<Arc<Chain>>> {
    progress.stage("preparing history", history);
    let mut document = base(history, progress)?;
    let saved = Bytes::from(document.save());
    progress.stage("preparing edits", edits * writers);
    (0..writers)
        .map(|writer| {
            let mut fork = document.fork().with_actor(actor(writer));
            let typist = Typist::new(1 + writer as u64);
            chain(&mut fork, saved.clone(), edits, typist, progress).map(Arc::new)
        })
        .collect()
}

/// The chain of one writer on a document that exists elsewhere already, so that its base need not be brought anywhere.
pub(super) fn chain_on(mut document: AutoCommit, edits: usize, progress: &Progress) -> Result<Arc<Chain>> {
    progress.stage("preparing edits", edits);
    document.set_actor(actor(0));
    chain(&mut document, Bytes::new(), edits, Typist::new(1), progress).map(Arc::new)
}

fn actor(writer: usize) -> ActorId {
    let mut bytes = [0xb0; 16];
    bytes[8..].copy_from_slice(&(writer as u64).to_be_bytes());
    ActorId::from(bytes)
}

fn base(history: usize, progress: &Progress) -> Result<AutoCommit> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([0xa0; 16]));
    let text = document.put_object(ROOT, "text", ObjType::Text)?;
    let mut typist = Typist::new(0);
    document.commit_with(typist.pause());
    for position in 1..history {
        document.splice_text(&text, position - 1, 0, typist.letter())?;
        document.commit_with(typist.pause());
        progress.step(1);
    }
    Ok(document)
}

fn chain(
    document: &mut AutoCommit,
    base: Bytes,
    edits: usize,
    mut typist: Typist,
    progress: &Progress,
) -> Result<Chain> {
    let (_, text) = document.get(ROOT, "text")?.context("the text was made with the history")?;
    let length = document.length(&text);
    let base_head = *document.get_heads().first().context("a document with a history has a head")?;
    let edits: Vec<Edit> = (0..edits)
        .map(|edit| {
            document.splice_text(&text, length + edit, 0, typist.letter())?;
            document.commit_with(typist.pause());
            progress.step(1);
            let change = document.get_last_local_change().context("the edit made a change")?;
            Ok(Edit { bytes: Bytes::copy_from_slice(change.raw_bytes()), hash: change.hash() })
        })
        .collect::<Result<_>>()?;
    let index = edits.iter().enumerate().map(|(place, edit)| (edit.hash, place)).collect();
    Ok(Chain { base, base_head, edits, index })
}

/// Types letters that do not compress to nothing, at times that do not either, and the same ones in every run.
pub(super) struct Typist {
    random: u64,
    seconds: i64,
}

impl Typist {
    /// Another seed types other letters.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed, seconds: 1_700_000_000 }
    }

    /// A generator of Knuth's (MMIX): its high bits are random enough for letters.
    fn roll(&mut self, sides: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % sides
    }

    fn letter(&mut self) -> &'static str {
        const LETTERS: &str = "etaoinshrdlucmfwypvbgkqjxz eeeeetttaaooiinnsshhrr      ";
        let at = self.roll(LETTERS.len() as u64) as usize;
        &LETTERS[at..=at]
    }

    /// The time of the next change.
    pub(super) fn pause(&mut self) -> CommitOptions {
        self.seconds += self.roll(3) as i64;
        CommitOptions::default().with_time(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use automerge::Automerge;

    use super::*;

    #[test]
    fn every_edit_applies_on_top_of_the_base() {
        let chains = prepare(50, 20, 2, &Progress::silent()).unwrap();
        let mut document = Automerge::load(&chains[0].base).unwrap();
        assert_eq!(document.get_heads(), [chains[0].base_head]);
        for chain in &chains {
            for edit in &chain.edits {
                document.load_incremental(&edit.bytes).unwrap();
                assert!(document.get_heads().contains(&edit.hash));
            }
        }
        assert_eq!(document.get_changes(&[]).len(), 50 + 2 * 20);
    }
}
