//! How far a long command is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const BYTES: &str = "{prefix} [{bar:30}] {bytes} of {total_bytes}, {eta} left {wide_msg}";
const COUNT: &str = "{prefix} [{bar:30}] {pos} of {len}, {eta} left {wide_msg}";

/// On standard error, so that what is printed can be used. Gone when dropped.
pub(crate) struct Bar {
    label: &'static str,
    bar: ProgressBar,
    shown: fn(u64) -> String,
    is_terminal: bool,
    said: Instant,
}

impl Bar {
    /// A bar that is full at so many bytes.
    pub(crate) fn new(label: &'static str, total: u64) -> Self {
        Self::styled(label, total, BYTES, |bytes| HumanBytes(bytes).to_string())
    }

    /// A bar that is full at so many of anything.
    pub(crate) fn counting(label: &'static str, total: u64) -> Self {
        Self::styled(label, total, COUNT, |count| count.to_string())
    }

    fn styled(label: &'static str, total: u64, style: &str, shown: fn(u64) -> String) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_prefix(label);
        // A style that does not read would only cost the looks.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { label, bar, shown, is_terminal, said: Instant::now() }
    }

    /// So much more is done.
    pub(crate) fn add(&mut self, more: u64, message: impl FnOnce() -> String) {
        let (done, total) = (self.bar.position() + more, self.bar.length().unwrap_or(0));
        self.set(done, total, message);
    }

    /// So much is done, of so much.
    pub(crate) fn set(&mut self, done: u64, total: u64, message: impl FnOnce() -> String) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.is_terminal {
            self.bar.set_message(message());
        } else if self.said.elapsed() >= LINE_INTERVAL {
            eprintln!("{}: {} of {}, {}", self.label, (self.shown)(done), (self.shown)(total), message());
            self.said = Instant::now();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
