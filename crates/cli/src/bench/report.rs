//! What a case found out, as text for people and as JSON for scripts.

use std::time::Duration;

use serde_json::{Map, Value};

use super::process::{Sample, Usage};

/// The results of one case, in the order in which they are printed.
pub(crate) struct Report {
    case: &'static str,
    rows: Vec<Row>,
    /// Whether what the case checks holds; `verify` turns this off when something is lost.
    pub(crate) passed: bool,
}

struct Row {
    /// Machine-readable, with the unit at the end.
    key: String,
    label: String,
    value: Value,
    unit: &'static str,
}

impl Report {
    /// An empty report of this case.
    pub(crate) fn new(case: &'static str) -> Self {
        Self { case, rows: Vec::new(), passed: true }
    }

    /// Adds a number of things.
    pub(crate) fn count(&mut self, key: &str, label: &str, value: u64) {
        self.push(key, label, value.into(), "");
    }

    /// Adds a measured number with its unit. Not a number means that it is not known.
    pub(crate) fn number(&mut self, key: &str, label: &str, value: f64, unit: &'static str) {
        let rounded = (value * 1000.0).round() / 1000.0;
        self.push(key, label, serde_json::Number::from_f64(rounded).map_or(Value::Null, Value::Number), unit);
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, label: &str, value: &str) {
        self.push(key, label, value.into(), "");
    }

    /// Adds p50, p99 and max of these latencies.
    pub(crate) fn latencies(&mut self, key: &str, label: &str, latencies: &mut Latencies) {
        for (name, share) in [("p50", 0.50), ("p99", 0.99), ("max", 1.0)] {
            let micros = latencies.quantile(share).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6);
            self.number(&format!("{key}_{name}_us"), &format!("{label} {name}"), micros, "us");
        }
    }

    /// Adds how many operations went through in which time.
    pub(crate) fn rate(&mut self, what: &str, operations: u64, elapsed: Duration) {
        self.number("elapsed_s", "elapsed", elapsed.as_secs_f64(), "s");
        let rate = operations as f64 / elapsed.as_secs_f64().max(1e-9);
        self.number("rate_per_s", &format!("{what} per second"), rate, "/s");
    }

    /// Adds the server's processor time per operation and its memory, and what the load generator itself cost.
    pub(crate) fn usage(&mut self, per: &str, operations: u64, usage: &Usage) {
        let each = |cpu: Option<Duration>| {
            cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6 / operations.max(1) as f64)
        };
        let key = format!("server_cpu_us_per_{}", per.replace(' ', "_"));
        self.number(&key, &format!("server CPU per {per}"), each(usage.server_cpu), "us");
        let key = format!("generator_cpu_us_per_{}", per.replace(' ', "_"));
        self.number(&key, &format!("generator CPU per {per}"), each(usage.own_cpu), "us");
        self.memory("server_memory", "server memory", usage.after.as_ref());
    }

    /// Adds resident memory, now and at its highest.
    pub(crate) fn memory(&mut self, key: &str, label: &str, sample: Option<&Sample>) {
        let mega = |bytes: fn(&Sample) -> u64| sample.map_or(f64::NAN, |s| bytes(s) as f64 / 1e6);
        self.number(&format!("{key}_mb"), label, mega(|s| s.rss), "MB");
        self.number(&format!("{key}_peak_mb"), &format!("{label} peak"), mega(|s| s.rss_peak), "MB");
    }

    /// The report as lines with aligned columns.
    pub(crate) fn to_text(&self) -> String {
        let width = self.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
        let mut out = format!("{}\n", self.case);
        for row in &self.rows {
            let value = match &row.value {
                Value::Null => "n/a".to_owned(),
                Value::String(text) => text.clone(),
                Value::Number(number) if number.is_f64() => round(number.as_f64().unwrap_or(f64::NAN)),
                other => other.to_string(),
            };
            let unit = if row.value.is_null() { "" } else { row.unit };
            out.push_str(format!("  {:width$}  {value:>12} {unit}", row.label).trim_end());
            out.push('\n');
        }
        out
    }

    /// The report as one flat JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("case".to_owned(), self.case.into());
        map.extend(self.rows.iter().map(|row| (row.key.clone(), row.value.clone())));
        map.insert("passed".to_owned(), self.passed.into());
        Value::Object(map)
    }

    fn push(&mut self, key: &str, label: &str, value: Value, unit: &'static str) {
        self.rows.push(Row { key: key.to_owned(), label: label.to_owned(), value, unit });
    }
}

/// Three digits that mean something, and no more.
fn round(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// Measured durations.
#[derive(Default)]
pub(crate) struct Latencies {
    all: Vec<Duration>,
    sorted: bool,
}

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.all.push(latency);
        self.sorted = false;
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, other: Self) {
        self.all.extend(other.all);
        self.sorted = false;
    }

    /// The smallest value that at least this share of all values does not exceed.
    pub(crate) fn quantile(&mut self, share: f64) -> Option<Duration> {
        if !self.sorted {
            self.all.sort_unstable();
            self.sorted = true;
        }
        let rank = (share * self.all.len() as f64).ceil() as usize;
        self.all.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(latencies.quantile(0.99), Some(Duration::from_millis(99)));
        assert_eq!(latencies.quantile(1.0), Some(Duration::from_millis(100)));
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    #[test]
    fn what_is_not_known_reads_so() {
        let mut report = Report::new("edits");
        report.usage("edit", 10, &Usage::default());
        assert!(report.to_text().contains("n/a"));
        assert!(report.to_json()["server_cpu_us_per_edit"].is_null());
    }
}
