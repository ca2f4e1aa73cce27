//! Reading a snapshot: what is known of it, its index, its document chunk.

use bytes::Bytes;
use highwater_core::{ChangeHash, DocumentId, SnapshotIndex, SnapshotInfo};
use rusqlite::{Connection, OptionalExtension, Row};

use super::rows::{self, DamagedRow};
use super::schema::{self, PART_DOCUMENT, PART_GRAPH, PART_ORPHAN, PART_PAGE, SnapshotRow};
use crate::memory::is_chunk_of;
use crate::store::Found;

const PARTS: &str = "SELECT seq, number, checksum, bytes FROM part \
                     WHERE document = ?1 AND generation = ?2 AND kind = ?3 ORDER BY number";

/// A snapshot that is being read, of the document with this number.
pub(super) struct SnapshotReader<'c> {
    conn: &'c Connection,
    document: DocumentId,
    number: i64,
    row: SnapshotRow,
}

/// Why a snapshot cannot be read.
pub(super) enum Fault {
    Damaged(DamagedRow),
    Read(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error)
    }
}

impl<'c> SnapshotReader<'c> {
    /// The document's snapshot, if it has one.
    pub(super) fn open(
        conn: &'c Connection,
        number: i64,
        document: DocumentId,
    ) -> Result<Option<Self>, Fault> {
        let mut statement = conn.prepare_cached(
            "SELECT generation, records, changes, heads, document_bytes, graph_bytes, pages, orphans, saved_ms, checksum \
             FROM snapshot WHERE document = ?1",
        )?;
        let Some((row, checksum)) = statement.query_row([number], snapshot_row).optional()? else {
            return match stray_part(conn, number)? {
                None => Ok(None),
                Some(row) => Err(Fault::Damaged(DamagedRow {
                    table: "part",
                    row,
                    detail: "the snapshot that it belongs to is missing".to_owned(),
                })),
            };
        };
        let damage = |detail| Fault::Damaged(DamagedRow { table: "snapshot", row: number, detail });
        rows::compare(checksum, row.checksum(&document)).map_err(damage)?;
        Ok(Some(Self { conn, document, number, row }))
    }

    /// How many rows of the log it stands for.
    pub(super) fn records(&self) -> i64 {
        self.row.records
    }

    /// What is known of it, without its index.
    pub(super) fn info(&self) -> Result<SnapshotInfo, Fault> {
        let mut info = self.row.info().ok_or_else(|| self.damage("the heads are no hashes"))?;
        info.orphans = self.parts(PART_ORPHAN, self.row.orphans)?;
        Ok(info)
    }

    /// Its index. It can be made anew, so damage to it is not damage to the document.
    pub(super) fn index(&self) -> Result<SnapshotIndex, Fault> {
        let graph = self.joined(PART_GRAPH, self.row.graph_bytes)?;
        Ok(SnapshotIndex { graph, pages: self.parts(PART_PAGE, self.row.pages)? })
    }

    /// Its document chunk.
    pub(super) fn chunk(&self) -> Result<Bytes, Fault> {
        self.joined(PART_DOCUMENT, self.row.document_bytes)
    }

    fn joined(&self, kind: i64, len: i64) -> Result<Bytes, Fault> {
        let mut all = Vec::with_capacity(usize::try_from(len).unwrap_or(0).min(schema::PART_BYTES * 64));
        self.each_part(kind, |bytes| all.extend_from_slice(bytes))?;
        if all.len() as i64 != len {
            return Err(self.damage(&format!("its parts have {} bytes and not {len}", all.len())));
        }
        Ok(all.into())
    }

    fn parts(&self, kind: i64, count: i64) -> Result<Vec<Bytes>, Fault> {
        // In one piece of memory; a page is short.
        let mut chunks = rows::Chunks::default();
        self.each_part(kind, |bytes| chunks.push(bytes))?;
        let all = chunks.finish();
        if all.len() as i64 != count {
            return Err(self.damage(&format!("{} parts of kind {kind} are there, not {count}", all.len())));
        }
        Ok(all)
    }

    fn each_part(&self, kind: i64, mut found: impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut statement = self.conn.prepare_cached(PARTS)?;
        let mut rows = statement.query((self.number, self.row.generation, kind))?;
        let mut number = 0;
        while let Some(row) = rows.next()? {
            let bytes = self.part(row, kind, number).map_err(|detail| part_damage(row, detail))?;
            found(bytes);
            number += 1;
        }
        Ok(())
    }

    fn part<'a>(&self, row: &'a Row<'_>, kind: i64, number: i64) -> Result<&'a [u8], String> {
        let (found, checksum, bytes) = (rows::number(row, 1)?, rows::number(row, 2)?, rows::blob(row, 3)?);
        if found != number {
            return Err(format!("it is number {found}, but {number} come before it"));
        }
        let ours = schema::part_checksum(&self.document, self.row.generation, kind, number, bytes);
        rows::compare(checksum, ours)?;
        Ok(bytes)
    }

