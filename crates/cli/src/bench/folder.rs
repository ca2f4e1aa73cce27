//! A data folder that is filled directly through the store, as an import does, and measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use highwater_core::document::Restoring;
use highwater_core::snapshot::{Compactable, compact};
use highwater_core::{Document, DocumentId, Record};
use highwater_storage::{FILE_NAME, SqliteStore, Store, StoredDocument};

/// Changes that are appended at once.
const BATCH: usize = 10_000;
/// If the store did not give anything back in so long, it has nothing to do.
const SETTLE: Duration = Duration::from_millis(500);

/// A folder with a store in it, which nobody else uses.
pub(crate) struct Folder {
    path: PathBuf,
}

/// How large a database is, in bytes.
pub(crate) struct DiskSize {
    /// The file, and the log of writes beside it.
    pub(crate) file: u64,
    /// What of the file is in use; the rest is kept for what comes next.
    pub(crate) used: u64,
}

/// What a compaction made of a document.
pub(crate) struct Compacted {
    /// How long it took to make the snapshot.
    pub(crate) making: Duration,
    /// The size of the document chunk.
    pub(crate) document_bytes: u64,
    /// The size of the index.
    pub(crate) index_bytes: u64,
}

impl Folder {
    /// A folder that does not hold a database yet.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path.join(FILE_NAME).exists() {
            bail!("{} holds a database already; name a folder that is new", path.display());
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with the store, and closes it.
    pub(crate) async fn with_store<T>(&self, work: impl AsyncFnOnce(&SqliteStore) -> Result<T>) -> Result<T> {
        let store = SqliteStore::open(&self.path)?;
        let result = work(&store).await;
        store.close().await?;
        result
    }

    /// Waits until the store has done what it does in the background, such as deleting what a snapshot stands for.
    pub(crate) async fn settle(&self) -> Result<()> {
        let mut before = u64::MAX;
        while self.size()?.used < before {
            before = self.size()?.used;
            self.with_store(async |_| {
                tokio::time::sleep(SETTLE).await;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// How large the database is. For a store that is closed.
    pub(crate) fn size(&self) -> Result<DiskSize> {
        let database = self.path.join(FILE_NAME);
        let header = fs::read(&database).context("cannot read the database")?;
        // SQLite's file format: the page size at 16, the pages that are free at 36.
        let page_size = match u16::from_be_bytes([*header.get(16).context("no header")?, header[17]]) {
            1 => 1 << 16,
            size => u64::from(size),
        };
        let free = header.get(36..40).and_then(|bytes| bytes.try_into().ok()).context("no header")?;
        let free = u64::from(u32::from_be_bytes(free)) * page_size;
        let file = header.len() as u64;
        let wal = fs::metadata(self.path.join(format!("{FILE_NAME}-wal"))).map_or(0, |wal| wal.len());
        Ok(DiskSize { file: file + wal, used: file - free })
    }
}

/// Makes changes part of a document, durably.
pub(crate) async fn append(store: &SqliteStore, document: DocumentId, changes: &[Bytes]) -> Result<()> {
    for batch in changes.chunks(BATCH) {
        let records = batch.iter().map(|bytes| Record::Change { bytes: bytes.clone() }).collect();
        store.append(document, records).await?;
    }
    Ok(())
}

/// Puts together the changes of a document that has no snapshot, as the server does in the background.
pub(crate) async fn compact_document(store: &SqliteStore, id: DocumentId) -> Result<Compacted> {
    let stored = stored(store, id).await?;
    let (snapshot, making) = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let from = Compactable { base: None, tail: stored.changes, quarantined: vec![] };
        compact(id, from).map(|(snapshot, _)| (snapshot, started.elapsed()))
    })
    .await??;
    let compacted = Compacted {
        making,
        document_bytes: snapshot.info.document_bytes,
        index_bytes: snapshot.info.index.len() as u64,
    };
    store.put_snapshot(id, snapshot).await?;
    Ok(compacted)
}

/// Opens a document as the server does. Returns how long reading it took, and all in all.
pub(crate) async fn open(store: &SqliteStore, id: DocumentId) -> Result<(Document, Duration, Duration)> {
    let started = Instant::now();
    let stored = stored(store, id).await?;
    let reading = started.elapsed();
    let mut restoring = Restoring::new(id, []);
    if let Some(snapshot) = stored.snapshot {
        restoring = restoring.on(snapshot)?;
    }
    for bytes in stored.changes {
        restoring.add(bytes)?;
    }
    let document = restoring.finish();
    Ok((document, reading, started.elapsed()))
}

async fn stored(store: &SqliteStore, id: DocumentId) -> Result<StoredDocument> {
    store.load(id).await?.context("the document is not stored")
}

#[cfg(test)]
mod tests {
    use super::super::prepare::prepare;
    use super::super::progress::Progress;
    use super::*;

    #[tokio::test]
    async fn a_compacted_document_opens_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path()).unwrap();
        let chain = prepare(1, 300, 1, &Progress::silent()).unwrap().pop().unwrap();
        let mut document = automerge::AutoCommit::load(&chain.base).unwrap();
        let base = Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes());
        let changes: Vec<Bytes> =
            std::iter::once(base).chain(chain.edits.iter().map(|edit| edit.bytes.clone())).collect();
        let id = DocumentId::from_bytes([7; 16]);
        let opened = folder
            .with_store(async |store| {
                append(store, id, &changes).await?;
                let compacted = compact_document(store, id).await?;
                assert!(compacted.document_bytes > 0 && compacted.index_bytes > 301 * 32);
                open(store, id).await
            })
            .await
            .unwrap();
        assert_eq!((opened.0.len(), opened.0.covered()), (301, 301));
        folder.settle().await.unwrap();
        let size = folder.size().unwrap();
        assert!(0 < size.used && size.used <= size.file);
        assert!(Folder::new(dir.path()).is_err());
    }
}
