//! The data folder: making it, and keeping other processes out of it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::schema::{FILE_NAME, LOCK_NAME, open_error};
use crate::store::StoreError;

/// The path of the database in `dir`.
pub(super) fn database_path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// The path of the database's write-ahead log in `dir`.
pub(super) fn wal_path(dir: &Path) -> PathBuf {
    dir.join(format!("{FILE_NAME}-wal"))
}

/// Makes `dir` and what is missing above it, so that it is still there after a power cut.
pub(super) fn create(dir: &Path) -> Result<(), StoreError> {
    create_durably(dir).map_err(|error| StoreError::Open(format!("creating {}: {error}", dir.display())))
}

fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    create_durably(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync(parent),
    }
}

/// Makes the names in `dir` durable.
pub(super) fn sync_names(dir: &Path) -> Result<(), StoreError> {
    sync(dir).map_err(open_error)
}

#[cfg(unix)]
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

// Elsewhere a folder cannot be opened as a file; its names are the file system's own business there.
#[cfg(not(unix))]
fn sync(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Takes the folder for this process, for as long as the returned file is held.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_NAME);
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(open_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(dir.display().to_string())),
        Err(TryLockError::Error(error)) => Err(open_error(error)),
    }
}

/// How a folder may be read without changing it.
pub(super) enum Reading {
    /// No server has it open, and none can open it while the file, if any, is held. A copy of a folder may lack the lock file.
    Quiet { _lock: Option<File> },
    /// A server has it open: read along with it.
    Live,
}

/// Finds out whether a server has the folder open, and if none has, keeps it so.
pub(super) fn lock_for_reading(dir: &Path) -> Result<Reading, StoreError> {
    let file = match File::open(dir.join(LOCK_NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Quiet { _lock: None }),
        Err(error) => return Err(open_error(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Reading::Quiet { _lock: Some(file) }),
        Err(TryLockError::WouldBlock) => Ok(Reading::Live),
        Err(TryLockError::Error(error)) => Err(open_error(error)),
    }
}

/// Makes durable what a process that did not close the store left in the write-ahead log. To be called before SQLite reads it.
///
/// SQLite takes every whole commit that it finds there for durable. But a process can be killed between writing a commit
/// and syncing it, and after a sync that failed the system may hold pages that it believes to be on disk although they are
/// not. Such a commit would be read, passed on, and lost at the next power cut. Writing the same bytes again makes the system
/// write them out once more; the sync then tells the truth.
pub(super) fn settle_wal(dir: &Path) -> Result<(), StoreError> {
    match rewrite(&wal_path(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::Open(format!("syncing what an earlier process left: {error}"))),
        Ok(()) => sync_names(dir),
    }
}

fn rewrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0u64;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&buffer[..read])?;
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_made_and_only_one_may_hold_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        create(&dir).unwrap();
        create(&dir).unwrap();
        let held = lock(&dir).unwrap();
        assert!(matches!(lock(&dir), Err(StoreError::Locked(name)) if name.ends_with("c")));
        assert!(matches!(lock_for_reading(&dir), Ok(Reading::Live)));
        drop(held);
        let reading = lock_for_reading(&dir).unwrap();
        assert!(matches!(reading, Reading::Quiet { _lock: Some(_) }));
        assert!(matches!(lock(&dir), Err(StoreError::Locked(_))));
        drop(reading);
        lock(&dir).unwrap();
    }

    #[test]
    fn rewriting_changes_no_byte() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2_500_000u32).map(|n| n.wrapping_mul(2_654_435_761) as u8).collect();
        fs::write(wal_path(dir.path()), &bytes).unwrap();
        settle_wal(dir.path()).unwrap();
        assert!(fs::read(wal_path(dir.path())).unwrap() == bytes);
    }
}
