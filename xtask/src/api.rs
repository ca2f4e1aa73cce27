//! Whether the server answers as its OpenAPI description says, whatever it is sent: schemathesis (PyPI) makes up the requests.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::run::{command, release_binary, root, run, target};

const FOLDER: &str = "xtask/api";
/// Its own oldest.
const PYTHON_MIN: &str = "import sys; sys.exit(sys.version_info < (3, 10))";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance";

/// A part of the test: what is sent, and for how long.
struct Part {
    args: &'static [&'static str],
    /// More than what must hold anyway.
    checks: &'static str,
    /// Documents and places in them that exist are put in the place of made up ones.
    has_real_documents: bool,
    /// 0: only in a full run.
    seconds: u32,
    seconds_full: u32,
}

const PARTS: [Part; 5] = [
    // Each parameter at its limits. Making that up takes long.
    Part {
        args: &["--mode=positive", "--phases=coverage"],
        checks: "",
        has_real_documents: true,
        seconds: 0,
        seconds_full: 180,
    },
    // Reading and deleting.
    Part {
        args: &[
            "--mode=positive",
            "--phases=fuzzing",
            "--include-method=GET",
            "--include-method=HEAD",
            "--include-method=DELETE",
        ],
        checks: "",
        has_real_documents: true,
        seconds: 15,
        seconds_full: 180,
    },
    // One request after the other, with what was answered.
    Part {
        args: &["--mode=positive", "--phases=stateful"],
        checks: "",
        has_real_documents: true,
        seconds: 15,
        seconds_full: 180,
    },
    // Edits, and changes that are damaged.
    Part {
        args: &[
            "--mode=positive",
            "--phases=fuzzing",
            "--include-method=PATCH",
            "--include-method=PUT",
            "--include-method=POST",
        ],
        checks: "",
        has_real_documents: true,
        seconds: 15,
        seconds_full: 180,
    },
    // Requests that the description forbids.
    Part {
        args: &["--mode=negative", "--phases=coverage,fuzzing"],
        checks: ",negative_data_rejection",
        has_real_documents: false,
        seconds: 15,
        seconds_full: 180,
    },
];

/// Runs all of it against a server of its own.
pub(crate) fn test(full: bool) -> Result<()> {
    let Some(python) = python() else {
        println!("*** LEFT OUT: there is no python3 of version 3.10 or later, and schemathesis needs it ***");
        return Ok(());
    };
    let program = install(&python)?;
    let seed = seed()?;
    println!("HIGHWATER_SEED={seed}");
    let folder = target().join("schemathesis").join("run");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut server = Server::start(&folder)?;
    for part in PARTS.iter().filter(|part| full || part.seconds > 0) {
        run(&mut part.command(&program, &server.url, &folder, seed, full))?;
    }
    server.is_well()
}

/// A Python that is new enough, if there is one.
fn python() -> Option<PathBuf> {
    let found = ["python3", "python"].into_iter().find(|name| {
        let status = Command::new(name).args(["-c", PYTHON_MIN]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    });
    found.map(PathBuf::from)
}

/// Installs exactly what the list says, unless that has been done already. Returns the program.
fn install(python: &Path) -> Result<PathBuf> {
    let list = root().join(FOLDER).join("requirements.txt");
    let folder = target().join("schemathesis").join("venv");
    let stamp = folder.join("installed.txt");
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let wanted = fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("schemathesis: already installed");
    } else {
        run(command(python, &["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = command(programs.join("python"), &["-m", "pip", "install", "--quiet", "--requirement"]);
        run(pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").arg(&list))?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(programs.join("schemathesis"))
}

fn seed() -> Result<u64> {
    if let Ok(given) = std::env::var("HIGHWATER_SEED") {
        return given.parse().context("HIGHWATER_SEED is no number");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()))
}

impl Part {
    fn command(&self, program: &Path, url: &str, folder: &Path, seed: u64, full: bool) -> Command {
        let seconds = if full { self.seconds_full } else { self.seconds };
        let mut command = command(program, &["--config-file"]);
        command
            .arg(root().join(FOLDER).join("schemathesis.toml"))
            .args(["run", &format!("{url}/v1/openapi.json")])
            .args(self.args)
            // Streams of events do not end.
            .arg("--exclude-path-regex=/events$")
            .args(["--continue-on-failure", "--no-color", "--generation-database=none", "--warnings=off"])
            .arg(format!("--checks={CHECKS}{}", self.checks))
            .arg(format!("--max-time={seconds}"))
            .arg(format!("--seed={seed}"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", root().join(FOLDER))
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("HIGHWATER", url)
            .current_dir(folder);
        if self.has_real_documents {
            command.env("HIGHWATER_REAL_DOCUMENTS", "1");
        }
        command
    }
}

/// The server that is tested. It ends with this.
struct Server {
    child: Child,
    /// Kept open: the server may go on to write.
    stdout: BufReader<ChildStdout>,
    url: String,
    log: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Result<Self> {
        let log = folder.join("server.log");
        let stderr = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = std::env::var_os("HIGHWATER_BIN").map_or_else(release_binary, PathBuf::from);
        let mut serve = command(program, &["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(folder.join("data")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = serve.spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut server = Self { child, stdout: BufReader::new(stdout), url: String::new(), log };
        let mut line = String::new();
        server.stdout.read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("ws://"));
        let address = address.with_context(|| format!("the server did not say where it listens: {line}"))?;
        server.url = format!("http://{address}");
        Ok(server)
    }

    /// It still answers, and nothing in it panicked.
    fn is_well(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended: {status}; its log is {}", self.log.display());
        }
        let log = fs::read_to_string(&self.log)?;
        if let Some(line) = log.lines().find(|line| line.contains("panic")) {
            bail!("something panicked in the server: {line}; its log is {}", self.log.display());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
