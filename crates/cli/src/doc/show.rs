//! What is printed.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::Failure;

/// Standard output.
pub(crate) struct Out {
    /// It is for programs.
    pub(crate) json: bool,
}

impl Out {
    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// The head of a table, if people look at it.
    pub(crate) fn row(&mut self, head: &str) -> Result<(), Failure> {
        if self.json || !std::io::stdout().is_terminal() { Ok(()) } else { self.line(head) }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        Ok(out.write_all(bytes).and_then(|()| out.flush())?)
    }
}

/// JSON for people.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The beginning of a text that somebody else wrote, without what could upset a terminal.
pub(super) fn short(text: &Value, chars: usize) -> String {
    let text = text.as_str().unwrap_or_default();
    text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The time, in seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or_default()
}

/// A time in seconds since 1970, as people in all places write it. Nothing, if its author did not say.
pub(super) fn time(seconds: i64) -> String {
    // Years outside of these are a mistake, or milliseconds.
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds != 0);
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{:20}", "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(1_764_036_062), "2025-11-25T02:01:02Z");
        assert_eq!(time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(time(0).trim(), "-");
        assert_eq!(time(i64::MAX).trim(), "-");
        assert_eq!(time(i64::MIN).trim(), "-");
    }

    #[test]
    fn what_others_wrote_cannot_upset_a_terminal() {
        assert_eq!(short(&Value::from("a\u{1b}[2Jb\nc"), 10), "a [2Jb c");
    }
}
