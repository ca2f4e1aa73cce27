//! Everything that is stored: file names, tables, fixed numbers, checksums, and the way from each version to the next.
//!
//! | table        | one row per       | columns                                                                         |
//! |--------------|-------------------|---------------------------------------------------------------------------------|
//! | `meta`       | fact              | `key`, `value`; see [`META_PEER_ID`], [`META_STORAGE_ID`], [`META_PROBE`]       |
//! | `document`   | document          | `id` (used by the other tables), `document_id` (16 bytes), `created_ms`         |
//! | `log`        | change            | `seq`, `document`, `position`, `kind`, `checksum`, `bytes`                      |
//! | `quarantine` | refused change    | `seq`, `document`, `hash` (32 bytes), `reason`, `peer`, `at_ms`, `checksum`, `bytes` |
//! | `snapshot`   | compacted document | `document`, `generation`, `records`, `changes`, `heads`, sizes (see [`SnapshotRow`]), `checksum` |
//! | `part`       | piece of a snapshot | `seq`, `document`, `generation`, `kind`, `number`, `checksum`, `bytes`         |
//! | `compaction` | compaction that is under way | `document`, `generation`                                             |
//! | `closed`     | document that was let go of | `document`, `records`, `changes`, `heads`, `checksum`                 |
//! | `unfit`      | document that cannot be compacted | `document`, `hash`, `reason`, `at_ms`                           |
//! | `feed`       | document          | `document`, `changed`, `changed_ms`                                             |
//! | `tombstone`  | deleted document  | `document`, `deleted_ms`, `checksum`                                            |
//! | `follower`   | webhook           | `id`, `name`, `cursor`: the number in the feed up to which all was delivered, or is in `delivery` |
//! | `delivery`   | document that a webhook was told of | `follower`, `document`, `told` (heads), `changed`, `due_ms`, `is_dead`, `attempts`, `error` |
//! | `answer`     | request that was answered | `seq`, `document`, `key`, `request` (32 bytes each), `answer`, `at_ms`, `checksum` |
//!
//! `log` is append-only, but for compaction. `seq` is the order of the whole store. `position` counts the rows of one document from 0 without a
//! gap, so that a row that went missing is noticed, which no checksum of the rows that are left could do. `kind` says what
//! `bytes` are: [`KIND_CHANGE`] is a change chunk with its header, as it was received.
//!
//! A row of `snapshot` stands in the place of the rows of `log` with a position before `records`: those do not count any more, whether they have been deleted yet or not.
//! Its pieces are the rows of `part` with its generation: the document chunk ([`PART_DOCUMENT`]) and the graph ([`PART_GRAPH`]), both cut at [`PART_BYTES`]; the pages of
//! hashes ([`PART_PAGE`]) and the orphans ([`PART_ORPHAN`]), one to a row. Pieces of another generation are left over from a compaction, and are listed in `compaction`
//! until they are deleted.
//!
//! `feed.changed` is the number of a document's last change: one more than the greatest, at every commit that changes the document. As every document stays in the feed, deleted ones too, the
//! greatest number is always there, and no number is given twice. A store that was restored from a backup goes on far behind it ([`META_FEED_FLOOR`]): its numbers are not those of the server
//! that the backup was made of, some of whose last ones the backup does not know.
//!
//! Of a document with a row in `tombstone` nothing else is read but its answers; whatever is left of it elsewhere is being cleared away, and it is listed in `compaction` until that is done.
//!
//! Every checksum is a CRC-32 over the other columns and the 16 bytes of the document id, so that a row that came to belong to
//! another document, or another place, is noticed too.
//!
//! Times are milliseconds since 1970. They are for people; nothing is decided by them.

use highwater_core::{ChangeHash, DocumentId, Snapshot, SnapshotInfo};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::store::{Identity, StoreError};

/// The database, inside the data folder. SQLite puts `-wal` and `-shm` files next to it.
pub const FILE_NAME: &str = "highwater.db";
/// Locked by the process that has the folder open.
pub(super) const LOCK_NAME: &str = "highwater.lock";
/// `PRAGMA application_id` of our files: "HWM1".
const APPLICATION_ID: i64 = 0x4857_4d31;

/// `meta`: the server's peer id. Written once.
const META_PEER_ID: &str = "peer_id";
/// `meta`: the server's storage id. Written once.
const META_STORAGE_ID: &str = "storage_id";
/// `meta`: overwritten by every probe.
pub(super) const META_PROBE: &str = "probe";

