//! How far a case is: on standard error while it runs, and in the message when it does not end in time.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Shared by all tasks of a case.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Shared>);

struct Shared {
    stage: Mutex<(&'static str, usize)>,
    done: AtomicUsize,
    visible: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    pub(crate) fn new() -> Self {
        Self::with_visible(std::io::stderr().is_terminal())
    }

    /// Never shown.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self::with_visible(false)
    }

    fn with_visible(visible: bool) -> Self {
        let stage = Mutex::new(("starting", 0));
        Self(Arc::new(Shared { stage, done: AtomicUsize::new(0), visible }))
    }

    /// Begins a stage of `total` steps.
    pub(crate) fn stage(&self, name: &'static str, total: usize) {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner) = (name, total);
        self.0.done.store(0, Relaxed);
    }

    /// Counts steps as done.
    pub(crate) fn step(&self, steps: usize) {
        self.0.done.fetch_add(steps, Relaxed);
    }

    /// Redraws the line on the terminal until the future is dropped.
    pub(crate) async fn show(&self) {
        if !self.0.visible {
            return std::future::pending().await;
        }
        let _clear = ClearLine;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            eprint!("\r\x1b[2K{self}");
            // A terminal that cannot be written to shows no progress; nothing else depends on it.
            let _ = std::io::stderr().flush();
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stage, total) = *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match total {
            0 => write!(f, "{stage}"),
            _ => write!(f, "{stage}: {} of {total}", self.0.done.load(Relaxed)),
        }
    }
}

struct ClearLine;

impl Drop for ClearLine {
    fn drop(&mut self) {
        eprint!("\r\x1b[2K");
    }
}
