//! The thread that writes.
//!
//! It takes everything that is queued, writes it in one transaction, syncs once, and then answers everybody. While one commit is on
//! its way the next one fills.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_core::{DocumentId, Record, Snapshot};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::compaction::{Compaction, Outcome};
use super::connection::{self, BUSY_TIMEOUT_MS, Checkpoint};
use super::deliveries;
use super::reader::Readers;
use super::rows;
use super::schema::{self, KIND_CHANGE, META_PROBE, QuarantineFields};
use crate::queue::Queue;
use crate::store::{ANSWER_KEPT_MS, Delivery, Note, StoreError};

/// A transaction is closed when it has this many rows, or this many bytes; what is left goes into the next one.
const BATCH_ROWS: usize = 10_000;
const BATCH_BYTES: usize = 8 << 20;
/// Documents whose number is remembered.
const KNOWN_DOCUMENTS: usize = 100_000;
/// Pages in the write-ahead log that make a checkpoint worth its syncs: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4_000;
/// Pages in the write-ahead log at which readers are waited for, so that it starts anew: 256 MiB.
const RESTART_PAGES: i64 = 64_000;
/// Old answers that are looked at with each new one: more than one, so that they do not pile up.
const ANSWERS_CLEARED: i64 = 4;
/// How long they are waited for. Appends wait too.
const RESTART_WAIT: Duration = Duration::from_millis(100);

pub(super) type Answer = oneshot::Sender<Result<(), StoreError>>;

/// What the writer is asked to do.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) answer: Answer,
}

pub(super) enum Work {
    Append {
        document: DocumentId,
        records: Vec<Record>,
    },
    /// Begins here, and goes on with the commits that follow.
    Snapshot {
        document: DocumentId,
        snapshot: Box<Snapshot>,
    },
    Note {
        document: DocumentId,
        note: Note,
    },
    Progress {
        name: String,
        cursor: Option<u64>,
        deliveries: Vec<Delivery>,
    },
    Probe,
    /// Always the last one in the queue.
    Close,
}

impl Work {
    fn rows(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.len().max(1),
            Self::Progress { deliveries, .. } => deliveries.len().max(1),
            _ => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(|record| record.len()).sum(),
            _ => 0,
        }
    }
}

/// Everything that the store holds open: when the writer ends, all of it is let go.
pub(super) struct Writer {
    conn: Connection,
    queue: Arc<Queue<Job>>,
    readers: Readers,
    lock: File,
    known: Known,
    /// Under way, one after the other.
    compactions: VecDeque<Compaction>,
    /// The number that was given last in the feed.
    changed: i64,
    /// Why nothing can be written any more.
    failure: Option<StoreError>,
    restart_at: i64,
    closing: Option<Answer>,
}

impl Writer {
    /// A writer for an open database.
    pub(super) fn new(
        conn: Connection,
        queue: Arc<Queue<Job>>,
        readers: Readers,
        lock: File,
    ) -> rusqlite::Result<Self> {
        let compactions = Compaction::left_over(&conn)?;
        let changed = schema::last_changed(&conn)?;
        Ok(Self {
            conn,
            queue,
            readers,
            lock,
            known: Known::default(),
            compactions,
            changed,
            failure: None,
            restart_at: RESTART_PAGES,
            closing: None,
        })
    }

    /// Works until the queue is closed and empty, then lets go of everything.
    pub(super) fn run(mut self) {
        while self.closing.is_none() {
            let is_compacting = !self.compactions.is_empty() && self.failure.is_none();
            let mut jobs = if is_compacting { self.queue.take_all_now() } else { self.queue.take_all() };
            if jobs.is_empty() && !(is_compacting && self.queue.is_open()) {
                break;
            }
            // An empty batch is for the sake of a compaction alone.
            loop {
                let batch = next_batch(&mut jobs);
                self.commit(batch);
                self.checkpoint();
                if jobs.is_empty() {
                    break;
                }
            }
        }
        self.finish();
    }

