//! Reading a file: nothing comes out of one that does not verify as a whole.

use std::fs;

use bytes::Bytes;
use highwater_core::change::{self, Change};
use highwater_core::{ChangeHash, Document};
use sha2::{Digest, Sha256};

use super::find::{Kind, SourceFile};

/// Larger than anything that could be taken in.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a file holds.
pub(super) enum Content {
    /// A saved document of which the document here has everything.
    Known,
    Changes(Vec<Change>),
}

/// A file that verifies.
pub(super) struct ReadFile {
    pub(super) content: Content,
    /// Its name says that it should hold something else.
    pub(super) has_odd_name: bool,
}

/// Reads a file and checks every chunk in it. The error says why it is refused.
pub(super) fn read(file: &SourceFile, document: &Document) -> Result<ReadFile, String> {
    let bytes = load(file)?;
    let heads = change::saved_heads(&bytes);
    if let Some(heads) = &heads
        && !heads.is_empty()
        && heads.iter().all(|head| document.contains(head))
    {
        let has_odd_name = !name_fits(file, &bytes, &[], Some(heads));
        return Ok(ReadFile { content: Content::Known, has_odd_name });
    }
    let changes = changes(&bytes)?;
    let has_odd_name = !name_fits(file, &bytes, &changes, heads.as_deref());
    Ok(ReadFile { content: Content::Changes(changes), has_odd_name })
}

/// The bytes of a file.
pub(super) fn load(file: &SourceFile) -> Result<Bytes, String> {
    if file.bytes > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, more than {FILE_BYTES_MAX}", file.bytes));
    }
    let bytes = fs::read(&file.path).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.is_empty() { Err("it is empty".to_owned()) } else { Ok(bytes.into()) }
}

/// The changes in a file, if all of it verifies.
pub(super) fn changes(bytes: &Bytes) -> Result<Vec<Change>, String> {
    change::unpack(std::slice::from_ref(bytes)).map_err(|error| error.to_string())
}

/// Whether a name that looks like a hash is one of those that automerge-repo or samod give. Other names say nothing.
///
/// A file that was cut between two changes verifies, and this is how it shows.
fn name_fits(file: &SourceFile, bytes: &[u8], changes: &[Change], heads: Option<&[ChangeHash]>) -> bool {
    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if file.kind == Kind::Saved || name.len() != 64 || hex::decode(&name).is_err() {
        return true;
    }
    if file.kind == Kind::Incremental {
        let is_samods = matches!(changes, [change] if hex::encode(change.hash.0) == name);
        return is_samods || hex::encode(Sha256::digest(bytes)) == name;
    }
    // A snapshot of several chunks is nothing that either would write.
    heads.is_some_and(|heads| {
        let raw: Vec<u8> = heads.iter().flat_map(|head| head.0).collect();
        snapshot_name(heads) == name || hex::encode(Sha256::digest(&raw)) == name
    })
}

/// The name that automerge-repo gives to a snapshot with these heads, which are sorted.
pub(crate) fn snapshot_name(heads: &[ChangeHash]) -> String {
    let texts: String = heads.iter().map(|head| hex::encode(head.0)).collect();
    hex::encode(Sha256::digest(texts))
}
