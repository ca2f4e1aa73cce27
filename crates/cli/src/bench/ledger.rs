//! The file in which `bench crash` writes down what was acknowledged, for `bench verify` to read.
//!
//! One line for each acknowledged change: the document and the hash, with a blank between them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use highwater_core::{ChangeHash, DocumentId};

const CANNOT_WRITE: &str = "cannot write down what was acknowledged";

/// Takes down what was acknowledged.
pub(crate) struct Ledger {
    file: Mutex<BufWriter<File>>,
}

impl Ledger {
    /// Begins a new file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: Mutex::new(BufWriter::new(file)) })
    }

    /// Writes down that this change was acknowledged.
    pub(crate) fn acknowledged(&self, document: &str, hash: &ChangeHash) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // As a text: an I/O error would look like a lost connection to those who expect one.
        writeln!(file, "{document} {hash}").map_err(|error| anyhow!("{CANNOT_WRITE}: {error}"))
    }

    /// Hands everything to the system.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().map_err(|error| anyhow!("{CANNOT_WRITE}: {error}"))
    }
}

/// What was acknowledged, by document.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<DocumentId, Vec<ChangeHash>>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut documents = BTreeMap::<_, Vec<_>>::new();
    for (number, line) in text.lines().enumerate() {
        let (document, hash) = parse(line).with_context(|| {
            format!("{}, line {}: expected a document id and a change hash", path.display(), number + 1)
        })?;
        documents.entry(document).or_default().push(hash);
    }
    Ok(documents)
}

fn parse(line: &str) -> Option<(DocumentId, ChangeHash)> {
    let (document, hash) = line.split_once(' ')?;
    Some((document.parse().ok()?, hash.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acks");
        let document = DocumentId::from_bytes([3; 16]);
        let hashes = [ChangeHash([1; 32]), ChangeHash([2; 32])];
        let ledger = Ledger::create(&path).unwrap();
        hashes.iter().for_each(|hash| ledger.acknowledged(&document.to_string(), hash).unwrap());
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), BTreeMap::from([(document, hashes.to_vec())]));
        fs::write(&path, "nonsense\n").unwrap();
        assert!(read(&path).is_err());
    }
}