    /// Writes a batch, then answers. After a failure nothing is written any more: a later success must not stand on it.
    fn commit(&mut self, batch: Vec<Job>) {
        let batch = self.queue_compactions(batch);
        let mut compacted = None;
        if self.failure.is_none() {
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&batch)));
            match written {
                Ok(Ok(outcome)) => compacted = outcome,
                Ok(Err(error)) => self.fail(StoreError::Write(error.to_string())),
                Err(_) => self.fail(StoreError::Write("the writer panicked".into())),
            }
        }
        let result = self.failure.clone().map_or(Ok(()), Err);
        for job in batch {
            match job.work {
                Work::Close => self.closing = Some(job.answer),
                // Nobody may be waiting for the answer any more; the work is done all the same.
                _ => drop(job.answer.send(result.clone())),
            }
        }
        self.after_slice(compacted);
    }

    /// Compactions wait for their turn apart from the rest.
    fn queue_compactions(&mut self, batch: Vec<Job>) -> Vec<Job> {
        let mut rest = Vec::with_capacity(batch.len());
        for Job { work, answer } in batch {
            match work {
                Work::Snapshot { document, snapshot } => {
                    self.compactions.push_back(Compaction::new(document, snapshot, answer));
                }
                work => rest.push(Job { work, answer }),
            }
        }
        rest
    }

    /// A slice of the first compaction is durable, unless the store failed.
    fn after_slice(&mut self, outcome: Option<Outcome>) {
        if let Some(failure) = &self.failure {
            self.compactions.drain(..).for_each(|mut compaction| compaction.answer(Err(failure.clone())));
        }
        let Some(compaction) = self.compactions.front_mut() else { return };
        match outcome {
            None | Some(Outcome::More) => return,
            Some(Outcome::Counts) => return compaction.answer(Ok(())),
            Some(Outcome::Misfit(detail)) => compaction.answer(Err(StoreError::Snapshot(detail))),
            Some(Outcome::Done) => {}
        }
        self.compactions.pop_front();
    }

    fn fail(&mut self, failure: StoreError) {
        tracing::error!(%failure, "the store failed and writes nothing more");
        self.failure = Some(failure);
    }

    /// Writes a batch, and a slice of a compaction if one is under way.
    fn write(&mut self, batch: &[Job]) -> rusqlite::Result<Option<Outcome>> {
        // If this returns early the transaction is dropped and with that rolled back.
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let mut rows = Rows::new(&self.conn, &mut self.known, &mut self.changed)?;
        for job in batch {
            match &job.work {
                Work::Append { document, records } => rows.append(document, records)?,
                Work::Note { document, note } => rows.note(document, note)?,
                Work::Progress { name, cursor, deliveries } => {
                    deliveries::put(&self.conn, name, *cursor, deliveries)?;
                }
                Work::Probe => rows.probe()?,
                Work::Snapshot { .. } | Work::Close => {}
            }
        }
        self.compactions.extend(rows.finish());
        let compaction = self.compactions.front_mut();
        let outcome = compaction.map(|compaction| compaction.slice(&self.conn, now_ms())).transpose()?;
        transaction.commit()?;
        Ok(outcome)
    }

    /// Moves the log into the database when it has grown long. Nobody waits for this: all are answered.
    fn checkpoint(&mut self) {
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = self.checkpoint_if_due() {
            // It may be a sync that failed. Trying again could report a success that is none.
            self.fail(StoreError::Write(format!("checkpoint: {error}")));
        }
    }

    fn checkpoint_if_due(&mut self) -> rusqlite::Result<()> {
        let wal = connection::checkpoint(&self.conn, Checkpoint::Look)?;
        if wal.pages >= self.restart_at {
            self.conn.busy_timeout(RESTART_WAIT)?;
            let wal = connection::checkpoint(&self.conn, Checkpoint::Restart)?;
            self.conn.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
            // One slow reader must not cost every commit the wait.
            self.restart_at = if wal.busy { wal.pages.max(self.restart_at) * 2 } else { RESTART_PAGES };
        } else if wal.pages - wal.moved >= CHECKPOINT_PAGES {
            connection::checkpoint(&self.conn, Checkpoint::Passive)?;
        }
        Ok(())
    }

    fn finish(self) {
        let Self { conn, readers, lock, failure, closing, .. } = self;
        // Readers first: with one of them still open the log could not be emptied.
        drop(readers);
        let result = tidy(conn, failure);
        drop(lock);
        match (closing, result) {
            (Some(answer), result) => drop(answer.send(result)),
            (None, Err(error)) => tracing::error!(%error, "closing the store"),
            (None, Ok(())) => {}
        }
    }
}

/// Leaves the database file complete and without a log, unless writing failed: then all stays as it is until it is opened again.
fn tidy(conn: Connection, failure: Option<StoreError>) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Write(format!("closing: {error}"));
    let tidied = match failure {
        Some(failure) => Err(failure),
        None => connection::checkpoint(&conn, Checkpoint::Truncate).map(drop).map_err(failed),
    };
    if tidied.is_err() {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    }
    let closed = conn.close().map_err(|(_, error)| failed(error));
    tidied.and(closed)
}

/// As many jobs as make one transaction; at least one.
fn next_batch(jobs: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut count, mut rows, mut bytes) = (0, 0, 0);
    for job in jobs.iter() {
        rows += job.work.rows();
        bytes += job.work.bytes();
        if count > 0 && (rows > BATCH_ROWS || bytes > BATCH_BYTES) {
            break;
        }
        count += 1;
    }
    if count == jobs.len() { mem::take(jobs).into() } else { jobs.drain(..count).collect() }
}

