//! Looking through a whole folder, for the doctor. Unlike loading it goes on after damage and shows what is left.

use std::path::Path;

use highwater_core::DocumentId;
use rusqlite::{Connection, OptionalExtension};

use super::connection;
use super::folder::{self, Reading};
use super::rows::{self, DamagedRow, OnDamage};
use super::schema;
use crate::store::{Identity, StoreError, StoredDocument};

/// Documents whose ids are read at a time.
const PAGE: usize = 1_000;

/// A store that is looked at and not changed. Made by [`SqliteStore::open_read_only`](crate::SqliteStore::open_read_only).
pub struct ReadOnlyStore {
    conn: Connection,
    reading: Reading,
}

/// What a check has found, in the order in which it finds it: first what is wrong with the file, then every document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckEvent {
    /// A document, with all that could be read of it.
    Document(Box<CheckedDocument>),
    /// Something is wrong with the file, rather than with a row of a document. In the words of SQLite where it found it.
    File(String),
}

/// A document as a check sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedDocument {
    /// Its id.
    pub document: DocumentId,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// The rows that are what was written. All of the document if `damaged` is empty and `cut_short` is `None`.
    pub stored: StoredDocument,
    /// The document chunk of the snapshot, if there is one and it could be read.
    pub snapshot_chunk: Option<bytes::Bytes>,
    /// The rows that are not, or that stand where others should.
    pub damaged: Vec<DamagedRow>,
    /// Why the rows after those could not be read at all.
    pub cut_short: Option<String>,
}

impl CheckedDocument {
    /// Whether all of it is what was written, as far as the store can tell. It does not look into the changes.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.cut_short.is_none()
    }
}

impl ReadOnlyStore {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = folder::database_path(dir);
        if !path.is_file() {
            return Err(StoreError::Open(format!("there is no {}", path.display())));
        }
        let reading = folder::lock_for_reading(dir)?;
        let conn = connection::open_for_check(dir, &reading)?;
        let version = schema::check_version(&conn)?;
        if version == 0 {
            return Err(StoreError::Open(format!("{} is empty", path.display())));
        }
        connection::stand_in_for_new_tables(&conn, version)?;
        Ok(Self { conn, reading })
    }

    pub(super) fn open_file(path: &Path) -> Result<Self, StoreError> {
        if !path.is_file() {
            return Err(StoreError::Open(format!("there is no file {}", path.display())));
        }
        let conn = connection::open_file_for_check(path)?;
        let version = schema::check_version(&conn)?;
        if version == 0 {
            return Err(StoreError::Open(format!("{} is empty", path.display())));
        }
        connection::stand_in_for_new_tables(&conn, version)?;
        Ok(Self { conn, reading: Reading::Quiet { _lock: None } })
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Whether a server has the folder open. If not, none can open it before this is dropped.
    pub fn is_live(&self) -> bool {
        matches!(self.reading, Reading::Live)
    }

    /// Who the store is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] if that was lost.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        schema::identity(&self.conn)
    }

    /// Reads everything and tells `found` of every document and of everything that is wrong. Holds one document in memory at a time.
    /// Never fails: that something cannot be read is a finding.
    pub fn check(&self, mut found: impl FnMut(CheckEvent)) {
        for problem in [
            self.check_file(),
            self.check_numbers("log"),
            self.check_numbers("quarantine"),
            self.check_numbers("snapshot"),
            self.check_numbers("part"),
            self.check_numbers("feed"),
            self.check_numbers("tombstone"),
            self.check_numbers("answer"),
        ] {
            match problem {
                Ok(problems) => problems.into_iter().for_each(|detail| found(CheckEvent::File(detail))),
                Err(error) => found(CheckEvent::File(error.to_string())),
            }
        }
        if let Err(error) = self.check_documents(&mut found) {
            let detail = format!("table document: {error}; the documents after this are not checked");
            found(CheckEvent::File(detail));
        }
    }

    /// The ids of all documents, in order, without those that were deleted.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`] if they cannot be read.
    pub fn documents(&self) -> Result<Vec<DocumentId>, StoreError> {
        let read_error = |error: rusqlite::Error| StoreError::Read(error.to_string());
        let mut statement =
            self.conn.prepare("SELECT document_id FROM document WHERE id NOT IN (SELECT document FROM tombstone) ORDER BY document_id").map_err(read_error)?;
        let ids = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(read_error)?;
        ids.map(|id| {
            let id = id.map_err(read_error)?;
            DocumentId::try_from(&id[..]).map_err(|_| {
                StoreError::Read(format!("a document has an id of {} bytes instead of 16", id.len()))
            })
        })
        .collect()
    }

    /// One document, with all that can be read of it, or `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`] if it is not known whether it is there.
    pub fn document(&self, id: DocumentId) -> Result<Option<CheckedDocument>, StoreError> {
        let read_error = |error: rusqlite::Error| StoreError::Read(error.to_string());
        let row = self
            .conn
            .prepare_cached("SELECT id, created_ms FROM document WHERE document_id = ?1")
            .and_then(|mut statement| {
                let ids = [id.as_bytes().as_slice()];
                statement.query_row(ids, |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(read_error)?;
        Ok(row.map(|(number, created_ms)| self.walk(number, id, created_ms)))
    }

    /// SQLite's own check of pages, indexes and constraints.
    fn check_file(&self) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.conn.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// Rows that belong to no document.
    fn check_numbers(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.conn.prepare(&format!(
            "SELECT document, count(*) FROM {table} WHERE document NOT IN (SELECT id FROM document) GROUP BY document"
        ))?;
        let strays = statement.query_map([], |row| {
            let (number, rows): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(format!("{table}: {rows} rows belong to document number {number}, which does not exist"))
        })?;
        strays.collect()
    }

    fn check_documents(&self, found: &mut impl FnMut(CheckEvent)) -> rusqlite::Result<()> {
        let mut after = i64::MIN;
        loop {
            let page = self.page(after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.0;
            for (number, id, created_ms) in page {
                found(self.check_document(number, &id, created_ms));
            }
        }
    }

    fn page(&self, after: i64) -> rusqlite::Result<Vec<(i64, Vec<u8>, i64)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, document_id, created_ms FROM document WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let rows =
            statement.query_map((after, PAGE as i64), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    }

    fn check_document(&self, number: i64, id: &[u8], created_ms: i64) -> CheckEvent {
        let Ok(document) = DocumentId::try_from(id) else {
            let length = id.len();
            return CheckEvent::File(format!(
                "document row {number}: its id has {length} bytes instead of 16"
            ));
        };
        CheckEvent::Document(Box::new(self.walk(number, document, created_ms)))
    }

    fn walk(&self, number: i64, document: DocumentId, created_ms: i64) -> CheckedDocument {
        let snapshot = self.conn.unchecked_transaction();
        let walked = rows::walk(&self.conn, number, document, OnDamage::GoOn);
        let cut_short = snapshot.err().or(walked.cut_short).map(|error| error.to_string());
        let (stored, snapshot_chunk, damaged) = (walked.stored, walked.chunk, walked.damaged);
        CheckedDocument { document, created_ms, stored, snapshot_chunk, damaged, cut_short }
    }
}
