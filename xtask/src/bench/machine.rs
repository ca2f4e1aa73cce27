//! Where and when something was measured.

use std::fs;

use crate::run::{command, output};

/// The date and the machine, as far as the system tells.
pub(super) fn line() -> String {
    let date = output(&mut command("date", &["-u", "+%Y-%m-%d"]));
    let date = date.map_or_else(|_| "an unknown day".to_owned(), |date| date.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = std::env::consts::OS;
    let mut parts = vec![format!("{cores} cores")];
    parts.extend(field("/proc/cpuinfo", "model name").filter(|model| !model.is_empty()));
    if let Some(kilobytes) = field("/proc/meminfo", "MemTotal").and_then(|total| first_number(&total)) {
        parts.push(format!("{:.0} GiB of memory", kilobytes / f64::from(1 << 20)));
    }
    format!("Measured {date}: {system}, {}; load generator and server share the cores.", parts.join(", "))
}

/// The value of the first line `key: value`.
fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}
