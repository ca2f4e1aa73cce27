//! Many files at a time, so that they share the syncs: one alone costs several, and takes as long as ten.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::durable_file::{folder_of, sync_folder};

/// Files of a batch.
const FILES_MAX: usize = 64;
/// Bytes of a batch, about.
const BYTES_MAX: usize = 16 << 20;
/// How files are called before they are whole. All lie in the folder itself: whoever reads what is below it does not find them.
const UNFINISHED: &str = ".highwater-export.unfinished";

/// Files below a folder that get their names together.
pub(crate) struct Batch {
    folder: PathBuf,
    files: Vec<Pending>,
    bytes: usize,
}

struct Pending {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Batch {
    /// An empty batch. What an earlier one left unfinished is removed.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder: folder.to_owned(), files: Vec::new(), bytes: 0 })
    }

    /// Writes a file that will have this name.
    pub(crate) fn add(&mut self, path: PathBuf, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{UNFINISHED}-{}", self.files.len()));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        self.bytes += bytes.len();
        self.files.push(Pending { file, unfinished, path });
        Ok(())
    }

    /// Whether it is time to finish.
    pub(crate) fn is_full(&self) -> bool {
        self.files.len() >= FILES_MAX || self.bytes >= BYTES_MAX
    }

    /// Gives all files their names, in place of what has these. Durable when it returns; the batch is empty then. After an error some may have theirs.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.bytes = 0;
        let files = std::mem::take(&mut self.files);
        files.iter().try_for_each(|pending| pending.file.sync_all())?;
        let mut folders = BTreeSet::new();
        for Pending { unfinished, path, .. } in &files {
            fs::create_dir_all(folder_of(path))?;
            fs::rename(unfinished, path)?;
            // The names of new folders are in those above.
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.folder));
            folders.extend(above.map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_their_names_when_the_batch_is_finished_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{UNFINISHED}-7")), "half").unwrap();
        let mut batch = Batch::new(folder.path()).unwrap();
        let paths = ["a/b/c", "a/d", "e"].map(|name| folder.path().join(name));
        fs::write(&paths[2], "old").unwrap();
        for path in &paths {
            batch.add(path.clone(), b"new").unwrap();
        }
        assert!(!paths[0].exists() && fs::read(&paths[2]).unwrap() == b"old");
        batch.finish().unwrap();
        for path in &paths {
            assert_eq!(fs::read(path).unwrap(), b"new");
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "e"]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut batch = Batch::new(folder.path()).unwrap();
        assert!(!batch.is_full());
        batch.add(folder.path().join("large"), &vec![0; BYTES_MAX]).unwrap();
        assert!(batch.is_full());
        batch.finish().unwrap();
        assert!(!batch.is_full());
        for number in 0..FILES_MAX {
            assert!(!batch.is_full());
            batch.add(folder.path().join(number.to_string()), b"").unwrap();
        }
        assert!(batch.is_full());
    }
}