/// Where the next record of a document goes.
#[derive(Clone, Copy)]
struct Place {
    number: i64,
    position: i64,
    is_deleted: bool,
}

/// Documents that were written to lately. Right only as long as no transaction is rolled back, after which nothing is written any more.
#[derive(Default)]
struct Known(HashMap<DocumentId, Place>);

impl Known {
    fn make_room(&mut self) {
        if self.0.len() >= KNOWN_DOCUMENTS {
            self.0.clear();
        }
    }
}

/// The statements of one transaction.
struct Rows<'c> {
    conn: &'c Connection,
    known: &'c mut Known,
    change: CachedStatement<'c>,
    feed: CachedStatement<'c>,
    /// The number that was given last in the feed.
    changed: &'c mut i64,
    /// Documents that have a new number. All of a transaction is seen at once, so one is enough.
    moved: HashSet<i64>,
    /// Documents that were deleted.
    deleted: Vec<Compaction>,
    now_ms: i64,
}

impl<'c> Rows<'c> {
    fn new(conn: &'c Connection, known: &'c mut Known, changed: &'c mut i64) -> rusqlite::Result<Self> {
        let change = conn.prepare_cached(
            "INSERT INTO log (document, position, kind, checksum, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let feed = conn.prepare_cached(
            "INSERT INTO feed (document, changed, changed_ms) VALUES (?1, ?2, ?3) \
             ON CONFLICT (document) DO UPDATE SET changed = ?2, changed_ms = ?3",
        )?;
        let (moved, deleted) = (HashSet::new(), Vec::new());
        Ok(Self { conn, known, change, feed, changed, moved, deleted, now_ms: now_ms() })
    }

    /// What is to be cleared away, of documents that were deleted.
    fn finish(self) -> Vec<Compaction> {
        self.deleted
    }

    fn append(&mut self, document: &DocumentId, records: &[Record]) -> rusqlite::Result<()> {
        let mut place = self.place(document)?;
        let mut is_changed = false;
        for record in records {
            match record {
                Record::Answer { key, request, answer } => {
                    self.answer(document, place.number, key, request, answer)?;
                }
                _ if place.is_deleted => {}
                Record::Tombstone => {
                    self.delete(document, &mut place)?;
                    is_changed = true;
                }
                Record::Change { bytes } => {
                    is_changed = true;
                    let checksum = schema::log_checksum(document, place.position, KIND_CHANGE, bytes);
                    let row = (place.number, place.position, KIND_CHANGE, checksum, &bytes[..]);
                    self.change.execute(row)?;
                    place.position += 1;
                }
                Record::Quarantine { hash, reason, peer, bytes } => {
                    let at_ms = self.now_ms;
                    let fields = QuarantineFields { hash: &hash.0, reason, peer, at_ms, bytes };
                    self.quarantine(document, place.number, &fields)?;
                }
            }
        }
        if is_changed {
            self.move_to_end(place.number)?;
        }
        self.known.0.insert(*document, place);
        Ok(())
    }

    /// The document is the last one in the feed now.
    fn move_to_end(&mut self, number: i64) -> rusqlite::Result<()> {
        if self.moved.insert(number) {
            *self.changed += 1;
            self.feed.execute((number, *self.changed, self.now_ms))?;
        }
        Ok(())
    }

    /// From this transaction on nothing of the document is read any more; what there is of it is cleared away with the commits that follow.
    fn delete(&mut self, document: &DocumentId, place: &mut Place) -> rusqlite::Result<()> {
        let checksum = schema::tombstone_checksum(document, self.now_ms);
        self.conn
            .prepare_cached("INSERT INTO tombstone (document, deleted_ms, checksum) VALUES (?1, ?2, ?3)")?
            .execute((place.number, self.now_ms, checksum))?;
        self.conn
            .prepare_cached("INSERT OR IGNORE INTO compaction (document, generation) VALUES (?1, 0)")?
            .execute([place.number])?;
        place.is_deleted = true;
        self.deleted.push(Compaction::of_deleted(*document, place.number));
        Ok(())
    }