/// `meta`: all numbers in the feed from now on are greater than this one.
const META_FEED_FLOOR: &str = "feed_floor";
/// How far a restored store jumps ahead in the feed: further than any server gets between a backup and its end.
const FEED_JUMP: i64 = 1 << 32;

/// `log.kind` of a change chunk.
pub(super) const KIND_CHANGE: i64 = 1;

/// `part.kind` of pieces of the document chunk.
pub(super) const PART_DOCUMENT: i64 = 1;
/// `part.kind` of pieces of the graph.
pub(super) const PART_GRAPH: i64 = 2;
/// `part.kind` of a page of hashes.
pub(super) const PART_PAGE: i64 = 3;
/// `part.kind` of an orphan.
pub(super) const PART_ORPHAN: i64 = 4;
/// Where long things are cut.
pub(super) const PART_BYTES: usize = 1 << 20;

/// `PRAGMA user_version` n means that the first n of these were run. Only ever add to the end.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE document (
        id INTEGER PRIMARY KEY,
        document_id BLOB NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE log (
        seq INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        position INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX log_document ON log (document);
    CREATE TABLE quarantine (
        seq INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        hash BLOB NOT NULL,
        reason TEXT NOT NULL,
        peer TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX quarantine_document ON quarantine (document);
",
    "
    DROP INDEX log_document;
    CREATE INDEX log_place ON log (document, position);
    CREATE TABLE snapshot (
        document INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL,
        records INTEGER NOT NULL,
        changes INTEGER NOT NULL,
        heads BLOB NOT NULL,
        document_bytes INTEGER NOT NULL,
        graph_bytes INTEGER NOT NULL,
        pages INTEGER NOT NULL,
        orphans INTEGER NOT NULL,
        saved_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE part (
        seq INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        number INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX part_place ON part (document, generation, kind, number);
    CREATE TABLE compaction (
        document INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE closed (
        document INTEGER PRIMARY KEY,
        records INTEGER NOT NULL,
        changes INTEGER NOT NULL,
        heads BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE unfit (
        document INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        reason TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE feed (
        document INTEGER PRIMARY KEY,
        changed INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO feed (document, changed, changed_ms) SELECT id, id, created_ms FROM document;
    CREATE UNIQUE INDEX feed_changed ON feed (changed);
    CREATE TABLE tombstone (
        document INTEGER PRIMARY KEY,
        deleted_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE answer (
        seq INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        key BLOB NOT NULL,
        request BLOB NOT NULL,
        answer BLOB NOT NULL,
        at_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX answer_key ON answer (document, key);
    CREATE TABLE follower (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        cursor INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE delivery (
        follower INTEGER NOT NULL,
        document INTEGER NOT NULL,
        told BLOB,
        changed INTEGER NOT NULL,
        due_ms INTEGER,
        is_dead INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        error TEXT NOT NULL,
        PRIMARY KEY (follower, document)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivery_due ON delivery (follower, due_ms) WHERE due_ms IS NOT NULL;
    CREATE INDEX delivery_dead ON delivery (follower) WHERE is_dead;
",
];

/// The checksum of a row of `log`.
pub(super) fn log_checksum(document: &DocumentId, position: i64, kind: i64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(document.as_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A checksum over a document id, some numbers and some bytes.
fn checksum_of(document: &DocumentId, numbers: &[i64], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(document.as_bytes());
    numbers.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
    hasher.update(bytes);
    hasher.finalize()
}

/// The checksum of a row of `part`.
pub(super) fn part_checksum(
    document: &DocumentId,
    generation: i64,
    kind: i64,
    number: i64,
    bytes: &[u8],
) -> u32 {
    checksum_of(document, &[generation, kind, number], bytes)
}

/// The checksum of a row of `tombstone`.
pub(super) fn tombstone_checksum(document: &DocumentId, deleted_ms: i64) -> u32 {
    checksum_of(document, &[deleted_ms], b"tombstone")
}

/// The checksum of a row of `answer`.
pub(super) fn answer_checksum(
    document: &DocumentId,
    key: &[u8; 32],
    request: &[u8; 32],
    answer: &[u8],
    at_ms: i64,
) -> u32 {
    checksum_of(document, &[at_ms], &[key, request, answer].concat())
}

/// The checksum of a row of `closed`.
pub(super) fn closed_checksum(document: &DocumentId, records: i64, changes: i64, heads: &[u8]) -> u32 {
    checksum_of(document, &[records, changes], heads)
}

/// A row of `snapshot`, but for its document and its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SnapshotRow {
    pub(super) generation: i64,
    /// How many rows of the log it stands for.
    pub(super) records: i64,
    pub(super) changes: i64,
    /// 32 bytes for each.
    pub(super) heads: Vec<u8>,
    pub(super) document_bytes: i64,
    pub(super) graph_bytes: i64,
    pub(super) pages: i64,
    pub(super) orphans: i64,
    pub(super) saved_ms: i64,
}

impl SnapshotRow {
    pub(super) fn of(snapshot: &Snapshot, generation: i64, saved_ms: i64) -> Self {
        let Snapshot { info, document } = snapshot;
        Self {
            generation,
            records: info.records as i64,
            changes: info.changes as i64,
            heads: heads_bytes(&info.heads),
            document_bytes: document.len() as i64,
            graph_bytes: info.index.graph.len() as i64,
            pages: info.index.pages.len() as i64,
            orphans: info.orphans.len() as i64,
            saved_ms,
        }
    }

    /// The checksum of the row.
    pub(super) fn checksum(&self, document: &DocumentId) -> u32 {
        let numbers = [
            self.generation,
            self.records,
            self.changes,
            self.document_bytes,
            self.graph_bytes,
            self.pages,
            self.orphans,
            self.saved_ms,
        ];
        checksum_of(document, &numbers, &self.heads)
    }

    /// What it says, without index and orphans.
    pub(super) fn info(&self) -> Option<SnapshotInfo> {
        Some(SnapshotInfo {
            records: u64::try_from(self.records).ok()?,
            changes: u64::try_from(self.changes).ok()?,
            heads: heads_of(&self.heads)?,
            document_bytes: u64::try_from(self.document_bytes).ok()?,
            ..SnapshotInfo::default()
        })
    }
}

/// Heads as they are stored: 32 bytes each.
pub(super) fn heads_bytes(heads: &[ChangeHash]) -> Vec<u8> {
    heads.iter().flat_map(|head| head.0).collect()
}

/// See [`heads_bytes`].
pub(super) fn heads_of(bytes: &[u8]) -> Option<Vec<ChangeHash>> {
    let (heads, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| heads.iter().map(|head| ChangeHash(*head)).collect())
}

/// What a row of `quarantine` holds, besides its checksum.
pub(super) struct QuarantineFields<'a> {
    pub(super) hash: &'a [u8],
    pub(super) reason: &'a str,
    pub(super) peer: &'a str,
    pub(super) at_ms: i64,
    pub(super) bytes: &'a [u8],
}

impl QuarantineFields<'_> {
    /// The checksum of the row.
    pub(super) fn checksum(&self, document: &DocumentId) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(document.as_bytes());
        hasher.update(&self.at_ms.to_le_bytes());
        // Lengths keep the end of one field from passing for the start of the next.
        for field in [self.hash, self.reason.as_bytes(), self.peer.as_bytes(), self.bytes] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        hasher.finalize()
    }

    /// The hash, if it has the length of one.
    pub(super) fn change_hash(&self) -> Option<ChangeHash> {
        self.hash.try_into().ok().map(ChangeHash)
    }
}

/// Refuses a file that is not ours, or that a newer version wrote. Changes nothing. Returns the file's version; 0 is an empty file.
pub(super) fn check_version(conn: &Connection) -> Result<usize, StoreError> {
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(open_error);
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    let newest = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(0) if empty => Ok(0),
        _ if application != APPLICATION_ID => Err(StoreError::Open(format!(
            "{FILE_NAME} belongs to another program (application_id {application})"
        ))),
        Ok(version) if (1..=newest).contains(&version) => Ok(version),
        _ => Err(StoreError::Open(format!(
            "{FILE_NAME} has version {version}, this program knows versions up to {newest}: use a newer program"
        ))),
    }
}

/// The statements that make the tables which a file of this version lacks.
pub(super) fn tables_since(version: usize) -> impl Iterator<Item = &'static str> {
    let statements = MIGRATIONS.iter().skip(version).flat_map(|step| step.split(';'));
    statements.map(str::trim).filter(|statement| statement.starts_with("CREATE TABLE"))
}

/// Brings a file of any older version, or an empty one, to the newest. Each step happens whole or not at all.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let version = check_version(conn)?;
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let step = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open_error)?;
        step.execute_batch(sql).map_err(open_error)?;
        if index == 0 {
            create_identity(&step)?;
        }
        step.pragma_update(None, "user_version", (index + 1) as i64).map_err(open_error)?;
        step.commit().map_err(open_error)?;
    }
    Ok(())
}

/// Who this store is. Its absence is an error: a new identity would make clients forget what they know of this server.
pub(super) fn identity(conn: &Connection) -> Result<Identity, StoreError> {
    let value = |key: &str| {
        conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(open_error)?
            .ok_or_else(|| StoreError::Open(format!("{FILE_NAME} has lost its {key}")))
    };
    Ok(Identity { peer_id: value(META_PEER_ID)?, storage_id: value(META_STORAGE_ID)? })
}

/// Identity is part of the first step: a file that has tables has an identity.
fn create_identity(step: &Transaction<'_>) -> Result<(), StoreError> {
    step.pragma_update(None, "application_id", APPLICATION_ID).map_err(open_error)?;
    let identity = new_identity()?;
    for (key, value) in [(META_PEER_ID, identity.peer_id), (META_STORAGE_ID, identity.storage_id)] {
        step.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, &value]).map_err(open_error)?;
    }
    Ok(())
}

/// An identity that no other store has.
pub(super) fn new_identity() -> Result<Identity, StoreError> {
    Ok(Identity { peer_id: format!("highwater-{}", random_uuid()?), storage_id: random_uuid()? })
}

/// The number that the last change in the feed has, or one that no later one may have.
pub(super) fn last_changed(conn: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT max(ifnull((SELECT max(changed) FROM feed), 0), \
               ifnull((SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1), 0))";
    conn.query_row(sql, [META_FEED_FLOOR], |row| row.get(0))
}

/// Lets the feed go on where the store that this is a copy of has not been. A file from before there was a feed has none to go on from.
pub(super) fn leave_room_in_feed(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'feed'";
    if conn.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(());
    }
    let floor = last_changed(conn)?.saturating_add(FEED_JUMP);
    conn.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        (META_FEED_FLOOR, floor.to_string()),
    )?;
    Ok(())
}

