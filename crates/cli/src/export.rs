//! `highwater export`: documents of a data folder as files that automerge and automerge-repo read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use highwater_core::{ChangeHash, Document, DocumentId, change, snapshot};
use highwater_storage::{CheckedDocument, ReadOnlyStore, SqliteStore};
use serde_json::{Value, json};

use crate::durable_batch::Batch;
use crate::durable_file;
use crate::import::read::snapshot_name;
use crate::progress::Bar;
use crate::stored::Whole;

/// Write documents to .automerge files, or to a folder that automerge-repo's Node server opens
///
/// The data folder is not changed, and a server may have it open. What is there already and the same is left as it is, so an export that was interrupted is simply run again. A document that is damaged is named, and the rest is written.
///
/// The exit code is 0 if all was written, 1 if something was not, and 2 if nothing could be done.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The documents, as ids or URLs; all if none is named
    #[arg(value_name = "DOCUMENT")]
    documents: Vec<DocumentId>,
    /// The folder to write to; it is made if it is missing
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "automerge")]
    format: Format,
    /// Replace files that are there and hold something else
    #[arg(long)]
    overwrite: bool,
    /// The folder to read [default: ./highwater-data] [env: HIGHWATER_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A file for each document, named after its id
    Automerge,
    /// A folder of automerge-repo's NodeFS storage
    Nodefs,
}

/// What became of the documents.
#[derive(Debug, Default)]
struct Report {
    written: u64,
    /// There already.
    unchanged: u64,
    /// Documents without a change that could be written.
    empty: u64,
    changes: u64,
    bytes: u64,
    /// Changes that wait for others, and are in no file.
    orphans: u64,
    /// Changes that were refused, and are in no file.
    quarantined: u64,
    failed: Vec<(String, String)>,
}

/// Exports, and prints what was done. Returns whether all was written.
pub(crate) fn run(args: &ExportArgs, data_dir: &Path) -> Result<bool> {
    let store = SqliteStore::open_read_only(data_dir)
        .with_context(|| format!("cannot read the data folder {}", data_dir.display()))?;
    let documents = match args.documents.is_empty() {
        true => store.documents()?,
        false => args.documents.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let batch = prepare(args).with_context(|| format!("cannot write to {}", args.to.display()))?;
    let mut export = Export { args, batch, pending: Vec::new(), report: Report::default() };
    let mut bar = Bar::counting("exporting", documents.len() as u64);
    for id in documents {
        if let Err(error) = export.document(&store, id) {
            export.report.failed.push((id.to_string(), format!("{error:#}")));
        }
        bar.add(1, || format!("{} changes", export.report.changes));
    }
    export.finish();
    drop(bar);
    let report = export.report;
    if args.json {
        println!("{}", report.to_json(args));
    } else {
        print!("{}", report.to_text(args));
    }
    Ok(report.failed.is_empty())
}

/// Makes the folder, and in a NodeFS folder the id that automerge-repo knows it by.
fn prepare(args: &ExportArgs) -> Result<Batch> {
    durable_file::create_folder(&args.to)?;
    let mut batch = Batch::new(&args.to)?;
    let adapter_id = args.to.join("st/orage-adapter-id");
    if args.format == Format::Nodefs && !adapter_id.exists() {
        // Not ours: two servers of one id would be one to clients.
        batch.add(adapter_id, random_uuid()?.as_bytes())?;
        batch.finish()?;
    }
    Ok(batch)
}

fn random_uuid() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// An export that is under way.
struct Export<'a> {
    args: &'a ExportArgs,
    batch: Batch,
    /// Documents in the batch, with how many changes and bytes each has.
    pending: Vec<(DocumentId, u64, u64)>,
    report: Report,
}

