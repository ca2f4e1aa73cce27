//! Reading rows and finding out whether they are what was written. Loading and the doctor's check see the same rows in the same way.

use bytes::Bytes;
use highwater_core::{ChangeHash, DocumentId};
use rusqlite::types::FromSqlError;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::schema::{self, QuarantineFields};
use super::snapshot::{Closed, Fault, SnapshotReader};
use crate::store::{QuarantinedChange, StoredAnswer, StoredDocument};

const LOG: &str = "SELECT seq, position, kind, checksum, bytes FROM log \
                   WHERE document = ?1 AND position >= ?2 ORDER BY position, seq";
const QUARANTINE: &str = "SELECT seq, hash, reason, peer, at_ms, checksum, bytes FROM quarantine \
                          WHERE document = ?1 ORDER BY seq";

/// A row that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// The table it is in.
    pub table: &'static str,
    /// Its number: the integer primary key.
    pub row: i64,
    /// What is wrong.
    pub detail: String,
}

impl std::fmt::Display for DamagedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} row {}: {}", self.table, self.row, self.detail)
    }
}

/// What is to be done after a damaged row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDamage {
    Stop,
    GoOn,
}

/// What was read of a document: all of it, if there is no damage.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) stored: StoredDocument,
    /// The document chunk of the snapshot, if it was asked for.
    pub(super) chunk: Option<Bytes>,
    pub(super) damaged: Vec<DamagedRow>,
    /// Why the rest could not be read at all.
    pub(super) cut_short: Option<rusqlite::Error>,
}

/// The number that the other tables know a document by.
pub(super) fn document_number(conn: &Connection, document: &DocumentId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM document WHERE document_id = ?1")?
        .query_row([document.as_bytes().as_slice()], |row| row.get(0))
        .optional()
}

/// When a document was deleted, if it was.
pub(super) fn deleted(conn: &Connection, number: i64, document: &DocumentId) -> Result<Option<i64>, Fault> {
    let row = conn
        .prepare_cached("SELECT deleted_ms, checksum FROM tombstone WHERE document = ?1")?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((deleted_ms, checksum)) = row else { return Ok(None) };
    let damage = |detail| Fault::Damaged(DamagedRow { table: "tombstone", row: number, detail });
    compare(checksum, schema::tombstone_checksum(document, deleted_ms)).map_err(damage)?;
    Ok(Some(deleted_ms))
}

/// Whether there is a tombstone, be it damaged or not.
pub(super) fn has_tombstone(conn: &Connection, number: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM tombstone WHERE document = ?1")?.exists([number])
}

/// See [`Store::answer`](crate::Store::answer).
pub(super) fn answer(
    conn: &Connection,
    number: i64,
    document: &DocumentId,
    key: &[u8; 32],
) -> Result<Option<StoredAnswer>, Fault> {
    // The newest one: after a day a key may be used for something else.
    let sql = "SELECT seq, request, answer, at_ms, checksum FROM answer \
               WHERE document = ?1 AND key = ?2 ORDER BY seq DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((number, key))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let damage =
        |detail| Fault::Damaged(DamagedRow { table: "answer", row: row.get(0).unwrap_or(-1), detail });
    let request: [u8; 32] = blob(row, 1)
        .and_then(|bytes| bytes.try_into().map_err(|_| "the request does not have 32 bytes".to_owned()))
        .map_err(damage)?;
    let answer = blob(row, 2).map_err(damage)?;
    let at_ms = self::number(row, 3).map_err(damage)?;
    let checksum = self::number(row, 4).map_err(damage)?;
    compare(checksum, schema::answer_checksum(document, key, &request, answer, at_ms)).map_err(damage)?;
    Ok(Some(StoredAnswer { request, answer: Bytes::copy_from_slice(answer) }))
}

/// How many rows of the log a document has, or had before a snapshot took their place: the position of the next one.
pub(super) fn next_position(conn: &Connection, number: i64) -> rusqlite::Result<i64> {
    // The greater one: whichever rows of the log a clean-up has left.
    let sql = "SELECT max(ifnull((SELECT position + 1 FROM log WHERE document = ?1 ORDER BY position DESC LIMIT 1), 0), \
               ifnull((SELECT records FROM snapshot WHERE document = ?1), 0))";
    conn.prepare_cached(sql)?.query_row([number], |row| row.get(0))
}

