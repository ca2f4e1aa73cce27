//! The threads that read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use highwater_core::{ChangeHash, DocumentId};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::rows::{self, DamagedRow, OnDamage};
use super::snapshot::{self, Fault, SnapshotReader};
use super::{connection, deliveries, feed, schema};
use crate::queue::Queue;
use crate::store::{
    Deliveries, Delivery, DocumentEntry, Found, ListDocuments, StoreError, StoredAnswer, StoredDocument,
};

/// Reads at most this many documents at a time.
const THREADS: usize = 4;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a reader is asked to do.
pub(super) enum Read {
    Load { document: DocumentId, answer: Answer<Option<StoredDocument>> },
    Snapshot { document: DocumentId, answer: Answer<Option<Bytes>> },
    Find { document: DocumentId, hash: ChangeHash, answer: Answer<Found> },
    List { after: Option<DocumentId>, limit: usize, answer: Answer<Vec<DocumentId>> },
    Answer { document: DocumentId, key: [u8; 32], answer: Answer<Option<StoredAnswer>> },
    Documents { query: ListDocuments, answer: Answer<Vec<DocumentEntry>> },
    Changed { after: u64, limit: usize, answer: Answer<Vec<DocumentEntry>> },
    LastChanged { answer: Answer<u64> },
    Progress { name: String, answer: Answer<Option<u64>> },
    Deliveries { name: String, which: Deliveries, answer: Answer<Vec<Delivery>> },
}

/// A few threads with a connection each, and one queue before them.
pub(super) struct Readers {
    queue: Arc<Queue<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub(super) fn start(dir: &Path) -> Result<Self, StoreError> {
        let mut readers = Self { queue: Arc::new(Queue::new()), threads: Vec::new() };
        for _ in 0..THREADS {
            let conn = connection::open_reader(dir)?;
            let queue = Arc::clone(&readers.queue);
            let thread = thread::Builder::new().name("highwater-read".into());
            let thread = thread.spawn(move || run(conn, &queue)).map_err(schema::open_error)?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Where to put what is to be read.
    pub(super) fn queue(&self) -> Arc<Queue<Read>> {
        Arc::clone(&self.queue)
    }
}

impl Drop for Readers {
    /// Answers what was asked so far, then stops the threads and closes their connections.
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A thread cannot have panicked: each read is fenced.
            let _ = thread.join();
        }
    }
}

fn run(conn: Connection, queue: &Queue<Read>) {
    while let Some(read) = queue.take() {
        // Nobody may be waiting for the answer any more; that is no error.
        match read {
            Read::Load { document, answer } => drop(answer.send(fenced(|| load(&conn, document)))),
            Read::Snapshot { document, answer } => drop(answer.send(fenced(|| chunk(&conn, document)))),
            Read::Find { document, hash, answer } => {
                drop(answer.send(fenced(|| find(&conn, document, &hash))))
            }
            Read::List { after, limit, answer } => drop(answer.send(fenced(|| list(&conn, after, limit)))),
            Read::Answer { document, key, answer } => {
                drop(answer.send(fenced(|| given_answer(&conn, document, &key))));
            }
            Read::Documents { query, answer } => drop(answer.send(fenced(|| feed::documents(&conn, &query)))),
            Read::Changed { after, limit, answer } => {
                drop(answer.send(fenced(|| feed::changed(&conn, after, limit))));
            }
            Read::LastChanged { answer } => drop(answer.send(fenced(|| feed::last_changed(&conn)))),
            Read::Progress { name, answer } => {
                drop(answer.send(fenced(|| deliveries::progress(&conn, &name))))
            }
            Read::Deliveries { name, which, answer } => {
                drop(answer.send(fenced(|| deliveries::deliveries(&conn, &name, &which))));
            }
        }
    }
}

/// A panic while reading one document must not end the thread, and with it the reading of all others.
fn fenced<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(StoreError::Read("a reader panicked".into())))
}

fn load(conn: &Connection, document: DocumentId) -> Result<Option<StoredDocument>, StoreError> {
    // Several statements, one state of the database.
    let _snapshot = conn.unchecked_transaction().map_err(read_error)?;
    let Some(number) = rows::document_number(conn, &document).map_err(read_error)? else {
        return Ok(None);
    };
    let walked = rows::walk(conn, number, document, OnDamage::Stop);
    if let Some(damage) = walked.damaged.into_iter().next() {
        return Err(damaged(document, damage));
    }
    match walked.cut_short {
        Some(error) => Err(StoreError::Read(format!("document {document}: {error}"))),
        None => Ok(Some(walked.stored)),
    }
}

fn damaged(document: DocumentId, damage: DamagedRow) -> StoreError {
    let record = format!("{} row {}", damage.table, damage.row);
    StoreError::Damaged { document, record, detail: damage.detail }
}

fn faulty(document: DocumentId) -> impl Fn(Fault) -> StoreError {
    move |fault| match fault {
        Fault::Damaged(damage) => damaged(document, damage),
        Fault::Read(error) => StoreError::Read(format!("document {document}: {error}")),
    }
}

fn chunk(conn: &Connection, document: DocumentId) -> Result<Option<Bytes>, StoreError> {
    let _snapshot = conn.unchecked_transaction().map_err(read_error)?;
    let Some(number) = rows::document_number(conn, &document).map_err(read_error)? else {
        return Ok(None);
    };
    if rows::deleted(conn, number, &document).map_err(faulty(document))?.is_some() {
        return Ok(None);
    }
    let reader = SnapshotReader::open(conn, number, document).map_err(faulty(document))?;
    reader.map(|reader| reader.chunk()).transpose().map_err(faulty(document))
}

fn find(conn: &Connection, document: DocumentId, hash: &ChangeHash) -> Result<Found, StoreError> {
    let _snapshot = conn.unchecked_transaction().map_err(read_error)?;
    snapshot::find(conn, document, hash).map_err(faulty(document))
}

fn given_answer(
    conn: &Connection,
    document: DocumentId,
    key: &[u8; 32],
) -> Result<Option<StoredAnswer>, StoreError> {
    let _snapshot = conn.unchecked_transaction().map_err(read_error)?;
    let Some(number) = rows::document_number(conn, &document).map_err(read_error)? else {
        return Ok(None);
    };
    rows::answer(conn, number, &document, key).map_err(faulty(document))
}

fn list(conn: &Connection, after: Option<DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
    // Every blob is greater than the empty one.
    let after: &[u8] = after.as_ref().map_or(&[], |document| document.as_bytes());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn
        .prepare_cached(
            "SELECT document_id FROM document WHERE document_id > ?1 ORDER BY document_id LIMIT ?2",
        )
        .map_err(read_error)?;
    let ids = statement.query_map((after, limit), |row| row.get::<_, Vec<u8>>(0)).map_err(read_error)?;
    ids.map(|id| document_id(&id.map_err(read_error)?)).collect()
}

pub(super) fn document_id(bytes: &[u8]) -> Result<DocumentId, StoreError> {
    DocumentId::try_from(bytes)
        .map_err(|_| StoreError::Read(format!("a document has an id of {} bytes instead of 16", bytes.len())))
}

pub(super) fn read_error(error: rusqlite::Error) -> StoreError {
    StoreError::Read(error.to_string())
}
