//! The editing trace of automerge-perf, every keystroke of a paper, typed again with a change for each.
//!
//! The file is JSON, packed with gzip: `{"txns": [{"patches": [[position, deleted, inserted]]}]}`. Whoever has it says where it is; `cargo xtask bench` fetches it.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use flate2::read::GzDecoder;
use serde_json::Value;

use super::prepare::Typist;
use super::progress::Progress;

/// The trace has 20 MB when it is unpacked.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// One keystroke: a character, or without one the deletion of the character that stands there.
#[derive(Debug, PartialEq, Eq)]
struct Keystroke {
    position: usize,
    inserted: Option<String>,
}

/// What somebody typed.
pub(crate) struct Trace(Vec<Keystroke>);

impl Trace {
    /// Reads a trace from its file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut unpacked = Vec::new();
        GzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked)?;
        Self::parse(&unpacked).with_context(|| format!("{} is no editing trace", path.display()))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        let trace: Value = serde_json::from_slice(json)?;
        let transactions = trace["txns"].as_array().context("it has no `txns`")?;
        let patches = transactions.iter().flat_map(|transaction| transaction["patches"].as_array());
        let mut keystrokes = Vec::with_capacity(transactions.len());
        for patch in patches.flatten() {
            let position = patch[0].as_u64().context("a patch without a position")? as usize;
            let deleted = patch[1].as_u64().context("a patch without a number of deletions")?;
            let inserted = patch[2].as_str().context("a patch without text")?;
            let deletion = || Keystroke { position, inserted: None };
            keystrokes.extend((0..deleted).map(|_| deletion()));
            let typed = inserted.chars().enumerate();
            keystrokes.extend(typed.map(|(place, character)| Keystroke {
                position: position + place,
                inserted: Some(character.to_string()),
            }));
        }
        if keystrokes.is_empty() {
            bail!("nobody typed anything");
        }
        Ok(Self(keystrokes))
    }

    /// A document with so many changes, the first of which makes the text. A trace that is too short is typed again, before what is there already.
    pub(crate) fn type_into_document(&self, changes: usize, progress: &Progress) -> Result<AutoCommit> {
        progress.stage("typing", changes);
        let mut document = AutoCommit::new().with_actor(ActorId::from([0xa0; 16]));
        let text = document.put_object(ROOT, "text", ObjType::Text)?;
        let mut typist = Typist::new(0);
        document.commit_with(typist.pause());
        for keystroke in self.0.iter().cycle().take(changes.saturating_sub(1)) {
            let Keystroke { position, inserted } = keystroke;
            match inserted {
                Some(inserted) => document.splice_text(&text, *position, 0, inserted)?,
                None => document.splice_text(&text, *position, 1, "")?,
            }
            document.commit_with(typist.pause());
            progress.step(1);
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use automerge::ReadDoc;

    use super::*;

    const TRACE: &[u8] =
        br#"{"txns": [{"patches": [[0, 0, "ab"], [1, 1, ""]]}, {"patches": [[1, 0, "c"]]}]}"#;

    #[test]
    fn each_keystroke_is_a_change_and_a_short_trace_begins_anew() {
        let trace = Trace::parse(TRACE).unwrap();
        for (changes, expected) in [(1, ""), (3, "ab"), (5, "ac"), (9, "acac")] {
            let mut document = trace.type_into_document(changes, &Progress::silent()).unwrap();
            let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
            assert_eq!(document.text(&text).unwrap(), expected);
            assert_eq!(document.get_changes(&[]).len(), changes);
        }
    }

    #[test]
    fn another_file_is_refused() {
        for json in [&b"[]"[..], br#"{"txns": []}"#, br#"{"txns": [{"patches": [["x", 0, ""]]}]}"#] {
            assert!(Trace::parse(json).is_err());
        }
    }
}
