//! Ids for files whose names are none.
//!
//! Who knows the id of a document can ask for it, so new ids are random and not made from the file. So that an import can be repeated, the data folder remembers
//! which file got which: a line for each, with the SHA-256 of the file, the id, and the file's name for people to read.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use highwater_core::DocumentId;
use sha2::{Digest, Sha256};

use super::find::SourceFile;
use super::read;
use crate::durable_file;

const FILE_NAME: &str = "imported-files.tsv";

/// Which file got which id.
pub(super) struct GivenIds {
    path: PathBuf,
    known: HashMap<String, DocumentId>,
}

impl GivenIds {
    /// Reads what is remembered. A line that was cut is as good as none: its document was not stored yet.
    pub(super) fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let known = text.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            let (hash, id, _) = (fields.next()?, fields.next()?, fields.next()?);
            Some((hash.to_owned(), id.parse().ok()?))
        });
        Ok(Self { known: known.collect(), path })
    }

    /// The id of a file, remembered before anything is stored under it. One that does not verify gets none, but the reason.
    pub(super) fn id_of(&mut self, file: &SourceFile) -> Result<Result<DocumentId, String>> {
        let content = match read::load(file) {
            Ok(content) => content,
            Err(reason) => return Ok(Err(reason)),
        };
        let hash = hex::encode(Sha256::digest(&content));
        if let Some(id) = self.known.get(&hash) {
            return Ok(Ok(*id));
        }
        if let Err(reason) = read::changes(&content) {
            return Ok(Err(reason));
        }
        let id = random_id()?;
        let name = file.path.display().to_string().replace(['\t', '\n', '\r'], " ");
        self.remember(&format!("{hash}\t{id}\t{name}\n"))
            .with_context(|| format!("cannot write to {}", self.path.display()))?;
        self.known.insert(hash, id);
        Ok(Ok(id))
    }

    fn remember(&self, line: &str) -> std::io::Result<()> {
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        // What was cut before must not run into this line.
        if !is_new && !fs::read(&self.path)?.ends_with(b"\n") {
            file.write_all(b"\n")?;
        }
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        if is_new { durable_file::sync_folder(durable_file::folder_of(&self.path)) } else { Ok(()) }
    }
}

fn random_id() -> Result<DocumentId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    // A version 4 UUID, as clients make them.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(DocumentId::from_bytes(bytes))
}
