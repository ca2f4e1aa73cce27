//! The examples, as they are: a worker and two terminals on one document.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use common::*;
use highwater_storage::MemoryStore;

/// Where cargo puts examples, which it builds with the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not there; build it with `cargo build --examples`", path.display());
    path
}

/// A running example; killed at the end of the test.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads until a line begins so; what comes after that.
    fn until(&mut self, start: &str) -> String {
        for line in (&mut self.output).lines() {
            if let Some(rest) = line.unwrap().strip_prefix(start) {
                return rest.to_owned();
            }
        }
        panic!("it ended without `{start}`");
    }

    /// Closes its input, and waits until it has ended.
    fn end(&mut self) -> bool {
        self.input = None;
        self.child.wait().unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Those that have ended need it no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn talk(url: &str, folder: &Path) {
    let outbox = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut one = Program::start("terminal", &[url, "", &outbox("one")]);
    let id = one.until("automerge:");
    one.until("(saved)");
    let mut worker = Program::start("worker", &[url, &id, &outbox("worker")]);
    worker.until("0 words, saved as ");
    let mut two = Program::start("terminal", &[url, &id, &outbox("two")]);
    two.until("automerge:");
    one.say("three words here");
    assert_eq!(two.until("| "), "three words here");
    worker.until("3 words, saved as ");
    two.say("and two");
    assert_eq!(one.until("| and "), "two");
    worker.until("5 words, saved as ");
    assert!(one.end() && two.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_counts_what_two_terminals_write() {
    let server = TestServer::start(Arc::new(MemoryStore::new())).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, path) = (server.url(), folder.path().to_owned());
    let talked = tokio::task::spawn_blocking(move || talk(&url, &path));
    tokio::time::timeout(PATIENCE, talked).await.expect("an end in time").unwrap();
}
