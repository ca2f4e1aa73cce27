//! Putting a snapshot in the place of rows of the log, a little with every commit.
//!
//! A snapshot can have megabytes and stand for a million rows; written and deleted in one transaction these would keep everybody's appends waiting for seconds. So its pieces are
//! written first, where nobody looks for them. Then one transaction changes the row of `snapshot`: from then on the pieces count, and the rows of the log that they stand for do
//! not. Then these, and the pieces of the snapshot before, are deleted. The table `compaction` knows what is under way, so that whatever a crash left is deleted too.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_core::{DocumentId, Snapshot};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::rows;
use super::schema::{self, PART_BYTES, PART_DOCUMENT, PART_GRAPH, PART_ORPHAN, PART_PAGE, SnapshotRow};
use crate::store::StoreError;

/// Bytes that are written with one commit, about.
const SLICE_BYTES: usize = 1 << 20;
/// Rows of the log that are deleted with one commit.
const SLICE_ROWS: i64 = 1_000;
/// Pieces that are deleted with one commit.
const SLICE_PARTS: i64 = 32;

/// A compaction that is under way.
pub(super) struct Compaction {
    document: DocumentId,
    number: i64,
    step: Step,
    /// Waits until the snapshot counts.
    answer: Option<oneshot::Sender<Result<(), StoreError>>>,
}

enum Step {
    /// Nothing is written yet.
    Begin(Box<Snapshot>),
    /// The pieces are written, in order; then the row.
    Write {
        row: SnapshotRow,
        parts: VecDeque<Part>,
    },
    /// What does not count any more is deleted.
    Clean,
    Done,
}

struct Part {
    kind: i64,
    number: i64,
    bytes: Bytes,
}

/// What is to be done once a slice is durable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Go on with the next slice.
    More,
    /// The snapshot counts from now on; go on.
    Counts,
    /// There is nothing left to do.
    Done,
    /// The snapshot does not fit, and nothing was changed.
    Misfit(String),
}

impl Compaction {
    pub(super) fn new(
        document: DocumentId,
        snapshot: Box<Snapshot>,
        answer: oneshot::Sender<Result<(), StoreError>>,
    ) -> Self {
        Self { document, number: 0, step: Step::Begin(snapshot), answer: Some(answer) }
    }

    /// What was under way when the store was closed, or the process ended. Half a snapshot is of no use; half a clean-up goes on.
    pub(super) fn left_over(conn: &Connection) -> rusqlite::Result<VecDeque<Self>> {
        let mut statement = conn.prepare("SELECT document FROM compaction ORDER BY document")?;
        let numbers = statement.query_map([], |row| row.get(0))?;
        let clean = |number| Self {
            document: DocumentId::from_bytes([0; 16]),
            number,
            step: Step::Clean,
            answer: None,
        };
        numbers.map(|number| number.map(clean)).collect()
    }

    /// Clearing away what is left of a deleted document.
    pub(super) fn of_deleted(document: DocumentId, number: i64) -> Self {
        Self { document, number, step: Step::Clean, answer: None }
    }

    /// Tells whoever waits for the snapshot.
    pub(super) fn answer(&mut self, result: Result<(), StoreError>) {
        if let Some(answer) = self.answer.take() {
            // Nobody may be waiting any more; the work is done all the same.
            let _ = answer.send(result);
        }
    }

