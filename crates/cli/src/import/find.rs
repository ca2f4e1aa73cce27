//! Finding documents: which files belong to which document, and which to none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use highwater_core::DocumentId;

/// How the documents lie in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Whatever is there
    Auto,
    /// A folder of automerge-repo's NodeFS storage
    Nodefs,
    /// A folder of samod's storage, which is laid out in the same way
    Samod,
    /// Files as Automerge saves them, or a folder of files named *.automerge
    Automerge,
}

/// What a file should hold. Taken is whatever verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot,
    Incremental,
    Saved,
}

#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
}

/// A document to import.
#[derive(Debug)]
pub(super) struct Source {
    /// None if its name does not tell.
    pub(super) id: Option<DocumentId>,
    pub(super) files: Vec<SourceFile>,
}

impl Source {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// All that is in a place.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    /// Files with what automerge-repo knows of its peers. They are of no use to another server.
    pub(super) sync_states: u64,
    /// Files and folders that are nothing of the format.
    pub(super) ignored: Vec<PathBuf>,
}

const ADAPTER_ID: (&str, &str) = ("st", "orage-adapter-id");
const KINDS: [&str; 3] = ["snapshot", "incremental", "sync-state"];

/// Looks what is there.
pub(super) fn find(from: &Path, format: Format) -> Result<Found> {
    if !from.exists() {
        bail!("there is no {}. Name a folder or a file that is there.", from.display());
    }
    let mut found = Found::default();
    match (format, from.is_dir()) {
        (Format::Auto | Format::Automerge, false) => found.take_saved(from.to_owned())?,
        (Format::Nodefs | Format::Samod, false) => {
            bail!("{} is a file; a NodeFS or samod storage is a folder.", from.display())
        }
        (Format::Automerge, true) => found.take_saved_of(from)?,
        (Format::Nodefs | Format::Samod, true) => found.take_folder(from)?,
        (Format::Auto, true) if is_storage(from)? => found.take_folder(from)?,
        (Format::Auto, true) => found.take_saved_of(from)?,
    }
    if found.sources.is_empty() && found.sync_states == 0 && format == Format::Auto {
        bail!(
            "{} holds no documents that can be recognised: neither a NodeFS or samod storage nor files named *.automerge. \
             If it should, name the kind with --format to see what is ignored.",
            from.display()
        );
    }
    Ok(found)
}

/// Whether a folder is laid out as automerge-repo's NodeFS storage lays it out.
fn is_storage(folder: &Path) -> Result<bool> {
    if folder.join(ADAPTER_ID.0).join(ADAPTER_ID.1).is_file() {
        return Ok(true);
    }
    for first in entries(folder)?.iter().filter(|path| is_prefix(path)) {
        if entries(first)?.iter().any(|path| is_document(path)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first two characters of every key are a folder of their own.
fn is_prefix(path: &Path) -> bool {
    name(path).chars().count() == 2 && path.is_dir()
}

fn is_document(path: &Path) -> bool {
    KINDS.iter().any(|kind| path.join(kind).is_dir())
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What is in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut entries = read().with_context(|| format!("cannot read the folder {}", folder.display()))?;
    entries.sort_unstable();
    Ok(entries)
}

impl Found {
    fn take_folder(&mut self, folder: &Path) -> Result<()> {
        for first in entries(folder)? {
            if !is_prefix(&first) {
                self.ignored.push(first);
                continue;
            }
            for rest in entries(&first)? {
                let key = (name(&first), name(&rest));
                let id = format!("{}{}", key.0, key.1).parse::<DocumentId>();
                match id {
                    Ok(id) if rest.is_dir() => self.take_document(id, &rest)?,
                    _ if (&*key.0, &*key.1) == ADAPTER_ID => {}
                    _ => self.ignored.push(rest),
                }
            }
        }
        Ok(())
    }

    fn take_document(&mut self, id: DocumentId, folder: &Path) -> Result<()> {
        let mut files = Vec::new();
        for entry in entries(folder)? {
            let kind = match &*name(&entry) {
                "snapshot" => Some(Kind::Snapshot),
                "incremental" => Some(Kind::Incremental),
                "sync-state" => None,
                _ => {
                    self.ignored.push(entry);
                    continue;
                }
            };
            if !entry.is_dir() {
                self.ignored.push(entry);
                continue;
            }
            for path in entries(&entry)? {
                match kind {
                    _ if !path.is_file() => self.ignored.push(path),
                    Some(kind) => files.push(source_file(path, kind)?),
                    None => self.sync_states += 1,
                }
            }
        }
        if !files.is_empty() {
            // Snapshots first: they hold most, and the rest builds on them.
            files.sort_by_key(|file| file.kind == Kind::Incremental);
            self.sources.push(Source { id: Some(id), files });
        }
        Ok(())
    }

    fn take_saved_of(&mut self, folder: &Path) -> Result<()> {
        for path in entries(folder)? {
            let is_saved = path.extension().is_some_and(|extension| extension == "automerge");
            if is_saved && path.is_file() {
                self.take_saved(path)?;
            } else {
                self.ignored.push(path);
            }
        }
        Ok(())
    }

    fn take_saved(&mut self, path: PathBuf) -> Result<()> {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let id = stem.and_then(|stem| stem.parse().ok());
        self.sources.push(Source { id, files: vec![source_file(path, Kind::Saved)?] });
        Ok(())
    }
}

fn source_file(path: PathBuf, kind: Kind) -> Result<SourceFile> {
    let about = fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(SourceFile { bytes: about.len(), path, kind })
}
