//! Copying a whole store into one file, while a server writes to it, and making a folder from such a file.
//!
//! A backup holds a read transaction from its beginning to its end. So it is the state of one moment, and what the server commits meanwhile goes into the write-ahead log behind that
//! state without waiting for the backup; nor does SQLite start the copy anew, as it does when each step reads what is newest then. The price is that the log cannot start anew before the
//! backup is done: it grows by what is written meanwhile.
//!
//! What was copied is synced every few megabytes. A file system may make the server's sync of a few kilobytes wait until everything that other programs left to be written is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::check::ReadOnlyStore;
use super::folder;
use super::schema::{self, FILE_NAME, LOCK_NAME, open_error};
use crate::store::{Identity, StoreError};

/// Pages that are copied at a time: 1 MiB.
const STEP_PAGES: i32 = 256;
/// Steps after which what was copied is synced.
const SYNC_STEPS: u64 = 4;
/// A pause after each step, as a share of the time that the step took: the disk is there for the server first.
const PAUSE_SHARE: u32 = 2;
/// How long to wait for a lock before looking again. A reader of a write-ahead log meets one only while another process opens or closes the store.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// How many times in a row.
const LOCKED_MAX: u32 = 500;
/// Bytes that a restore reads at a time.
const COPY_BYTES: usize = 1 << 20;

impl ReadOnlyStore {
    /// Copies all that is stored now into a new file, and syncs it. `progress` is told how many bytes are copied, and of how many. A server that has the folder open goes on writing.
    ///
    /// The file is whole only if this succeeds: give it another name until it was looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`] if the file exists or cannot be written, [`StoreError::Read`] if the store cannot be read.
    pub fn back_up(&self, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        let file = OpenOptions::new().write(true).create_new(true).open(to).map_err(write_error)?;
        let moment = self.conn().unchecked_transaction().map_err(read_error)?;
        // A transaction begins with the first thing that it reads.
        let page_bytes: i64 = moment
            .query_row("SELECT page_size FROM pragma_page_size", [], |row| row.get(0))
            .map_err(read_error)?;
        moment
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            .map_err(read_error)?;
        let mut copy = open_copy(to)?;
        let backup = Backup::new(&moment, &mut copy).map_err(read_error)?;
        let (mut steps, mut locked) = (0, 0);
        loop {
            let started = Instant::now();
            match backup.step(STEP_PAGES).map_err(copy_error)? {
                StepResult::Done => break,
                StepResult::More => locked = 0,
                _ if locked < LOCKED_MAX => {
                    locked += 1;
                    std::thread::sleep(LOCKED_PAUSE);
                    continue;
                }
                _ => return Err(StoreError::Read("the store stays locked".into())),
            }
            steps += 1;
            if steps % SYNC_STEPS == 0 {
                file.sync_data().map_err(write_error)?;
            }
            let state = backup.progress();
            let bytes = |pages: i32| u64::try_from(i64::from(pages) * page_bytes).unwrap_or(0);
            progress(bytes(state.pagecount - state.remaining), bytes(state.pagecount));
            std::thread::sleep(started.elapsed() / PAUSE_SHARE);
        }
        drop(backup);
        copy.close().map_err(|(_, error)| write_error(error))?;
        file.sync_all().map_err(write_error)
    }
}

/// The file that is copied to. It is whole when it has been synced at the end, and worth nothing before: no journal, no syncs of SQLite's own.
fn open_copy(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(path, flags).map_err(write_error)?;
    copy.execute_batch(
        "PRAGMA locking_mode = exclusive; PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -2048;",
    )
    .map_err(write_error)?;
    Ok(copy)
}

/// See [`SqliteStore::restore`](crate::SqliteStore::restore).
pub(super) fn restore(
    from: &Path,
    dir: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Identity, StoreError> {
    check_empty(dir)?;
    folder::create(dir)?;
    let lock = folder::lock(dir)?;
    // Somebody may have been faster.
    check_empty(dir)?;
    let unfinished = dir.join(unfinished_name());
    remove_left_over(dir).map_err(open_error)?;
    copy(from, &unfinished, &mut progress).map_err(open_error)?;
    let identity = rename_store(&unfinished)?;
    fs::rename(&unfinished, folder::database_path(dir)).map_err(open_error)?;
    folder::sync_names(dir)?;
    drop(lock);
    Ok(identity)
}

fn unfinished_name() -> String {
    format!("{FILE_NAME}.unfinished")
}

/// Whether a name in a folder is what an interrupted restore leaves.
fn is_left_over(name: &str) -> bool {
    name == LOCK_NAME || name.starts_with(&unfinished_name())
}

fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

fn check_empty(dir: &Path) -> Result<(), StoreError> {
    let there = match names(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(open_error)?,
    };
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match there.iter().filter_map(name).find(|name| !is_left_over(name)) {
        None => Ok(()),
        Some(name) => {
            Err(StoreError::Open(format!("the folder {} is not empty: {name} is there", dir.display())))
        }
    }
}

fn remove_left_over(dir: &Path) -> io::Result<()> {
    let is_unfinished = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&unfinished_name()))
    };
    names(dir)?.iter().filter(|path| is_unfinished(path)).try_for_each(fs::remove_file)
}

fn copy(from: &Path, to: &Path, progress: &mut impl FnMut(u64, u64)) -> io::Result<()> {
    let mut source = File::open(from)?;
    let total = source.metadata()?.len();
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    let (mut buffer, mut done) = (vec![0; COPY_BYTES], 0);
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return target.sync_all();
        }
        target.write_all(&buffer[..read])?;
        done += read as u64;
        progress(done, total);
    }
}

/// Gives the store in a file that nobody else knows of a new identity, durably.
fn rename_store(path: &Path) -> Result<Identity, StoreError> {
    let identity = schema::new_identity()?;
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(open_error)?;
    // A server makes it a write-ahead log again; until then the file should be all there is.
    let mode: String =
        conn.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0)).map_err(open_error)?;
    if mode != "delete" {
        return Err(open_error(format!("the journal stays in mode {mode}")));
    }
    schema::set_identity(&conn, &identity)?;
    schema::leave_room_in_feed(&conn).map_err(open_error)?;
    if schema::identity(&conn)? != identity {
        return Err(open_error("the backup has lost its identity"));
    }
    conn.close().map_err(|(_, error)| open_error(error))?;
    File::options().write(true).open(path).and_then(|file| file.sync_all()).map_err(open_error)?;
    Ok(identity)
}

fn read_error(error: rusqlite::Error) -> StoreError {
    StoreError::Read(error.to_string())
}

fn write_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Write(error.to_string())
}

/// SQLite does not say on which side it failed, but by the kind of failure.
fn copy_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => read_error(error),
        _ => write_error(error),
    }
}
