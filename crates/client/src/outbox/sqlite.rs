//! An outbox in a SQLite file.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::{ChangeHash, DocumentId};
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{OutboxBatch, OutboxChange, OutboxStore};
use crate::error::OutboxError;

/// `PRAGMA application_id` of our files: "HWO1".
const APPLICATION_ID: i32 = 0x4857_4f31;
const VERSION: i32 = 1;
/// How long to wait for a program that is just letting go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Each is set, and read back: SQLite ignores what it does not know.
const SETTINGS: &[(&str, &str)] = &[
    ("locking_mode", "exclusive"),
    ("journal_mode", "wal"),
    // FULL: every commit syncs the write-ahead log.
    ("synchronous", "2"),
    // On Apple's systems only this reaches the disk itself.
    ("fullfsync", "1"),
    ("checkpoint_fullfsync", "1"),
];

/// `seq` is the order in which changes were put. The hash is a checksum of `bytes` too.
const SCHEMA: &str = "
    CREATE TABLE owed (
        seq INTEGER PRIMARY KEY,
        document BLOB NOT NULL,
        hash BLOB NOT NULL,
        since_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (document, hash)
    ) STRICT;
";

type Answer<T> = oneshot::Sender<Result<T, OutboxError>>;

enum Job {
    Load(Answer<Vec<OutboxChange>>),
    Write(OutboxBatch, Answer<()>),
}

/// Changes in a SQLite file, which one program has open at a time. Every write is synced.
#[derive(Debug)]
pub struct SqliteOutbox {
    place: String,
    /// Nothing once it is being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteOutbox {
    /// Opens the file, or makes it. Fails if another program has it open, or if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OutboxError> {
        let path: PathBuf = path.as_ref().to_owned();
        let place = format!("in `{}`", path.display());
        let connection = open(&path).map_err(|why| OutboxError::new(&place, why))?;
        let (jobs, waiting) = mpsc::channel();
        let name = place.clone();
        let thread = std::thread::Builder::new()
            .name("highwater-outbox".to_owned())
            .spawn(move || work(connection, &name, &waiting))
            .map_err(|why| OutboxError::new(&place, why))?;
        Ok(Self { place, jobs: Some(jobs), thread: Some(thread) })
    }

    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(Answer<T>) -> Job,
    ) -> BoxFuture<'static, Result<T, OutboxError>> {
        let (answer, answered) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // If the thread is gone so is the answer, and that is noticed below.
            let _ = jobs.send(job(answer));
        }
        let place = self.place.clone();
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(OutboxError::new(place, "its thread has ended")))
        })
    }
}

impl OutboxStore for SqliteOutbox {
    fn load(&self) -> BoxFuture<'static, Result<Vec<OutboxChange>, OutboxError>> {
        self.ask(Job::Load)
    }

    fn write(&self, batch: OutboxBatch) -> BoxFuture<'static, Result<(), OutboxError>> {
        self.ask(|answer| Job::Write(batch, answer))
    }
}

impl Drop for SqliteOutbox {
    /// Waits until the file is free again.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

fn work(mut connection: Connection, place: &str, jobs: &mpsc::Receiver<Job>) {
    let explained = |why: Error| OutboxError::new(place, why);
    // Whoever does not wait for the answer any more does not need it.
    for job in jobs {
        match job {
            Job::Load(answer) => drop(answer.send(load(&connection).map_err(explained))),
            Job::Write(batch, answer) => drop(answer.send(write(&mut connection, &batch).map_err(explained))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("another program has it open: {0}")]
    Busy(rusqlite::Error),
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error("it is a database of another program")]
    Foreign,
    #[error("it was written by a newer version ({0})")]
    Newer(i32),
    #[error("SQLite does not take the setting {0} = {1}, but says {2}")]
    Setting(&'static str, &'static str, String),
    #[error("row {0} is damaged")]
    Damaged(i64),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Self::Busy(error)
            }
            _ => Self::Sqlite(error),
        }
    }
}

fn open(path: &Path) -> Result<Connection, Error> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    apply(&connection, SETTINGS)?;
    // Takes the lock, which is kept until the connection is closed.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?) {
        (0, 0) if tables == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (APPLICATION_ID, VERSION) => {}
        (APPLICATION_ID, newer) => return Err(Error::Newer(newer)),
        _ => return Err(Error::Foreign),
    }
    transaction.commit()?;
    Ok(connection)
}

