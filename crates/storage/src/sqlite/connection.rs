//! Opening SQLite connections, each with its settings checked.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::folder::{self, Reading};
use super::schema::{self, open_error};
use crate::store::StoreError;

/// What every connection must be set to. Each is set, read back, and compared: a misspelt or unsupported pragma is silently ignored by SQLite.
const SETTINGS: &[(&str, &str)] = &[
    ("journal_mode", "wal"),
    // FULL: every commit syncs the write-ahead log.
    ("synchronous", "2"),
    // On Apple's systems only this reaches the disk itself.
    ("fullfsync", "1"),
    ("checkpoint_fullfsync", "1"),
    ("foreign_keys", "0"),
    // The writer checkpoints by itself, after it has answered, and sees the errors; SQLite's own way drops them.
    ("wal_autocheckpoint", "0"),
    ("busy_timeout", "5000"),
    ("cell_size_check", "1"),
    ("trusted_schema", "0"),
];

/// What SQLite keeps in memory of the database for writing: the upper pages of indexes, again and again. In KiB, hence the sign.
const WRITER_CACHE: (&str, &str) = ("cache_size", "-16384");
/// For each reader. A document is read once and then known, and what is read again is in the system's cache, so more would only be memory that is never given back.
const READER_CACHE: (&str, &str) = ("cache_size", "-1024");

/// Waits this long for another process before a statement fails.
pub(super) const BUSY_TIMEOUT_MS: u64 = 5_000;

/// The connection that writes. Brings the file to the newest version.
pub(super) fn open_writer(dir: &Path) -> Result<Connection, StoreError> {
    folder::settle_wal(dir)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(folder::database_path(dir), flags).map_err(open_error)?;
    // Before the settings: they would already change a file that is not ours.
    schema::check_version(&conn)?;
    apply(&conn, SETTINGS)?;
    apply(&conn, &[WRITER_CACHE])?;
    schema::migrate(&mut conn)?;
    checkpoint(&conn, Checkpoint::Truncate).map_err(open_error)?;
    folder::sync_names(dir)?;
    Ok(conn)
}

/// A connection that reads along with the writer.
pub(super) fn open_reader(dir: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder::database_path(dir), flags).map_err(open_error)?;
    apply(&conn, SETTINGS)?;
    apply(&conn, &[READER_CACHE, ("query_only", "1")])?;
    Ok(conn)
}

/// A connection that reads a folder as it is and leaves it as it is, as far as SQLite can.
pub(super) fn open_for_check(dir: &Path, reading: &Reading) -> Result<Connection, StoreError> {
    let wal = std::fs::metadata(folder::wal_path(dir)).is_ok_and(|file| file.len() > 0);
    let conn = match reading {
        Reading::Live => open_plain(dir)?,
        Reading::Quiet { .. } if wal => open_with_wal(dir)?,
        Reading::Quiet { .. } => open_immutable(&folder::database_path(dir))?,
    };
    as_a_reader(conn)
}

/// A connection that reads a single file that nobody writes to: a backup.
pub(super) fn open_file_for_check(path: &Path) -> Result<Connection, StoreError> {
    as_a_reader(open_immutable(path)?)
}

fn as_a_reader(conn: Connection) -> Result<Connection, StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(open_error)?;
    apply(&conn, &[("query_only", "1"), ("cell_size_check", "1"), ("trusted_schema", "0")])?;
    Ok(conn)
}

/// A file of an older version is read as one of the newest in which what came later is empty. The tables stand in memory: the file stays as it is.
pub(super) fn stand_in_for_new_tables(conn: &Connection, version: usize) -> Result<(), StoreError> {
    apply(conn, &[("query_only", "0"), ("temp_store", "2")])?;
    for table in schema::tables_since(version) {
        conn.execute_batch(&table.replace("CREATE TABLE", "CREATE TEMP TABLE")).map_err(open_error)?;
    }
    apply(conn, &[("query_only", "1")])
}