/// Makes the store another one. Only for one that nobody has heard of yet.
pub(super) fn set_identity(conn: &Connection, identity: &Identity) -> Result<(), StoreError> {
    for (key, value) in [(META_PEER_ID, &identity.peer_id), (META_STORAGE_ID, &identity.storage_id)] {
        conn.execute("UPDATE meta SET value = ?2 WHERE key = ?1", [key, value]).map_err(open_error)?;
    }
    Ok(())
}

/// A random (version 4) UUID.
fn random_uuid() -> Result<String, StoreError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Open(format!("no random bytes: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// For `map_err` while opening.
pub(super) fn open_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Open(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DocumentId = DocumentId::from_bytes([7; 16]);

    #[test]
    fn an_empty_file_gets_the_newest_schema_and_an_identity_that_stays() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert_eq!(check_version(&conn).unwrap(), 0);
        migrate(&mut conn).unwrap();
        assert_eq!(check_version(&conn).unwrap(), MIGRATIONS.len());
        let first = identity(&conn).unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(identity(&conn).unwrap(), first);
        assert!(first.peer_id.starts_with("highwater-"));
        assert_eq!(first.storage_id.len(), 36);
        assert_eq!(&first.storage_id[14..15], "4");
        conn.execute("DELETE FROM meta WHERE key = 'storage_id'", []).unwrap();
        assert!(matches!(identity(&conn), Err(StoreError::Open(detail)) if detail.contains("storage_id")));
    }

    #[test]
    fn newer_and_foreign_files_are_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        conn.pragma_update(None, "user_version", MIGRATIONS.len() as i64 + 1).unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::Open(detail)) if detail.contains("newer")));

        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE song (title TEXT)").unwrap();
        assert!(
            matches!(migrate(&mut foreign), Err(StoreError::Open(detail)) if detail.contains("another program"))
        );
    }

    #[test]
    fn every_field_counts_in_the_checksum() {
        let sum = log_checksum(&ID, 3, KIND_CHANGE, b"bytes");
        assert_eq!(sum, log_checksum(&ID, 3, KIND_CHANGE, b"bytes"));
        assert_ne!(sum, log_checksum(&DocumentId::from_bytes([8; 16]), 3, KIND_CHANGE, b"bytes"));
        assert_ne!(sum, log_checksum(&ID, 4, KIND_CHANGE, b"bytes"));
        assert_ne!(sum, log_checksum(&ID, 3, 2, b"bytes"));
        assert_ne!(sum, log_checksum(&ID, 3, KIND_CHANGE, b"Bytes"));
        let fields = |reason, peer| {
            QuarantineFields { hash: &[1; 32], reason, peer, at_ms: 5, bytes: b"x" }.checksum(&ID)
        };
        assert_ne!(fields("ab", "c"), fields("a", "bc"));
    }
}
