//! A server of our own, for cases that look at what it does with a data folder, before and after a restart.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long an answer over HTTP may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A process that runs `highwater serve`. It ends with this value.
pub(crate) struct Server {
    child: Child,
    /// Kept open: the server would otherwise have reason to complain.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) url: String,
    /// From the start of the process to the line that says so.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts one with the data in this folder. Documents that nobody uses are let go after `idle_after`.
    pub(crate) fn start(folder: &Path, idle_after: Duration) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find our own program")?;
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--idle-document-after"])
            .arg(format!("{}ms", idle_after.as_millis()))
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
        let said = stdout.read_line(&mut line);
        let started_in = started.elapsed();
        let url = line.find("ws://").and_then(|start| line[start..].split_whitespace().next());
        let server = Self { child, _stdout: stdout, url: url.unwrap_or_default().to_owned(), started_in };
        said.context("cannot read what the server says")?;
        if server.url.is_empty() {
            bail!("the server does not start");
        }
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long it takes to ask for a path over HTTP, from connecting to the end of the answer, and the status.
    pub(crate) fn time(&self, path: &str) -> Result<(u16, Duration)> {
        let started = Instant::now();
        let answer = self.get(path)?;
        let took = started.elapsed();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("the answer is no HTTP")?, took))
    }

    /// A number that the server counts. Not a number if it does not.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let answer = self.get("/metrics")?;
        let mut values = answer.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(values.next().unwrap_or(f64::NAN))
    }

    /// How long a request with a body takes, from connecting to the end of the answer. Anything but a success is an error.
    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Duration> {
        let started = Instant::now();
        let mut stream = TcpStream::connect(self.url.trim_start_matches("ws://"))?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let len = body.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let took = started.elapsed();
        if !answer.starts_with("HTTP/1.1 2") {
            bail!("{method} {path} is answered: {answer}");
        }
        Ok(took)
    }

    /// The answer to a request of its own connection, head and all.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("ws://"))?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        stream.set_nodelay(true)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Everything acknowledged is on disk. It may be gone already, and then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