    fn answer(
        &self,
        document: &DocumentId,
        number: i64,
        key: &[u8; 32],
        request: &[u8; 32],
        answer: &[u8],
    ) -> rusqlite::Result<()> {
        // In the order in which they were given, so that the oldest come first.
        let sql =
            "DELETE FROM answer WHERE at_ms < ?1 AND seq IN (SELECT seq FROM answer ORDER BY seq LIMIT ?2)";
        self.conn.prepare_cached(sql)?.execute((self.now_ms - ANSWER_KEPT_MS, ANSWERS_CLEARED))?;
        let checksum = schema::answer_checksum(document, key, request, answer, self.now_ms);
        let sql = "INSERT INTO answer (document, key, request, answer, at_ms, checksum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.conn.prepare_cached(sql)?.execute((number, key, request, answer, self.now_ms, checksum))?;
        Ok(())
    }

    fn quarantine(
        &self,
        document: &DocumentId,
        number: i64,
        fields: &QuarantineFields<'_>,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO quarantine (document, hash, reason, peer, at_ms, checksum, bytes) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let checksum = fields.checksum(document);
        let QuarantineFields { hash, reason, peer, at_ms, bytes } = *fields;
        self.conn.prepare_cached(sql)?.execute((number, hash, reason, peer, at_ms, checksum, bytes))?;
        Ok(())
    }

    fn place(&mut self, document: &DocumentId) -> rusqlite::Result<Place> {
        if let Some(place) = self.known.0.get(document) {
            return Ok(*place);
        }
        self.known.make_room();
        match rows::document_number(self.conn, document)? {
            Some(number) => {
                let is_deleted = rows::has_tombstone(self.conn, number)?;
                Ok(Place { number, position: rows::next_position(self.conn, number)?, is_deleted })
            }
            None => Ok(Place { number: self.create(document)?, position: 0, is_deleted: false }),
        }
    }

    fn create(&mut self, document: &DocumentId) -> rusqlite::Result<i64> {
        let number = self
            .conn
            .prepare_cached("INSERT INTO document (document_id, created_ms) VALUES (?1, ?2)")?
            .insert((document.as_bytes().as_slice(), self.now_ms))?;
        self.move_to_end(number)?;
        Ok(number)
    }

    fn note(&mut self, document: &DocumentId, note: &Note) -> rusqlite::Result<()> {
        // A note on a document that is not there says nothing.
        let Some(number) = rows::document_number(self.conn, document)? else { return Ok(()) };
        if rows::has_tombstone(self.conn, number)? {
            return Ok(());
        }
        match note {
            Note::Closed { records, changes, heads } => {
                let (records, changes) = (*records as i64, *changes as i64);
                let heads = schema::heads_bytes(heads);
                let checksum = schema::closed_checksum(document, records, changes, &heads);
                let sql = "INSERT OR REPLACE INTO closed (document, records, changes, heads, checksum) \
                           VALUES (?1, ?2, ?3, ?4, ?5)";
                self.conn.prepare_cached(sql)?.execute((number, records, changes, heads, checksum))?;
            }
            Note::Unfit { hash, reason } => {
                let sql =
                    "INSERT OR REPLACE INTO unfit (document, hash, reason, at_ms) VALUES (?1, ?2, ?3, ?4)";
                self.conn.prepare_cached(sql)?.execute((number, hash.0, reason, self.now_ms))?;
            }
        }
        Ok(())
    }

    /// Writes a value that was not there before: SQLite would not write, nor sync, a page that stays the same.
    fn probe(&self) -> rusqlite::Result<()> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2 || ' #0') ON CONFLICT (key) DO UPDATE SET value = \
                   ?2 || ' #' || (1 + CAST(substr(value, instr(value, '#') + 1) AS INTEGER))";
        self.conn.prepare_cached(sql)?.execute((META_PROBE, self.now_ms.to_string()))?;
        Ok(())
    }
}

/// The system's clock, for people to read. A clock before 1970 reads as 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn job(sizes: &[usize]) -> Job {
        let records =
            sizes.iter().map(|size| Record::Change { bytes: Bytes::from(vec![0; *size]) }).collect();
        let work = Work::Append { document: DocumentId::from_bytes([0; 16]), records };
        Job { work, answer: oneshot::channel().0 }
    }

    #[test]
    fn batches_are_bounded_but_never_empty_and_never_split_an_append() {
        let big = BATCH_BYTES * 2 / 3;
        let mut jobs = VecDeque::from([job(&[big]), job(&[big, big]), job(&[1]), job(&[])]);
        assert_eq!(next_batch(&mut jobs).len(), 1);
        assert_eq!(next_batch(&mut jobs).len(), 1);
        assert_eq!(next_batch(&mut jobs).len(), 2);
        assert!(jobs.is_empty());

        let mut jobs: VecDeque<Job> = (0..BATCH_ROWS + 5).map(|_| job(&[1])).collect();
        assert_eq!(next_batch(&mut jobs).len(), BATCH_ROWS);
        assert_eq!(next_batch(&mut jobs).len(), 5);
    }
}
