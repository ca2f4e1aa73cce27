//! The store for servers: SQLite in a folder of its own.
//!
//! One thread writes and commits for many callers at once; a few threads read. No runtime is needed: the futures work in any
//! executor. What is stored is listed in `sqlite/schema.rs`.

mod backup;
mod check;
mod compaction;
mod connection;
mod deliveries;
mod feed;
mod folder;
mod reader;
mod rows;
mod schema;
mod snapshot;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use futures::FutureExt;
use highwater_core::{ChangeHash, DocumentId, Record, Snapshot};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use check::{CheckEvent, CheckedDocument, ReadOnlyStore};
pub use rows::DamagedRow;
pub use schema::FILE_NAME;

use crate::queue::Queue;
use crate::store::{
    Deliveries, Delivery, DocumentEntry, Found, Identity, ListDocuments, Note, Store, StoreError,
    StoreFuture, StoredAnswer, StoredDocument,
};
use reader::{Read, Readers};
use writer::{Job, Work, Writer};

/// Keeps documents in an SQLite database.
///
/// Every append is in the write-ahead log, and that is synced, before its future resolves. Appends that are made while a commit is
/// on its way share the next one.
///
/// `append` never waits for room, since the call itself takes its place in the order: the caller bounds how much it has on the way.
///
/// Dropping the store writes what was asked for and closes it, and blocks until that is done; [`close`](Store::close) does the
/// same, and says whether it worked.
pub struct SqliteStore {
    identity: Identity,
    writes: Arc<Queue<Job>>,
    reads: Arc<Queue<Read>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in the folder `dir`, which is created if it is missing. Blocks while it works through what a process that
    /// was killed left behind.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if another process has the folder open. [`StoreError::Open`] if the folder or the database cannot be used: it
    /// is no database of ours, was written by a newer version, or a setting that durability depends on did not take effect.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, |_| Ok(()))
    }

    /// Creates a store in the folder `dir`, which must not hold one, with the identity of another: clients take it for that one.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`StoreError::Open`] if there is a store already.
    pub fn create_as(dir: &Path, identity: &Identity) -> Result<Self, StoreError> {
        if folder::database_path(dir).exists() {
            return Err(StoreError::Open(format!("there is a database in {} already", dir.display())));
        }
        Self::open_with(dir, |conn| schema::set_identity(conn, identity))
    }

    fn open_with(
        dir: &Path,
        prepare: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        folder::create(dir)?;
        let lock = folder::lock(dir)?;
        let conn = connection::open_writer(dir)?;
        prepare(&conn)?;
        let identity = schema::identity(&conn)?;
        let readers = Readers::start(dir)?;
        let (reads, writes) = (readers.queue(), Arc::new(Queue::new()));
        let writer = Writer::new(conn, Arc::clone(&writes), readers, lock).map_err(schema::open_error)?;
        let thread = thread::Builder::new().name("highwater-write".into());
        let thread = thread.spawn(move || writer.run()).map_err(schema::open_error)?;
        Ok(Self { identity, writes, reads, writer: Mutex::new(Some(thread)) })
    }

    /// Opens the store in `dir` for looking at it, for the doctor.
    ///
    /// Nothing in the folder is changed, not even after a crash: what is in a left-over write-ahead log is read from there. While the returned value
    /// is held no server can open the folder. If one has it open already, its files are read along with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] if there is no database of ours, or a newer version wrote it.
    pub fn open_read_only(dir: &Path) -> Result<ReadOnlyStore, StoreError> {
        ReadOnlyStore::open(dir)
    }

    /// Opens a [backup](ReadOnlyStore::back_up), a single file, for looking at it. Nobody may write to the file meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] if it is no database of ours, or a newer version wrote it.
    pub fn open_backup(file: &Path) -> Result<ReadOnlyStore, StoreError> {
        ReadOnlyStore::open_file(file)
    }

    /// Makes a folder from a [backup](ReadOnlyStore::back_up), which the caller has checked. The folder must be new, empty, or left by a restore that was interrupted. Blocks until all is durable.
    ///
    /// The new folder is another server to clients: it has a peer id and a storage id of its own. What the old server acknowledged after the backup was made is missing, and clients
    /// that took the new one for the old would count it as safe.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] if the folder is in use or cannot be written to, or the backup cannot be read.
    pub fn restore(file: &Path, dir: &Path, progress: impl FnMut(u64, u64)) -> Result<Identity, StoreError> {
        backup::restore(file, dir, progress)
    }

    fn write(&self, work: Work) -> StoreFuture<()> {
        let (answer, answered) = oneshot::channel();
        let job = Job { work, answer };
        let last = matches!(job.work, Work::Close);
        let queued = if last { self.writes.push_last(job) } else { self.writes.push(job) };
        let lost = || StoreError::Write("the writer is gone".into());
        answer_of(queued, answered, lost)
    }

    fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Read,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let queued = self.reads.push(question(answer));
        answer_of(queued, answered, || StoreError::Read("the readers are gone".into()))
    }
}

