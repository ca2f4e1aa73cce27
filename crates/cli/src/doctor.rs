//! `highwater doctor`: looks at everything in a data folder and changes nothing.

pub(crate) mod graph;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use highwater_storage::{CheckEvent, CheckedDocument, ReadOnlyStore, SqliteStore};
use serde_json::{Value, json};

/// How often the line on the terminal is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Check a data folder: every record's checksum, and the history of every document. Nothing is changed.
///
/// The exit code is 0 if all is well, 1 if something is damaged, and 2 if the folder cannot be looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The folder to check [default: ./highwater-data] [env: HIGHWATER_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Also materialise every document, save it and load it again: says which change is at fault where that fails. Takes long
    #[arg(long)]
    deep: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    is_deep: bool,
    pub(crate) documents: u64,
    /// Changes that are part of their document.
    pub(crate) changes: u64,
    /// Changes that wait for others, and are not part of their document until those come.
    orphans: u64,
    quarantined: u64,
    /// Documents with a snapshot.
    compacted: u64,
    /// Documents that were deleted. They are counted among the documents, and nothing of them is there.
    deleted: u64,
    /// Documents that cannot be compacted, each with the change at fault.
    unfit: Vec<String>,
    /// Size of all changes: in snapshots, and the others as they came.
    bytes: u64,
    /// Size of the snapshots' indexes.
    index_bytes: u64,
    damage: Vec<Damage>,
}

/// One thing that is not as it should be.
#[derive(Debug)]
struct Damage {
    /// The document, unless the whole file is concerned.
    document: Option<String>,
    detail: String,
}

/// Checks the folder and prints what was found. Returns whether all is well.
pub(crate) fn run(args: &DoctorArgs, data_dir: &Path) -> Result<bool> {
    let store = SqliteStore::open_read_only(data_dir)
        .with_context(|| format!("cannot look at the data folder {}", data_dir.display()))?;
    let diagnosis = Diagnosis::of(&store, args.deep);
    if args.json {
        println!("{}", diagnosis.to_json(data_dir, store.is_live()));
    } else {
        print!("{}", diagnosis.to_text(data_dir, store.is_live()));
    }
    Ok(diagnosis.damage.is_empty())
}

impl Diagnosis {
    /// Looks at everything in a store.
    pub(crate) fn of(store: &ReadOnlyStore, is_deep: bool) -> Self {
        let mut progress = Line::new("checking");
        let mut diagnosis = Self { is_deep, ..Self::default() };
        if let Err(error) = store.identity() {
            diagnosis.damaged(None, format!("the server's identity: {error}"));
        }
        store.check(|event| {
            diagnosis.take(event);
            progress.draw(|| format!("{} documents, {} changes", diagnosis.documents, diagnosis.changes));
        });
        diagnosis
    }

    /// What is wrong, a line each.
    pub(crate) fn damage_lines(&self) -> Vec<String> {
        let line = |damage: &Damage| match &damage.document {
            Some(id) => format!("document {id}: {}", damage.detail),
            None => damage.detail.clone(),
        };
        self.damage.iter().map(line).collect()
    }

    fn take(&mut self, event: CheckEvent) {
        match event {
            CheckEvent::File(detail) => self.damaged(None, detail),
            CheckEvent::Document(checked) => self.take_document(checked),
            // Whatever a newer store has to say is not praise.
            other => self.damaged(None, format!("{other:?}")),
        }
    }

    fn take_document(&mut self, checked: Box<CheckedDocument>) {
        let name = checked.document.to_string();
        for row in &checked.damaged {
            self.damaged(Some(&name), row.to_string());
        }
        if let Some(reason) = &checked.cut_short {
            self.damaged(Some(&name), format!("the rest cannot be read: {reason}"));
        }
        self.documents += 1;
        self.deleted += u64::from(checked.stored.deleted_ms.is_some());
        self.quarantined += checked.stored.quarantined.len() as u64;
        self.bytes += checked.stored.changes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        if let Some(snapshot) = &checked.stored.snapshot {
            self.compacted += 1;
            self.bytes += snapshot.document_bytes;
            self.index_bytes += snapshot.index.len() as u64;
        }
        if let Some((hash, reason)) = &checked.stored.unfit {
            self.unfit.push(format!("document {name}: change {hash}: {reason}"));
        }
        let findings = graph::check(&checked, self.is_deep);
        self.changes += findings.document.len() as u64;
        self.orphans += findings.document.orphan_count() as u64;
        findings.faults.into_iter().for_each(|fault| self.damaged(Some(&name), fault.detail));
    }

    fn damaged(&mut self, document: Option<&str>, detail: String) {
        self.damage.push(Damage { document: document.map(str::to_owned), detail });
    }

    fn to_text(&self, data_dir: &Path, is_live: bool) -> String {
        let mut out = format!("data folder   {}\n", data_dir.display());
        if is_live {
            out.push_str("in use        by a server that runs now\n");
        }
        let rows = [
            ("documents", self.documents),
            ("changes", self.changes),
            ("orphans", self.orphans),
            ("quarantined", self.quarantined),
            ("compacted", self.compacted),
            ("deleted", self.deleted),
            ("unfit", self.unfit.len() as u64),
            ("bytes", self.bytes),
            ("index bytes", self.index_bytes),
            ("damaged", self.damage.len() as u64),
        ];
        rows.iter().for_each(|(label, value)| out.push_str(&format!("{label:12}  {value}\n")));
        for unfit in &self.unfit {
            out.push_str(&format!("UNFIT         {unfit}; it is served, and not compacted\n"));
        }
        for line in self.damage_lines() {
            out.push_str(&format!("DAMAGE        {line}\n"));
        }
        out.push_str(if self.damage.is_empty() { "All is well.\n" } else { ADVICE });
        out
    }

    fn to_json(&self, data_dir: &Path, is_live: bool) -> Value {
        let damage: Vec<_> = self
            .damage
            .iter()
            .map(|damage| json!({ "document": damage.document, "detail": damage.detail }))
            .collect();
        json!({
            "data_dir": data_dir.display().to_string(),
            "in_use": is_live,
            "documents": self.documents,
            "changes": self.changes,
            "orphans": self.orphans,
            "quarantined": self.quarantined,
            "compacted": self.compacted,
            "deleted": self.deleted,
            "unfit": self.unfit,
            "bytes": self.bytes,
            "index_bytes": self.index_bytes,
            "damaged": self.damage.len(),
            "damage": damage,
            "ok": self.damage.is_empty(),
        })
    }
}

const ADVICE: &str = "\
Copy the folder before you do anything else. A damaged document is not served until it is restored, from a backup or from a
client that still has it; all other documents are served as ever. `highwater repair` writes a copy of the folder without
the changes at fault.
";

/// A line on the terminal that says how far it is. Gone when dropped; never there if standard error is no terminal.
pub(crate) struct Line {
    label: &'static str,
    drawn: Option<Instant>,
    visible: bool,
}

impl Line {
    pub(crate) fn new(label: &'static str) -> Self {
        Self { label, drawn: None, visible: std::io::stderr().is_terminal() }
    }

    pub(crate) fn draw(&mut self, text: impl FnOnce() -> String) {
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_INTERVAL);
        if self.visible && due {
            eprint!("\r\x1b[2K{}: {}", self.label, text());
            // A terminal that cannot be written to shows no progress; nothing else depends on it.
            let _ = std::io::stderr().flush();
            self.drawn = Some(Instant::now());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}
