//! Long histories.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::load::{self, Numbers, words};
use super::table::{Table, bytes, digits, with_unit};
use super::{Plan, Scratch};
use crate::run::{cargo, output, root};

/// How many changes the histories have.
const CHANGES: [usize; 5] = [10_000, 20_000, 100_000, 260_000, 1_000_000];
/// The same for a short run.
const QUICK_CHANGES: [usize; 2] = [2_000, 5_000];

/// The package that ships the editing trace, and the file in it.
const TRACE: (&str, &str) = ("loro-internal", "benches/automerge-paper.json.gz");

/// A row: its label, what it shows, the target.
type Row = (&'static str, fn(&Numbers) -> String, &'static str);

const ROWS: [Row; 20] = [
    ("on disk, raw", |found| bytes(found.get("disk_raw_bytes")), ""),
    ("on disk, compacted", |found| bytes(found.get("disk_compacted_bytes")), ""),
    ("… of it the document chunk", |found| bytes(found.get("document_bytes")), ""),
    ("… of it the index, a change", |found| with_unit(found.get("index_bytes_per_change"), "bytes"), ""),
    ("making the snapshot", |found| with_unit(found.get("compaction_s"), "s"), ""),
    ("opening, not compacted", |found| with_unit(found.get("open_raw_ms"), "ms"), ""),
    ("opening, median", |found| with_unit(found.get("open_median_ms"), "ms"), "20 ms at 260,000"),
    ("… best", |found| with_unit(found.get("open_best_ms"), "ms"), ""),
    ("first fetch after a restart, in all", |found| with_unit(found.get("fetch_first_ms"), "ms"), ""),
    (
        "fresh client: server CPU",
        |found| with_unit(found.get("fetch_cpu_ms"), "ms"),
        "2 ms at 20,000, 5 ms at 260,000",
    ),
    ("… p50", |found| micros_as_ms(found, "fetch_p50_us"), ""),
    ("… bytes", |found| bytes(found.get("fetch_bytes")), ""),
    (
        "hash look-up, cold: store, p50 / max",
        |found| pair(found, "find_cold_p50_us", "find_cold_max_us"),
        "5 ms",
    ),
    ("… over HTTP, p50 / max", |found| pair(found, "http_cold_p50_us", "http_cold_max_us"), "5 ms"),
    ("hash look-up, warm: in memory", |found| with_unit(found.get("find_warm_us"), "us"), "2 us"),
    ("… over HTTP, p50 / server CPU", |found| pair(found, "http_warm_p50_us", "http_warm_cpu_us"), ""),
    (
        "one writer: p50 / server CPU per edit",
        |found| pair(found, "edit_p50_us", "server_cpu_us_per_edit"),
        "1.3 times that of a short one",
    ),
    ("server's memory before", |found| with_unit(found.get("memory_before_mb"), "MB"), ""),
    ("… with the document open", |found| with_unit(found.get("memory_open_mb"), "MB"), ""),
    ("… when it was let go of", |found| with_unit(found.get("memory_idle_mb"), "MB"), ""),
];

fn micros_as_ms(found: &Numbers, key: &str) -> String {
    with_unit(found.get(key).map(|micros| micros / 1e3), "ms")
}

/// Two numbers in microseconds.
fn pair(found: &Numbers, first: &str, second: &str) -> String {
    format!("{} / {}", with_unit(found.get(first), ""), with_unit(found.get(second), "us"))
}

/// Measures histories of all lengths, and returns the table.
pub(super) fn measure(plan: &Plan, scratch: &Scratch) -> Result<String> {
    let trace = trace()?;
    let lengths: &[usize] = if plan.quick { &QUICK_CHANGES } else { &CHANGES };
    let mut found = vec![];
    for changes in lengths {
        let data = scratch.fresh("history")?;
        let mut arguments = words(["history", "--changes", &changes.to_string(), "--data-dir"]);
        arguments.extend([data.display().to_string(), "--trace".into(), trace.display().to_string()]);
        found.push(load::run(plan, &arguments)?);
    }
    let mut columns = vec!["changes".to_owned()];
    columns.extend(lengths.iter().map(|changes| digits(*changes as f64)));
    columns.push("target".to_owned());
    let mut table = Table::new(&columns);
    for (label, show, target) in ROWS {
        let mut cells = vec![label.to_owned()];
        cells.extend(found.iter().map(show));
        cells.push(target.to_owned());
        table.row(&cells);
    }
    Ok(table.into_text())
}

/// Fetches the package with the trace, which is never built, and says where cargo put the file.
pub(super) fn trace() -> Result<PathBuf> {
    let manifest = root().join("bench/trace/Cargo.toml");
    let mut metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let metadata: Value = serde_json::from_str(&output(metadata.arg(manifest))?)?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let package = packages.iter().find(|package| package["name"] == TRACE.0);
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).context("no trace")?;
    Ok(PathBuf::from(manifest).with_file_name("").join(TRACE.1))
}