    /// Whether the index lists a change. Reads one page of it.
    pub(super) fn has(&self, hash: &ChangeHash) -> Result<bool, Fault> {
        let page = SnapshotIndex::page_of(hash, usize::try_from(self.row.pages).unwrap_or(0)) as i64;
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, number, checksum, bytes FROM part \
             WHERE document = ?1 AND generation = ?2 AND kind = ?3 AND number = ?4",
        )?;
        let mut rows = statement.query((self.number, self.row.generation, PART_PAGE, page))?;
        let Some(row) = rows.next()? else { return Err(self.damage(&format!("page {page} is missing"))) };
        let bytes = self.part(row, PART_PAGE, page).map_err(|detail| part_damage(row, detail))?;
        Ok(SnapshotIndex::page_has(bytes, hash))
    }

    /// Whether a change is one of those that waited for others when the snapshot was made, and may be part of the document since.
    fn any_orphan(&self, is_it: impl Fn(&[u8]) -> bool) -> Result<bool, Fault> {
        let (mut count, mut is_there) = (0, false);
        self.each_part(PART_ORPHAN, |bytes| {
            count += 1;
            is_there |= is_it(bytes);
        })?;
        if count != self.row.orphans {
            return Err(self.damage(&format!("{count} orphans are there, not {}", self.row.orphans)));
        }
        Ok(is_there)
    }

    fn damage(&self, detail: &str) -> Fault {
        Fault::Damaged(DamagedRow { table: "snapshot", row: self.number, detail: detail.to_owned() })
    }
}

/// A piece of a snapshot although there is none, nor one on its way: without its row, what it stood for would read as never written.
fn stray_part(conn: &Connection, number: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT seq FROM part WHERE document = ?1 \
               AND NOT EXISTS (SELECT 1 FROM compaction WHERE document = ?1) LIMIT 1";
    conn.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()
}

fn part_damage(row: &Row<'_>, detail: String) -> Fault {
    Fault::Damaged(DamagedRow { table: "part", row: row.get(0).unwrap_or(-1), detail })
}

fn snapshot_row(row: &Row<'_>) -> rusqlite::Result<(SnapshotRow, i64)> {
    let found = SnapshotRow {
        generation: row.get(0)?,
        records: row.get(1)?,
        changes: row.get(2)?,
        heads: row.get(3)?,
        document_bytes: row.get(4)?,
        graph_bytes: row.get(5)?,
        pages: row.get(6)?,
        orphans: row.get(7)?,
        saved_ms: row.get(8)?,
    };
    Ok((found, row.get(9)?))
}

/// What was noted when the document was closed, if it is still so.
pub(super) struct Closed {
    changes: i64,
    records: i64,
    heads: Vec<ChangeHash>,
}

impl Closed {
    pub(super) fn read(
        conn: &Connection,
        number: i64,
        document: &DocumentId,
    ) -> rusqlite::Result<Option<Self>> {
        let row = conn
            .prepare_cached("SELECT records, changes, heads, checksum FROM closed WHERE document = ?1")?
            .query_row([number], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?, row.get::<_, i64>(3)?))
            })
            .optional()?;
        let Some((records, changes, heads, checksum)) = row else { return Ok(None) };
        // It is a help and no more: one that is damaged is as good as none.
        let is_right = i64::from(schema::closed_checksum(document, records, changes, &heads)) == checksum;
        let is_now = is_right && rows::next_position(conn, number)? == records;
        Ok(is_now.then(|| schema::heads_of(&heads)).flatten().map(|heads| Self { changes, records, heads }))
    }
}

/// See [`Store::find`](crate::Store::find).
pub(super) fn find(conn: &Connection, document: DocumentId, hash: &ChangeHash) -> Result<Found, Fault> {
    let Some(number) = rows::document_number(conn, &document)? else { return Ok(Found::No) };
    if rows::deleted(conn, number, &document)?.is_some() {
        return Ok(Found::No);
    }
    let closed = Closed::read(conn, number, &document)?;
    if closed.as_ref().is_some_and(|closed| closed.heads.contains(hash)) {
        return Ok(Found::Yes);
    }
    let snapshot = SnapshotReader::open(conn, number, document)?;
    if let Some(snapshot) = &snapshot
        && snapshot.has(hash)?
    {
        return Ok(Found::Yes);
    }
    let is_it = |chunk: &[u8]| is_chunk_of(chunk, hash);
    let waited = snapshot.as_ref().map_or(Ok(false), |snapshot| snapshot.any_orphan(is_it))?;
    let records = snapshot.map_or(0, |snapshot| snapshot.records());
    let is_there = waited || rows::any_change(conn, number, document, records, is_it)?;
    Ok(match (is_there, closed) {
        (false, _) => Found::No,
        (true, Some(closed)) if closed.records == closed.changes => Found::Yes,
        (true, _) => Found::Perhaps,
    })
}