/// Next to a server: the same shared files, the same locks as its own readers.
fn open_plain(dir: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(folder::database_path(dir), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(open_error)
}

/// With a left-over log and nobody else there: without file locks and in exclusive mode SQLite keeps its index of the log in memory,
/// where it would otherwise create a file.
fn open_with_wal(dir: &Path) -> Result<Connection, StoreError> {
    let vfs = if cfg!(windows) { c"win32-none" } else { c"unix-none" };
    let conn = Connection::open_with_flags_and_vfs(
        folder::database_path(dir),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
        vfs,
    )
    .map_err(open_error)?;
    apply(&conn, &[("locking_mode", "exclusive")])?;
    Ok(conn)
}

/// Without a log the database file is all there is.
fn open_immutable(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable_uri(path)?, flags).map_err(open_error)
}

fn immutable_uri(path: &Path) -> Result<String, StoreError> {
    let path = std::path::absolute(path).map_err(open_error)?;
    let text = path.to_str().ok_or_else(|| open_error("the path is not UTF-8"))?.replace('\\', "/");
    let escaped: String = text.chars().map(escaped).collect();
    let slash = if escaped.starts_with('/') { "" } else { "/" };
    Ok(format!("file:{slash}{escaped}?immutable=1"))
}

fn escaped(character: char) -> String {
    match character {
        '%' => "%25".into(),
        '?' => "%3f".into(),
        '#' => "%23".into(),
        other => other.into(),
    }
}

/// Sets each pragma and reads it back.
fn apply(conn: &Connection, settings: &[(&str, &str)]) -> Result<(), StoreError> {
    for (name, wanted) in settings {
        let failed = |error| StoreError::Open(format!("setting {name}: {error}"));
        conn.execute_batch(&format!("PRAGMA {name} = {wanted}")).map_err(failed)?;
        let found = setting(conn, name).map_err(failed)?;
        if found != *wanted {
            return Err(StoreError::Open(format!("the setting {name} must be {wanted}, but stays {found}")));
        }
    }
    Ok(())
}

fn setting(conn: &Connection, name: &str) -> rusqlite::Result<String> {
    let value = conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    })
}

/// How far to go in moving the write-ahead log into the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Checkpoint {
    /// Only say how long it is.
    Look,
    /// What can be moved without waiting for anybody.
    Passive,
    /// All, waiting for readers, so that the next commit starts the log anew.
    Restart,
    /// All, and cut the file to nothing.
    Truncate,
}

/// What a checkpoint left.
pub(super) struct Wal {
    /// Somebody was in the way, and it did not get as far as it should.
    pub(super) busy: bool,
    /// Pages in the log.
    pub(super) pages: i64,
    /// Of them, those that are in the database.
    pub(super) moved: i64,
}

/// Runs a checkpoint. An error means that syncing may have failed.
pub(super) fn checkpoint(conn: &Connection, kind: Checkpoint) -> rusqlite::Result<Wal> {
    let sql = match kind {
        Checkpoint::Look => "PRAGMA wal_checkpoint(NOOP)",
        Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(Wal { busy: row.get::<_, i64>(0)? != 0, pages: row.get(1)?, moved: row.get(2)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_on_both_kinds_of_connection() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open_writer(dir.path()).unwrap();
        let reader = open_reader(dir.path()).unwrap();
        for conn in [&writer, &reader] {
            for (name, wanted) in SETTINGS {
                assert_eq!(setting(conn, name).unwrap(), *wanted, "{name}");
            }
        }
        assert!(reader.execute("DELETE FROM meta", []).is_err());
    }

    #[test]
    fn a_setting_that_does_not_take_is_named() {
        // A database in memory has no write-ahead log.
        let conn = Connection::open_in_memory().unwrap();
        let Err(StoreError::Open(detail)) = apply(&conn, SETTINGS) else { panic!("accepted") };
        assert!(detail.contains("journal_mode"), "{detail}");
    }

    #[test]
    fn paths_survive_being_made_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("50% #1? ä");
        std::fs::create_dir(&odd).unwrap();
        drop(open_writer(&odd).unwrap());
        let conn = open_immutable(&folder::database_path(&odd)).unwrap();
        assert!(schema::identity(&conn).is_ok());
    }
}
