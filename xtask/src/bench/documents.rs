//! Many documents.

use anyhow::Result;

use super::load::{self, words};
use super::table::{Table, bytes, digits, with_unit};
use super::{Plan, Scratch};

/// Measures a folder with many documents, and returns the table.
pub(super) fn measure(plan: &Plan, scratch: &Scratch) -> Result<String> {
    let data = scratch.fresh("documents")?;
    let documents = plan.size(100_000, 1_000);
    let mut arguments = words(["documents", "--documents", &documents, "--visits", &plan.size(10_000, 100)]);
    arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
    let found = load::run(plan, &arguments)?;

    let full = found.get("documents").map_or_else(String::new, digits);
    let mut table = Table::new(&["", "an empty folder", &format!("{full} documents")]);
    let number = |key: &str, unit: &str| with_unit(found.get(key), unit);
    table.row(&["on disk", "", &bytes(found.get("disk_bytes"))]);
    table.row(&["start", &number("start_empty_ms", "ms"), &number("start_full_ms", "ms")]);
    table.row(&["memory at the start", &number("memory_empty_mb", "MB"), &number("memory_full_mb", "MB")]);
    for round in 1..=3 {
        let visits = digits((round * found.get("visits").unwrap_or(0.0) as usize) as f64);
        table.row(&[
            &format!("memory after {visits} were visited"),
            "",
            &number(&format!("memory_visited_{round}_mb"), "MB"),
        ]);
        table.row(&["… and let go of", "", &number(&format!("memory_settled_{round}_mb"), "MB")]);
    }
    table.row(&["server CPU per visit", "", &number("visit_cpu_us_3", "us")]);
    Ok(table.into_text())
}
