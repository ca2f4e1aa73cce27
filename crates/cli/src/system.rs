//! What is asked of the operating system.

use anyhow::{Context, Result};

/// Every connection is an open file, and many systems allow only 1,024 unless asked.
pub(crate) fn raise_open_files_limit() {
    #[cfg(unix)]
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files allowed"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// Ends the process as `kill -9` would: nothing is drained, nobody hears a word, all that was not on disk is gone. After two seconds there is a new one in its place.
#[cfg(unix)]
pub(crate) fn die_and_come_back() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    let Ok(program) = std::env::current_exe() else { std::process::abort() };
    // The shell takes the place of this process, with all that it had in memory; and later the server that of the shell.
    let error = Command::new("sh")
        .args(["-c", "sleep 2; exec \"$0\" \"$@\""])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    tracing::error!(%error, "cannot come back");
    std::process::abort()
}

/// Ends the process. Somebody has to start it again.
#[cfg(not(unix))]
pub(crate) fn die_and_come_back() {
    std::process::abort()
}

/// The signals that ask for an end: interrupt (Ctrl-C), and terminate where there is such a thing.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From now on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

#[cfg(windows)]
pub(crate) struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// From now on Ctrl-C does not end the process by itself.
    pub(crate) fn listen() -> Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self).context("cannot listen for Ctrl-C")
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        let _ = self.0.recv().await;
    }
}
