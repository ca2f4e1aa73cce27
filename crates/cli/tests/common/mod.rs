//! Runs the built binary.

// Every test file has its own copy of this module, and none uses all of it.
#![allow(dead_code)]

pub(crate) mod http;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary, in a folder of its own and without settings from the environment of whoever runs the tests.
pub(crate) fn highwater(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HIGHWATER_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    command
}

/// Runs the binary to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    highwater(folder).args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The arguments that start a server on a free port.
pub(crate) const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"];

/// A server that runs, and is killed with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Kept open: a server whose standard output is gone would have reason to complain.
    stdout: BufReader<ChildStdout>,
    /// The line that it printed at its start.
    pub(crate) line: String,
}

impl Server {
    /// Starts one on a free port, with its data in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::spawn(highwater(folder).args(SERVE))
    }

    /// Starts what the command says.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        Self { child, stdout, line }
    }

    /// Waits for another line, of a server that took the place of this one.
    pub(crate) fn next_line(&mut self) {
        self.line.clear();
        self.stdout.read_line(&mut self.line).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        let start = self.line.find("ws://").expect(&self.line);
        self.line[start..].split_whitespace().next().unwrap().to_owned()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.url().trim_start_matches("ws://").trim_end_matches('/').to_owned()
    }

    /// A socket to it, connected.
    pub(crate) fn connect(&self) -> TcpStream {
        let address = self.address();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// The answer to a plain HTTP request.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name and waits for the end.
    pub(crate) fn signal(&mut self, name: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end after {name}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Changes a byte of a text in a file, behind the back of whoever wrote it.
pub(crate) fn damage(file: &Path, text: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[place] ^= 1;
    std::fs::write(file, bytes).unwrap();
}
