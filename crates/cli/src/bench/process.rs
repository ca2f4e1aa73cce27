//! Processor time and memory of a process, from `/proc`. On systems without it nothing is known, and the report says so.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// `utime` and `stime` in `/proc/PID/stat` count in hundredths of a second on every Linux that matters.
const TICK: Duration = Duration::from_millis(10);
/// By how much the two ways of counting may differ before the finer one is taken to have missed threads that ended.
const TICKS_TOLERANCE: Duration = Duration::from_millis(30);

/// A process at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Processor time of every thread, in nanoseconds; threads that ended are missing.
    threads: BTreeMap<u32, u64>,
    /// Processor time of the whole process, ended threads included, in ticks.
    ticks: Duration,
    /// Resident memory, in bytes.
    pub(crate) rss: u64,
    /// The most resident memory that the process ever had, in bytes.
    pub(crate) rss_peak: u64,
}

impl Sample {
    /// The process as it is now, or `None` if there is no such process or no `/proc`.
    pub(crate) fn take(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self {
            threads: thread_times(pid),
            ticks: process_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
            rss: kilobytes(&status, "VmRSS:")?,
            rss_peak: kilobytes(&status, "VmHWM:")?,
        })
    }

    /// Processor time used since `before`: by thread, to the nanosecond, unless threads ended in between and took their count along.
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        let nanos: u64 = self
            .threads
            .iter()
            .map(|(thread, now)| now.saturating_sub(before.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let fine = Duration::from_nanos(nanos);
        let coarse = self.ticks.saturating_sub(before.ticks);
        if self.threads.is_empty() || coarse > fine + TICKS_TOLERANCE { coarse } else { fine }
    }
}

fn thread_times(pid: u32) -> BTreeMap<u32, u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let thread = task.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((thread, text.split_whitespace().next()?.parse().ok()?))
        })
        .collect()
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted after the name, which may itself hold blanks and brackets.
fn process_ticks(stat: &str) -> Option<Duration> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Watches the server's process, if its id was given, and our own.
pub(crate) struct Meter {
    server: Option<u32>,
    server_before: Option<Sample>,
    own_before: Option<Sample>,
}

impl Meter {
    /// Starts counting now.
    pub(crate) fn start(server: Option<u32>) -> Self {
        Self {
            server,
            server_before: server.and_then(Sample::take),
            own_before: Sample::take(std::process::id()),
        }
    }

    /// What was used since the start.
    pub(crate) fn stop(&self) -> Usage {
        let after = self.server.and_then(Sample::take);
        let own_after = Sample::take(std::process::id());
        let used = |before: &Option<Sample>, after: &Option<Sample>| {
            Some(after.as_ref()?.cpu_since(before.as_ref()?))
        };
        Usage {
            server_cpu: used(&self.server_before, &after),
            own_cpu: used(&self.own_before, &own_after),
            after,
        }
    }
}

/// What was used while a [`Meter`] ran.
#[derive(Default)]
pub(crate) struct Usage {
    /// Processor time of the server.
    pub(crate) server_cpu: Option<Duration>,
    /// Processor time of the load generator.
    pub(crate) own_cpu: Option<Duration>,
    /// The server at the end.
    pub(crate) after: Option<Sample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "12 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(process_ticks(stat), Some(Duration::from_secs(2)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_sampled() {
        let sample = Sample::take(std::process::id()).unwrap();
        assert!(sample.rss > 0 && sample.rss_peak >= sample.rss);
        assert!(Sample::take(u32::MAX).is_none());
    }
}
