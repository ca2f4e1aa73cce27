//! The servers that are compared, and how each is started.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, command, release_binary, root, run, target};

/// A server that can be started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// What it is called in the table.
    pub(super) name: &'static str,
    /// Whether it is this server.
    pub(super) ours: bool,
    command: fn(&Path) -> Command,
}

/// This server.
pub(super) const HIGHWATER: Peer = Peer { name: "Highwater", ours: true, command: highwater };
/// The server that people run so far.
pub(super) const NODE: Peer = Peer { name: "automerge-repo 2.5.6 on Node", ours: false, command: node };
/// The one in Rust.
pub(super) const SAMOD: Peer = Peer { name: "samod 0.16", ours: false, command: samod };

fn highwater(data: &Path) -> Command {
    let mut server =
        command(release_binary(), &["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"]);
    server.arg(data);
    server
}

fn node(data: &Path) -> Command {
    let mut server = command("node", &["bench/peers/node/server.mjs", "--data-dir"]);
    server.arg(data);
    server
}

fn samod(data: &Path) -> Command {
    let program = format!("highwater-bench-peer-samod{}", std::env::consts::EXE_SUFFIX);
    let mut server = command(samod_target().join("release").join(program), &["--data-dir"]);
    server.arg(data);
    server
}

fn samod_target() -> std::path::PathBuf {
    target().join("bench-peers")
}

/// Builds samod's server.
pub(super) fn build_samod() -> Result<()> {
    let manifest = root().join("bench/peers/samod/Cargo.toml");
    let mut build = cargo(&["build", "--release", "--locked", "--manifest-path"]);
    run(build.arg(manifest).arg("--target-dir").arg(samod_target()))
}

/// A server that runs. It is killed with this value.
pub(super) struct Running {
    child: Child,
    /// Kept open, so that it can go on printing.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub(super) url: String,
}

impl Running {
    /// Starts a server with its data in this folder, and waits until it listens.
    pub(super) fn start(peer: &Peer, data: &Path) -> Result<Self> {
        let mut child = (peer.command)(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", peer.name))?;
        let stdout = child.stdout.take().context("it has no output")?;
        let mut running = Self { child, _stdout: BufReader::new(stdout), url: String::new() };
        let mut line = String::new();
        while running.url.is_empty() {
            line.clear();
            if running._stdout.read_line(&mut line)? == 0 {
                bail!("{} ended before it listened", peer.name);
            }
            let start = line.find("ws://").map(|start| line[start..].split([' ', ',', '\n']));
            running.url = start.and_then(|mut words| words.next()).unwrap_or_default().to_owned();
        }
        Ok(running)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