    /// Does a part of the work, in a transaction of the caller.
    pub(super) fn slice(&mut self, conn: &Connection, now_ms: i64) -> rusqlite::Result<Outcome> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Begin(snapshot) => self.begin(conn, &snapshot, now_ms),
            Step::Write { .. } if rows::has_tombstone(conn, self.number)? => {
                self.answer(Err(StoreError::Snapshot("the document was deleted".into())));
                self.clean_deleted(conn)
            }
            Step::Write { row, parts } => self.write(conn, row, parts),
            Step::Clean if rows::has_tombstone(conn, self.number)? => self.clean_deleted(conn),
            Step::Clean => self.clean(conn),
            Step::Done => Ok(Outcome::Done),
        }
    }

    fn begin(&mut self, conn: &Connection, snapshot: &Snapshot, now_ms: i64) -> rusqlite::Result<Outcome> {
        let Some(number) = rows::document_number(conn, &self.document)? else {
            return Ok(Outcome::Misfit("there is no such document".into()));
        };
        if rows::has_tombstone(conn, number)? {
            return Ok(Outcome::Misfit("the document was deleted".into()));
        }
        self.number = number;
        let before = conn
            .prepare_cached("SELECT records FROM snapshot WHERE document = ?1")?
            .query_row([number], |row| row.get::<_, i64>(0))
            .optional()?;
        let there = rows::next_position(conn, number)?;
        let records = i64::try_from(snapshot.info.records).unwrap_or(i64::MAX);
        if records > there || before.is_some_and(|before| before > records) {
            let before = before.unwrap_or(0);
            let detail =
                format!("it stands for {records} records, of {there}, and the one before for {before}");
            return Ok(Outcome::Misfit(detail));
        }
        let last: i64 = conn
            .prepare_cached("SELECT ifnull(max(generation), 0) FROM part WHERE document = ?1")?
            .query_row([number], |row| row.get(0))?;
        let generation = last + 1;
        conn.prepare_cached(
            "INSERT INTO compaction (document, generation) VALUES (?1, ?2) \
             ON CONFLICT (document) DO UPDATE SET generation = ?2",
        )?
        .execute((number, generation))?;
        self.write(conn, SnapshotRow::of(snapshot, generation, now_ms), parts(snapshot))
    }

    fn write(
        &mut self,
        conn: &Connection,
        row: SnapshotRow,
        mut parts: VecDeque<Part>,
    ) -> rusqlite::Result<Outcome> {
        let mut insert = conn.prepare_cached(
            "INSERT INTO part (document, generation, kind, number, checksum, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let (mut written, generation) = (0, row.generation);
        while written < SLICE_BYTES {
            let Some(Part { kind, number, bytes }) = parts.pop_front() else {
                self.let_it_count(conn, &row)?;
                return Ok(Outcome::Counts);
            };
            let checksum = schema::part_checksum(&self.document, generation, kind, number, &bytes);
            insert.execute((self.number, generation, kind, number, checksum, &bytes[..]))?;
            written += bytes.len();
        }
        self.step = Step::Write { row, parts };
        Ok(Outcome::More)
    }

    fn let_it_count(&mut self, conn: &Connection, row: &SnapshotRow) -> rusqlite::Result<()> {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO snapshot (document, generation, records, changes, heads, document_bytes, \
             graph_bytes, pages, orphans, saved_ms, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute((
            self.number,
            row.generation,
            row.records,
            row.changes,
            &row.heads,
            row.document_bytes,
            row.graph_bytes,
            row.pages,
            row.orphans,
            row.saved_ms,
            row.checksum(&self.document),
        ))?;
        self.step = Step::Clean;
        Ok(())
    }

    fn clean(&mut self, conn: &Connection) -> rusqlite::Result<Outcome> {
        let current = conn
            .prepare_cached("SELECT generation, records FROM snapshot WHERE document = ?1")?
            .query_row([self.number], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        let (generation, records) = current.unwrap_or((0, 0));
        let deleted = conn
            .prepare_cached(
                "DELETE FROM log WHERE seq IN (SELECT seq FROM log WHERE document = ?1 AND position < ?2 LIMIT ?3)",
            )?
            .execute((self.number, records, SLICE_ROWS))?;
        let deleted = deleted
            + conn
                .prepare_cached(
                    "DELETE FROM part WHERE seq IN \
                     (SELECT seq FROM part WHERE document = ?1 AND generation <> ?2 LIMIT ?3)",
                )?
                .execute((self.number, generation, SLICE_PARTS))?;
        if deleted > 0 {
            self.step = Step::Clean;
            return Ok(Outcome::More);
        }
        conn.prepare_cached("DELETE FROM compaction WHERE document = ?1")?.execute([self.number])?;
        Ok(Outcome::Done)
    }
}

/// Where something is left of a deleted document, and how many rows of it are deleted with one commit.
const LEFT_OVER: &[(&str, &str, i64)] = &[
    ("log", "seq", SLICE_ROWS),
    ("part", "seq", SLICE_PARTS),
    ("quarantine", "seq", SLICE_PARTS),
    ("snapshot", "document", 1),
    ("closed", "document", 1),
    ("unfit", "document", 1),
];

impl Compaction {
    fn clean_deleted(&mut self, conn: &Connection) -> rusqlite::Result<Outcome> {
        for (table, key, rows) in LEFT_OVER {
            let sql = format!(
                "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE document = ?1 LIMIT ?2)"
            );
            if conn.prepare_cached(&sql)?.execute((self.number, rows))? > 0 {
                self.step = Step::Clean;
                return Ok(Outcome::More);
            }
        }
        conn.prepare_cached("DELETE FROM compaction WHERE document = ?1")?.execute([self.number])?;
        Ok(Outcome::Done)
    }
}

fn parts(snapshot: &Snapshot) -> VecDeque<Part> {
    let Snapshot { info, document } = snapshot;
    let whole = |kind, all: &[Bytes]| {
        let numbered = all.iter().cloned().zip(0..);
        numbered.map(|(bytes, number)| Part { kind, number, bytes }).collect::<Vec<_>>()
    };
    let cut = |kind, bytes: &Bytes| {
        let starts = (0..bytes.len()).step_by(PART_BYTES);
        let pieces: Vec<Bytes> =
            starts.map(|start| bytes.slice(start..bytes.len().min(start + PART_BYTES))).collect();
        whole(kind, &pieces)
    };
    let mut all = VecDeque::from(cut(PART_DOCUMENT, document));
    all.extend(cut(PART_GRAPH, &info.index.graph));
    all.extend(whole(PART_PAGE, &info.index.pages));
    all.extend(whole(PART_ORPHAN, &info.orphans));
    all
}