/// Reads the rows of the document with this number. The caller holds a transaction, so that the tables agree.
///
/// With [`OnDamage::GoOn`] everything is read, the document chunk of the snapshot too; without, what opening the document takes.
pub(super) fn walk(conn: &Connection, number: i64, document: DocumentId, on_damage: OnDamage) -> Walked {
    let mut walk = Walk { document, on_damage, damaged: Vec::new() };
    let mut walked = Walked::default();
    match deleted(conn, number, &document) {
        Ok(None) => {}
        // Whatever else is there of it is being cleared away.
        Ok(deleted_ms) => {
            walked.stored.deleted_ms = deleted_ms;
            return walked;
        }
        Err(fault) => {
            walked.cut_short = walk.fault(fault, 0).err();
            walked.damaged = walk.damaged;
            return walked;
        }
    }
    let snapshot = walk.snapshot(conn, number, &mut walked);
    // Where the tail begins is not known then.
    let log = snapshot.and_then(|records| {
        conn.prepare_cached(LOG).and_then(|rows| walk.log(rows, number, records, &mut walked))
    });
    // Damage in one table says nothing about the other.
    let quarantine = if log.is_err() && on_damage == OnDamage::Stop {
        Ok(())
    } else {
        conn.prepare_cached(QUARANTINE).and_then(|rows| walk.quarantine(rows, number, &mut walked))
    };
    let notes = walk.notes(conn, number, &mut walked);
    walked.cut_short = log.and(quarantine).and(notes).err();
    walked.damaged = walk.damaged;
    walked
}

struct Walk {
    document: DocumentId,
    on_damage: OnDamage,
    damaged: Vec<DamagedRow>,
}

impl Walk {
    /// Reads the snapshot, and returns how many rows of the log it stands for.
    fn snapshot(&mut self, conn: &Connection, number: i64, walked: &mut Walked) -> rusqlite::Result<i64> {
        let reader = match SnapshotReader::open(conn, number, self.document) {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(0),
            Err(fault) => return self.fault(fault, 0),
        };
        let records = reader.records();
        match reader.info() {
            Ok(info) => walked.stored.snapshot = Some(info),
            Err(fault) => return self.fault(fault, records),
        }
        match (reader.index(), &mut walked.stored.snapshot) {
            (Ok(index), Some(snapshot)) => snapshot.index = index,
            (Err(Fault::Read(error)), _) => return Err(error),
            (Err(Fault::Damaged(damage)), _) if self.on_damage == OnDamage::GoOn => self.damaged.push(damage),
            // An index can be made anew from the document.
            (Err(Fault::Damaged(damage)), _) => {
                tracing::warn!(document = %self.document, %damage, "the index of a snapshot is damaged");
            }
            (Ok(_), None) => {}
        }
        if self.on_damage == OnDamage::GoOn {
            match reader.chunk() {
                Ok(chunk) => walked.chunk = Some(chunk),
                Err(fault) => return self.fault(fault, records),
            }
        }
        Ok(records)
    }

    fn fault(&mut self, fault: Fault, records: i64) -> rusqlite::Result<i64> {
        match fault {
            Fault::Damaged(damage) => self.damaged.push(damage),
            Fault::Read(error) => return Err(error),
        }
        Ok(records)
    }