/// The future of a job that was queued, or was not because the store is closed.
fn answer_of<T: Send + 'static>(
    queued: bool,
    answered: oneshot::Receiver<Result<T, StoreError>>,
    lost: fn() -> StoreError,
) -> StoreFuture<T> {
    if !queued {
        return futures::future::ready(Err(StoreError::Closed)).boxed();
    }
    answered.map(move |answer| answer.unwrap_or_else(|_| Err(lost()))).boxed()
}

impl Store for SqliteStore {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn append(&self, document: DocumentId, records: Vec<Record>) -> StoreFuture<()> {
        self.write(Work::Append { document, records })
    }

    fn answer(&self, document: DocumentId, key: [u8; 32]) -> StoreFuture<Option<StoredAnswer>> {
        self.read(|answer| Read::Answer { document, key, answer })
    }

    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>> {
        self.read(|answer| Read::Load { document, answer })
    }

    fn load_snapshot(&self, document: DocumentId) -> StoreFuture<Option<Bytes>> {
        self.read(|answer| Read::Snapshot { document, answer })
    }

    fn put_snapshot(&self, document: DocumentId, snapshot: Snapshot) -> StoreFuture<()> {
        self.write(Work::Snapshot { document, snapshot: Box::new(snapshot) })
    }

    fn put_note(&self, document: DocumentId, note: Note) -> StoreFuture<()> {
        self.write(Work::Note { document, note })
    }

    fn find(&self, document: DocumentId, hash: ChangeHash) -> StoreFuture<Found> {
        self.read(|answer| Read::Find { document, hash, answer })
    }

    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>> {
        self.read(|answer| Read::List { after, limit, answer })
    }

    fn documents(&self, query: ListDocuments) -> StoreFuture<Vec<DocumentEntry>> {
        self.read(|answer| Read::Documents { query, answer })
    }

    fn changed(&self, after: u64, limit: usize) -> StoreFuture<Vec<DocumentEntry>> {
        self.read(|answer| Read::Changed { after, limit, answer })
    }

    fn last_changed(&self) -> StoreFuture<u64> {
        self.read(|answer| Read::LastChanged { answer })
    }

    fn progress(&self, name: String) -> StoreFuture<Option<u64>> {
        self.read(|answer| Read::Progress { name, answer })
    }

    fn put_progress(&self, name: String, cursor: Option<u64>, deliveries: Vec<Delivery>) -> StoreFuture<()> {
        self.write(Work::Progress { name, cursor, deliveries })
    }

    fn deliveries(&self, name: String, which: Deliveries) -> StoreFuture<Vec<Delivery>> {
        self.read(|answer| Read::Deliveries { name, which, answer })
    }

    fn probe(&self) -> StoreFuture<()> {
        self.write(Work::Probe)
    }

    /// Fails with the earlier error if writing had failed; the files are let go all the same, to be opened again.
    fn close(&self) -> StoreFuture<()> {
        let closed = self.write(Work::Close);
        self.reads.close();
        closed
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        let thread = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic outside of the fence has been reported by the thread itself, and there is nobody to tell here.
            let _ = thread.join();
        }
    }
}
