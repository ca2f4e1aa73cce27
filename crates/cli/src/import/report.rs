//! What an import says in the end.

use std::path::{Path, PathBuf};

use highwater_core::DocumentId;
use serde_json::{Value, json};

use super::intake::Outcome;

/// What became of everything.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) documents: u64,
    new: u64,
    extended: u64,
    unchanged: u64,
    files: u64,
    pub(super) changes: u64,
    orphans: u64,
    compacted: u64,
    pub(super) sync_states: u64,
    pub(super) ignored: Vec<PathBuf>,
    given_ids: Vec<(String, DocumentId)>,
    odd_names: Vec<String>,
    unfit: Vec<String>,
    refused_files: Vec<(String, String)>,
    refused_changes: Vec<(DocumentId, String, String)>,
    failed: Vec<String>,
    /// Why the import ended before its end.
    pub(super) stopped: Option<String>,
}

impl Report {
    pub(super) fn take(&mut self, id: DocumentId, outcome: Outcome) {
        self.files += outcome.files;
        self.changes += outcome.added;
        self.orphans += outcome.orphans;
        self.compacted += u64::from(outcome.is_compacted);
        self.unfit.extend(outcome.unfit.map(|reason| format!("document {id}: {reason}")));
        self.failed.extend(outcome.failed.as_ref().map(|reason| format!("document {id}: {reason}")));
        let is_more = outcome.added > 0 || (outcome.is_new && outcome.orphans > 0);
        match (outcome.files, is_more, outcome.is_new) {
            // Nothing that verifies: the document is not counted.
            (0, ..) => {}
            (_, false, _) => self.unchanged += 1,
            (_, true, true) => self.new += 1,
            (_, true, false) => self.extended += 1,
        }
        self.documents = self.new + self.extended + self.unchanged;
        self.odd_names.extend(outcome.odd_names);
        self.refused_files.extend(outcome.refused_files);
        let refused = outcome.refused_changes.into_iter();
        self.refused_changes.extend(refused.map(|(hash, reason)| (id, hash.to_string(), reason)));
    }

    pub(super) fn refuse_file(&mut self, path: &Path, reason: String) {
        self.refused_files.push((path.display().to_string(), reason));
    }

    pub(super) fn gave(&mut self, path: &Path, id: DocumentId) {
        self.given_ids.push((path.display().to_string(), id));
    }

    /// Whether all that was found went in.
    pub(super) fn is_all_well(&self) -> bool {
        self.refused_files.is_empty()
            && self.refused_changes.is_empty()
            && self.failed.is_empty()
            && self.stopped.is_none()
    }

    pub(super) fn to_text(&self, data_dir: &Path) -> String {
        let mut out = format!("data folder   {}\n", data_dir.display());
        let rows = [
            ("documents", self.documents),
            ("new", self.new),
            ("added to", self.extended),
            ("unchanged", self.unchanged),
            ("files", self.files),
            ("changes", self.changes),
            ("orphans", self.orphans),
            ("compacted", self.compacted),
            ("sync states", self.sync_states),
            ("ignored", self.ignored.len() as u64),
            ("refused", (self.refused_files.len() + self.refused_changes.len()) as u64),
        ];
        rows.iter().for_each(|(label, value)| out.push_str(&format!("{label:12}  {value}\n")));
        let mut lines = |label: &str, lines: Vec<String>| {
            lines.iter().for_each(|line| out.push_str(&format!("{label:12}  {line}\n")));
        };
        lines("ID", self.given_ids.iter().map(|(path, id)| format!("{path} is automerge:{id}")).collect());
        lines("IGNORED", self.ignored.iter().map(|path| path.display().to_string()).collect());
        let odd = |path: &String| {
            format!("{path}: taken, but its name is that of another content: it may have been cut short")
        };
        lines("ODD NAME", self.odd_names.iter().map(odd).collect());
        lines(
            "UNFIT",
            self.unfit.iter().map(|line| format!("{line}; it is served, and not compacted")).collect(),
        );
        lines(
            "REFUSED",
            self.refused_files.iter().map(|(path, reason)| format!("{path}: {reason}")).collect(),
        );
        let change = |(id, hash, reason): &(DocumentId, String, String)| {
            format!("document {id}: change {hash}: {reason}")
        };
        lines("REFUSED", self.refused_changes.iter().map(change).collect());
        lines("NOT TAKEN", self.failed.clone());
        lines("STOPPED", self.stopped.iter().cloned().collect());
        if self.orphans > 0 {
            out.push_str("Orphans build on changes that are in none of the files. They are kept, and count as soon as those come.\n");
        }
        out.push_str(match (self.is_all_well(), &self.stopped) {
            (true, _) => "All that was found is in.\n",
            (false, None) => "What was refused is not in; everything else is. The files are as they were.\n",
            (false, Some(_)) => "What is counted above is in. See to what stopped it, then run the same again: it goes on where it stopped.\n",
        });
        out
    }

    pub(super) fn to_json(&self, data_dir: &Path) -> Value {
        let pair = |key: &str, (name, text): &(String, String)| json!({ key: name, "reason": text });
        json!({
            "data_dir": data_dir.display().to_string(),
            "documents": self.documents,
            "new": self.new,
            "extended": self.extended,
            "unchanged": self.unchanged,
            "files": self.files,
            "changes": self.changes,
            "orphans": self.orphans,
            "compacted": self.compacted,
            "sync_states_dropped": self.sync_states,
            "ignored": self.ignored.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "given_ids": self.given_ids.iter().map(|(path, id)| json!({ "file": path, "document": id.to_string() })).collect::<Vec<_>>(),
            "odd_names": self.odd_names,
            "unfit": self.unfit,
            "refused_files": self.refused_files.iter().map(|refused| pair("file", refused)).collect::<Vec<_>>(),
            "refused_changes": self.refused_changes.iter().map(|(id, hash, reason)| json!({
                "document": id.to_string(), "change": hash, "reason": reason,
            })).collect::<Vec<_>>(),
            "failed": self.failed,
            "stopped": self.stopped,
            "ok": self.is_all_well(),
        })
    }
}
