//! Reading the lists of documents: by id, and by when they last changed.

use std::ops::Bound;

use rusqlite::{Connection, Row};

use super::reader::{document_id, read_error};
use super::schema;
use crate::store::{DocumentEntry, ListDocuments, StoreError};

/// The columns of an entry. A document without a row in the feed has never changed as far as that knows; it comes before all.
macro_rules! entries {
    ($rest:literal) => {
        concat!(
            "SELECT d.document_id, d.created_ms, ifnull(f.changed, 0), ifnull(f.changed_ms, d.created_ms), ",
            "EXISTS (SELECT 1 FROM tombstone t WHERE t.document = d.id) ",
            $rest
        )
    };
}

const BY_ID: &str = entries!(
    "FROM document d LEFT JOIN feed f ON f.document = d.id \
     WHERE d.document_id >= ?1 AND d.document_id <= ?2 ORDER BY d.document_id LIMIT ?3"
);
const BY_CHANGE: &str = entries!(
    "FROM feed f JOIN document d ON d.id = f.document WHERE f.changed > ?1 ORDER BY f.changed LIMIT ?2"
);

/// See [`Store::documents`](crate::Store::documents).
pub(super) fn documents(conn: &Connection, query: &ListDocuments) -> Result<Vec<DocumentEntry>, StoreError> {
    let _snapshot = conn.unchecked_transaction().map_err(read_error)?;
    let mut statement = conn.prepare_cached(BY_ID).map_err(read_error)?;
    let mut found = Vec::new();
    for (start, end) in query.ranges() {
        let first = match start {
            Bound::Excluded(after) => match after.next() {
                Some(first) => first,
                None => continue,
            },
            Bound::Included(first) => first,
            Bound::Unbounded => continue,
        };
        let limit = to_number(query.limit - found.len());
        let rows = statement
            .query_map((first.as_bytes().as_slice(), end.as_bytes().as_slice(), limit), columns)
            .map_err(read_error)?;
        for row in rows {
            found.push(entry(row.map_err(read_error)?)?);
        }
    }
    Ok(found)
}

/// See [`Store::changed`](crate::Store::changed).
pub(super) fn changed(conn: &Connection, after: u64, limit: usize) -> Result<Vec<DocumentEntry>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(BY_CHANGE).map_err(read_error)?;
    let rows = statement.query_map((after, to_number(limit)), columns).map_err(read_error)?;
    rows.map(|row| entry(row.map_err(read_error)?)).collect()
}

/// See [`Store::last_changed`](crate::Store::last_changed).
pub(super) fn last_changed(conn: &Connection) -> Result<u64, StoreError> {
    schema::last_changed(conn).map(|number| number.max(0).unsigned_abs()).map_err(read_error)
}

struct Columns {
    id: Vec<u8>,
    created_ms: i64,
    changed: i64,
    changed_ms: i64,
    is_deleted: bool,
}

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok(Columns {
        id: row.get(0)?,
        created_ms: row.get(1)?,
        changed: row.get(2)?,
        changed_ms: row.get(3)?,
        is_deleted: row.get(4)?,
    })
}

fn entry(columns: Columns) -> Result<DocumentEntry, StoreError> {
    let Columns { id, created_ms, changed, changed_ms, is_deleted } = columns;
    let changed = u64::try_from(changed)
        .map_err(|_| StoreError::Read(format!("a document has the number {changed} in the feed")))?;
    Ok(DocumentEntry { id: document_id(&id)?, created_ms, changed, changed_ms, is_deleted })
}

fn to_number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
