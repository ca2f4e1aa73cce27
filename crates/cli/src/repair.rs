//! `highwater repair`: a copy of a data folder without what keeps documents from being served.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use highwater_core::change::Change;
use highwater_core::{ChangeHash, DocumentId, Record};
use highwater_storage::{CheckEvent, CheckedDocument, SqliteStore, Store};

use tokio::runtime::{Builder, Runtime};

use crate::doctor::Line;
use crate::doctor::graph::{self, Findings};

/// Write a copy of a data folder in which every document can be served. The folder itself is not changed.
///
/// A change that cannot be part of its document, and every change that depends on it, goes to the quarantine of the copy: it is no longer
/// served, and its bytes are still there to be looked at. What is damaged on the disk cannot be copied and is missing in the copy; clients that
/// still have it bring it back when they connect.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// The folder to read; no server may have it open
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Where to write the copy; there must be no database yet
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Do not materialise documents: finds what does not read or fit, and takes much less time
    #[arg(long)]
    quick: bool,
}

/// What became of the documents.
#[derive(Default)]
struct Report {
    documents: u64,
    changes: u64,
    quarantined: u64,
    /// What could not be copied, or not as it was.
    problems: Vec<String>,
}

/// Repairs, and prints what was done.
pub(crate) fn run(args: &RepairArgs) -> Result<()> {
    let from = SqliteStore::open_read_only(&args.data_dir)
        .with_context(|| format!("cannot read the data folder {}", args.data_dir.display()))?;
    if from.is_live() {
        bail!(
            "a server has {} open. Stop it first, or the copy misses what it takes in.",
            args.data_dir.display()
        );
    }
    let to = SqliteStore::create_as(&args.to, &from.identity()?)
        .with_context(|| format!("cannot write to {}", args.to.display()))?;
    let runtime = Builder::new_current_thread().build()?;
    let mut progress = Line::new("copying");
    let (mut report, mut failed) = (Report::default(), None);
    from.check(|event| match event {
        _ if failed.is_some() => {}
        CheckEvent::Document(checked) => {
            failed = report.copy(&runtime, &to, checked, !args.quick).err();
            progress.draw(|| format!("{} documents, {} changes", report.documents, report.changes));
        }
        CheckEvent::File(detail) => report.problems.push(detail),
        other => report.problems.push(format!("{other:?}")),
    });
    drop(progress);
    if let Some(error) = failed {
        return Err(error.context("the copy is not complete; delete it"));
    }
    runtime.block_on(to.close())?;
    report.print(args);
    Ok(())
}

impl Report {
    fn copy(
        &mut self,
        runtime: &Runtime,
        to: &SqliteStore,
        checked: Box<CheckedDocument>,
        deep: bool,
    ) -> Result<()> {
        let id = checked.document;
        self.problems.extend(checked.damaged.iter().map(|row| format!("document {id}: {row}; not copied")));
        self.problems.extend(
            checked.cut_short.iter().map(|why| format!("document {id}: the rest cannot be read: {why}")),
        );
        let findings = graph::check(&checked, deep);
        self.problems.extend(findings.faults.iter().map(|fault| format!("document {id}: {}", fault.detail)));
        let mut records = self.records(id, &checked, &findings);
        // A copy in which it were merely missing would take it from a client that still has it.
        records.extend(checked.stored.deleted_ms.map(|_| Record::Tombstone));
        self.documents += 1;
        if !records.is_empty() {
            runtime.block_on(to.append(id, records))?;
        }
        Ok(())
    }

    /// The document as it is to be: changes in their old order, then what is in quarantine, before and now.
    fn records(&mut self, id: DocumentId, checked: &CheckedDocument, findings: &Findings) -> Vec<Record> {
        let all = graph::changes(checked).unwrap_or_else(|problem| {
            self.problems.push(format!("document {id}: {problem}; what came after it is copied"));
            checked.stored.changes.clone()
        });
        let at_fault: HashSet<ChangeHash> = findings.faults.iter().filter_map(|fault| fault.hash).collect();
        let mut gone = at_fault.clone();
        let (mut changes, mut quarantined) = (Vec::new(), Vec::new());
        for bytes in &all {
            // What does not read has been reported, and has no hash to be put into quarantine under.
            let Ok(change) = Change::parse(bytes.clone()) else { continue };
            let depends = change.deps.iter().any(|dep| gone.contains(dep));
            if findings.document.contains(&change.hash) || !(depends || gone.contains(&change.hash)) {
                changes.push(Record::Change { bytes: bytes.clone() });
                continue;
            }
            gone.insert(change.hash);
            let fault = findings.faults.iter().find(|fault| fault.hash == Some(change.hash));
            let reason =
                fault.map_or("depends on a change that was taken out", |fault| &fault.detail).to_owned();
            self.problems
                .extend(fault.is_none().then(|| format!("document {id}: change {} {reason}", change.hash)));
            let peer = "highwater repair".to_owned();
            quarantined.push(Record::Quarantine { hash: change.hash, reason, peer, bytes: bytes.clone() });
        }
        let before = checked.stored.quarantined.iter().map(|change| Record::Quarantine {
            hash: change.hash,
            reason: change.reason.clone(),
            peer: change.peer.clone(),
            bytes: change.bytes.clone(),
        });
        self.changes += changes.len() as u64;
        self.quarantined += quarantined.len() as u64;
        changes.into_iter().chain(before).chain(quarantined).collect()
    }

    fn print(&self, args: &RepairArgs) {
        println!("copied        {} to {}", args.data_dir.display(), args.to.display());
        println!(
            "documents     {}\nchanges       {}\ntaken out     {}",
            self.documents, self.changes, self.quarantined
        );
        for problem in &self.problems {
            println!("PROBLEM       {problem}");
        }
        if self.problems.is_empty() {
            println!("Nothing had to be taken out.");
        } else {
            println!(
                "Look at the copy with `highwater doctor --deep`, keep the old folder, and serve the copy."
            );
        }
    }
}