impl Export<'_> {
    fn document(&mut self, store: &ReadOnlyStore, id: DocumentId) -> Result<()> {
        let checked = store.document(id)?.ok_or_else(|| anyhow!("there is no such document"))?;
        let whole = whole(checked)?;
        if whole.stored.deleted_ms.is_some() {
            return Err(anyhow!("it was deleted"));
        }
        self.report.quarantined += whole.stored.quarantined.len() as u64;
        let document = whole.open(id)?;
        self.report.orphans += document.orphan_count() as u64;
        if document.is_empty() {
            self.report.empty += 1;
            return Ok(());
        }
        let path = path(id, document.heads(), self.args);
        if is_there(&path, &document, self.args)? {
            self.report.unchanged += 1;
            return Ok(());
        }
        let (saved, _) = snapshot::compact(id, whole.compactable())?;
        self.batch
            .add(path, &saved.document)
            .with_context(|| format!("cannot write to {}", self.args.to.display()))?;
        self.pending.push((id, saved.info.changes, saved.info.document_bytes));
        if self.batch.is_full() {
            self.finish();
        }
        Ok(())
    }

    /// Only now the documents of the batch count as written.
    fn finish(&mut self) {
        let finished = self.batch.finish();
        for (id, changes, bytes) in self.pending.drain(..) {
            match &finished {
                Ok(()) => {
                    self.report.written += 1;
                    self.report.changes += changes;
                    self.report.bytes += bytes;
                }
                Err(error) => {
                    let reason = format!("cannot write to {}: {error}", self.args.to.display());
                    self.report.failed.push((id.to_string(), reason));
                }
            }
        }
    }
}

impl Report {
    fn to_text(&self, args: &ExportArgs) -> String {
        let mut out = format!("exported to   {}\n", args.to.display());
        let rows = [
            ("written", self.written),
            ("unchanged", self.unchanged),
            ("empty", self.empty),
            ("changes", self.changes),
            ("bytes", self.bytes),
            ("orphans", self.orphans),
            ("quarantined", self.quarantined),
            ("not written", self.failed.len() as u64),
        ];
        rows.iter().for_each(|(label, value)| out.push_str(&format!("{label:12}  {value}\n")));
        for (id, reason) in &self.failed {
            out.push_str(&format!("NOT WRITTEN   document {id}: {reason}\n"));
        }
        if self.orphans + self.quarantined > 0 {
            out.push_str("Orphans and quarantined changes are no part of their documents, and in no file.\n");
        }
        out
    }

    fn to_json(&self, args: &ExportArgs) -> Value {
        let failed: Vec<_> = self
            .failed
            .iter()
            .map(|(document, reason)| json!({ "document": document, "reason": reason }))
            .collect();
        json!({
            "to": args.to.display().to_string(),
            "written": self.written,
            "unchanged": self.unchanged,
            "empty": self.empty,
            "changes": self.changes,
            "bytes": self.bytes,
            "orphans": self.orphans,
            "quarantined": self.quarantined,
            "failed": failed,
            "ok": self.failed.is_empty(),
        })
    }
}

/// The document, if nothing of it is damaged.
fn whole(checked: CheckedDocument) -> Result<Whole> {
    if let Some(row) = checked.damaged.first() {
        return Err(anyhow!("{row}. See `highwater doctor` and `highwater repair`"));
    }
    match checked.cut_short {
        Some(reason) => Err(anyhow!("it cannot be read: {reason}")),
        None => Ok(Whole { stored: checked.stored, chunk: checked.snapshot_chunk }),
    }
}

/// Whether the file holds the document as it is. Something else must not be there, unless it is to be replaced.
fn is_there(path: &Path, document: &Document, args: &ExportArgs) -> Result<bool> {
    let there = match fs::read(path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(anyhow!("cannot read {}: {error}", path.display())),
    };
    // The same heads stand for the same changes, whatever the bytes.
    if change::saved_heads(&there).is_some_and(|heads| heads == document.heads()) {
        return Ok(true);
    }
    if !args.overwrite {
        return Err(anyhow!(
            "{} is there and holds something else. Say --overwrite to replace it, or choose another folder with --to",
            path.display()
        ));
    }
    Ok(false)
}

fn path(id: DocumentId, heads: &[ChangeHash], args: &ExportArgs) -> PathBuf {
    let id = id.to_string();
    match args.format {
        Format::Automerge => args.to.join(format!("{id}.automerge")),
        Format::Nodefs => args.to.join(&id[..2]).join(&id[2..]).join("snapshot").join(snapshot_name(heads)),
    }
}