fn apply(connection: &Connection, settings: &[(&'static str, &'static str)]) -> Result<(), Error> {
    for (name, wanted) in settings {
        connection.pragma_update(None, name, wanted)?;
        let is = connection.pragma_query_value(None, name, |row| row.get::<_, Value>(0))?;
        let is = match is {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if is != *wanted {
            return Err(Error::Setting(name, wanted, is));
        }
    }
    Ok(())
}

fn load(connection: &Connection) -> Result<Vec<OutboxChange>, Error> {
    let mut statement =
        connection.prepare("SELECT seq, document, hash, since_ms, bytes FROM owed ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        let (document, hash): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
        let since_ms: i64 = row.get(3)?;
        let bytes: Vec<u8> = row.get(4)?;
        let (document, hash) = ids(&document, &hash).ok_or(Error::Damaged(seq))?;
        let since_ms = u64::try_from(since_ms).map_err(|_| Error::Damaged(seq))?;
        changes.push(OutboxChange { document, hash, since_ms, bytes: Bytes::from(bytes) });
    }
    Ok(changes)
}

fn ids(document: &[u8], hash: &[u8]) -> Option<(DocumentId, ChangeHash)> {
    Some((DocumentId::try_from(document).ok()?, ChangeHash(hash.try_into().ok()?)))
}

fn write(connection: &mut Connection, batch: &OutboxBatch) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in &batch.put {
        let since_ms = i64::try_from(change.since_ms).unwrap_or(i64::MAX);
        transaction
            .prepare_cached(
                "INSERT INTO owed (document, hash, since_ms, bytes) VALUES (?, ?, ?, ?)
                 ON CONFLICT (document, hash) DO NOTHING",
            )?
            .execute(params![
                &change.document.as_bytes()[..],
                &change.hash.0[..],
                since_ms,
                &change.bytes[..]
            ])?;
    }
    for (document, hash) in &batch.remove {
        transaction
            .prepare_cached("DELETE FROM owed WHERE document = ? AND hash = ?")?
            .execute(params![&document.as_bytes()[..], &hash.0[..]])?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(document: u8, n: u8) -> OutboxChange {
        OutboxChange {
            document: DocumentId::from_bytes([document; 16]),
            hash: ChangeHash([n; 32]),
            since_ms: u64::from(n),
            bytes: Bytes::from(vec![n; 3]),
        }
    }

    #[tokio::test]
    async fn what_was_written_is_there_in_its_order_also_for_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let outbox = SqliteOutbox::open(&path).unwrap();
        assert_eq!(outbox.load().await.unwrap(), []);
        let put = vec![change(1, 3), change(1, 1), change(2, 1), change(1, 2)];
        outbox.write(OutboxBatch { put, remove: vec![] }).await.unwrap();
        let remove =
            vec![(change(1, 1).document, change(1, 1).hash), (change(9, 9).document, change(9, 9).hash)];
        outbox.write(OutboxBatch { put: vec![change(1, 3)], remove }).await.unwrap();
        drop(outbox);
        let successor = SqliteOutbox::open(&path).unwrap();
        assert_eq!(successor.load().await.unwrap(), [change(1, 3), change(2, 1), change(1, 2)]);
    }

    #[test]
    fn one_program_has_it_open_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let first = SqliteOutbox::open(&path).unwrap();
        let error = SqliteOutbox::open(&path).unwrap_err().to_string();
        assert!(error.contains("another program has it open"), "{error}");
        drop(first);
        SqliteOutbox::open(&path).unwrap();
    }

    #[test]
    fn a_setting_that_sqlite_does_not_take_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        apply(&connection, &[("fullfsync", "1")]).unwrap();
        let error = apply(&connection, &[("journal_mode", "wal")]).unwrap_err().to_string();
        assert!(error.contains("journal_mode"), "{error}");
        assert!(apply(&connection, &[("no_such_setting", "1")]).is_err());
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (n)").unwrap();
        let error = SqliteOutbox::open(&path).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
        std::fs::write(&path, "no database, but a text that is long enough to be mistaken for one").unwrap();
        assert!(SqliteOutbox::open(&path).is_err());
        assert!(SqliteOutbox::open(folder.path().join("no/such/folder")).is_err());
    }
}