    fn notes(&self, conn: &Connection, number: i64, walked: &mut Walked) -> rusqlite::Result<()> {
        walked.stored.is_noted = Closed::read(conn, number, &self.document)?.is_some();
        let mut statement = conn.prepare_cached("SELECT hash, reason FROM unfit WHERE document = ?1")?;
        let unfit = statement
            .query_row([number], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?)))
            .optional()?;
        walked.stored.unfit = unfit.map(|(hash, reason)| (ChangeHash(hash), reason));
        Ok(())
    }

    fn log(
        &mut self,
        mut statement: CachedStatement<'_>,
        number: i64,
        records: i64,
        walked: &mut Walked,
    ) -> rusqlite::Result<()> {
        let mut chunks = Chunks::default();
        let mut position = records;
        let mut rows = statement.query([number, records])?;
        // What was read before an error is kept: the check shows it.
        let result = loop {
            match rows.next() {
                Ok(Some(row)) if self.may_go_on() => self.log_row(row, &mut position, &mut chunks),
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        walked.stored.changes = chunks.finish();
        result
    }

    fn log_row(&mut self, row: &Row<'_>, position: &mut i64, chunks: &mut Chunks) {
        let found = log_fields(row).and_then(|fields| {
            if fields.position != *position {
                self.damage("log", row, fields.gap(*position));
            }
            *position = fields.position;
            fields.verified(&self.document)
        });
        *position += 1;
        match found {
            Ok(bytes) => chunks.push(bytes),
            Err(detail) => self.damage("log", row, detail),
        }
    }

    fn quarantine(
        &mut self,
        mut statement: CachedStatement<'_>,
        number: i64,
        walked: &mut Walked,
    ) -> rusqlite::Result<()> {
        let mut rows = statement.query([number])?;
        while let Some(row) = rows.next()? {
            if !self.may_go_on() {
                break;
            }
            match quarantined(row, &self.document) {
                Ok(change) => walked.stored.quarantined.push(change),
                Err(detail) => self.damage("quarantine", row, detail),
            }
        }
        Ok(())
    }

    fn may_go_on(&self) -> bool {
        self.damaged.is_empty() || self.on_damage == OnDamage::GoOn
    }

    fn damage(&mut self, table: &'static str, row: &Row<'_>, detail: String) {
        // A row number is read from the key itself: it is there if the row is.
        let row = row.get(0).unwrap_or(-1);
        self.damaged.push(DamagedRow { table, row, detail });
    }
}

/// Whether one of the changes behind those of the snapshot is what is looked for. None is, only if all of them are what was written.
pub(super) fn any_change(
    conn: &Connection,
    number: i64,
    document: DocumentId,
    records: i64,
    is_it: impl Fn(&[u8]) -> bool,
) -> Result<bool, Fault> {
    let mut statement = conn.prepare_cached(LOG)?;
    let mut rows = statement.query((number, records))?;
    let mut position = records;
    while let Some(row) = rows.next()? {
        let damage =
            |detail| Fault::Damaged(DamagedRow { table: "log", row: row.get(0).unwrap_or(-1), detail });
        let fields = log_fields(row).map_err(damage)?;
        if fields.position != position {
            return Err(damage(fields.gap(position)));
        }
        position += 1;
        if is_it(fields.verified(&document).map_err(damage)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

struct LogFields<'a> {
    position: i64,
    kind: i64,
    checksum: i64,
    bytes: &'a [u8],
}

impl<'a> LogFields<'a> {
    /// What is wrong if it does not stand at this position.
    fn gap(&self, position: i64) -> String {
        format!("it has position {}, but {position} rows come before it", self.position)
    }

    /// The bytes, if they are a change and the checksum says that they are those that were written.
    fn verified(self, document: &DocumentId) -> Result<&'a [u8], String> {
        let found = schema::log_checksum(document, self.position, self.kind, self.bytes);
        compare(self.checksum, found)?;
        if self.kind == schema::KIND_CHANGE {
            Ok(self.bytes)
        } else {
            Err(format!("unknown kind {}", self.kind))
        }
    }
}

fn log_fields<'a>(row: &'a Row<'_>) -> Result<LogFields<'a>, String> {
    Ok(LogFields {
        position: number(row, 1)?,
        kind: number(row, 2)?,
        checksum: number(row, 3)?,
        bytes: blob(row, 4)?,
    })
}

fn quarantined(row: &Row<'_>, document: &DocumentId) -> Result<QuarantinedChange, String> {
    let fields = QuarantineFields {
        hash: blob(row, 1)?,
        reason: text(row, 2)?,
        peer: text(row, 3)?,
        at_ms: number(row, 4)?,
        bytes: blob(row, 6)?,
    };
    compare(number(row, 5)?, fields.checksum(document))?;
    Ok(QuarantinedChange {
        hash: fields.change_hash().ok_or("the hash does not have 32 bytes")?,
        reason: fields.reason.to_owned(),
        peer: fields.peer.to_owned(),
        at_ms: fields.at_ms,
        bytes: fields.bytes.to_vec().into(),
    })
}

pub(super) fn compare(stored: i64, found: u32) -> Result<(), String> {
    if stored == i64::from(found) {
        return Ok(());
    }
    Err(format!("the checksum is {stored:#010x}, the bytes make {found:#010x}"))
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Result<i64, String> {
    row.get(column).map_err(|error| error.to_string())
}

pub(super) fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], String> {
    let value = row.get_ref(column).map_err(|error| error.to_string())?;
    value.as_blob().map_err(|error: FromSqlError| format!("column {column}: {error}"))
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, String> {
    let value = row.get_ref(column).map_err(|error| error.to_string())?;
    value.as_str().map_err(|error: FromSqlError| format!("column {column}: {error}"))
}

/// Collects the chunks of a document in one piece of memory. A document of 100,000 small changes then costs one allocation, not 100,000.
#[derive(Default)]
pub(super) struct Chunks {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunks {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn finish(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.bytes.into_boxed_slice());
        let mut start = 0;
        let slice = |end| bytes.slice(std::mem::replace(&mut start, end)..end);
        self.ends.into_iter().map(slice).collect()
    }
}
