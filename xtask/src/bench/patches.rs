//! Patches over HTTP.

use anyhow::Result;

use super::load::{self, Numbers, words};
use super::table::{Table, digits, with_unit};
use super::{Plan, Scratch, history};

/// Measures patches of a short and of a long document, and returns the table.
pub(super) fn measure(plan: &Plan, scratch: &Scratch) -> Result<String> {
    let data = scratch.fresh("patches")?;
    let changes = plan.size(260_000, 5_000);
    let mut arguments = words(["patches", "--changes", &changes, "--patches", &plan.size(1_000, 50)]);
    arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
    arguments.extend(["--trace".to_owned(), history::trace()?.display().to_string()]);
    let found = load::run(plan, &arguments)?;

    let long = found.get("changes").map_or_else(String::new, digits);
    let mut table = Table::new(&["changes", "100", &long, "target"]);
    let mut row = |label: &str, show: &dyn Fn(&str) -> String, target: &str| {
        table.row(&[label, &show("short"), &show("long"), target]);
    };
    let number = |key: &'static str, unit: &'static str| {
        let found = &found;
        move |subject: &str| with_unit(found.get(&format!("{subject}_{key}")), unit)
    };
    let latency = |key: &'static str| {
        let found = &found;
        move |subject: &str| {
            let number = |part: &str, unit| with_unit(found.get(&format!("{subject}_{key}_{part}")), unit);
            format!("{} / {}", number("p50_us", ""), number("p99_us", "us"))
        }
    };
    row("automerge itself: transaction, commit and bytes, p50 / p99", &latency("automerge"), "");
    row("the same edit in the core: JSON, edit and bytes, p50 / p99", &latency("core"), "");
    row("… in times of automerge itself", &|subject| ratio(&found, subject, "core_p50_us"), "2");
    row("first patch, which makes the copy", &number("first_ms", "ms"), "");
    row("warm patch, p50 / p99", &latency("warm"), "");
    row("… server CPU", &number("warm_cpu_us", "us"), "");
    row("patch after ten changes of others, p50 / p99", &latency("behind"), "");
    row("… server CPU", &number("behind_cpu_us", "us"), "");
    row("16 clients at once: patches a second", &number("rate_per_s", ""), "");
    row("… p50 / p99", &latency("many"), "");
    row("… server CPU", &number("many_cpu_us", "us"), "");
    Ok(table.into_text())
}

/// What something takes in times of what `automerge` takes for its part.
fn ratio(found: &Numbers, subject: &str, key: &str) -> String {
    let of = |key: &str| found.get(&format!("{subject}_{key}"));
    with_unit(of(key).zip(of("automerge_p50_us")).map(|(ours, theirs)| ours / theirs), "times")
}
