//! kill -9 of the real binary under load, and power cuts: nothing that was acknowledged is lost. Documents are compacted all the time meanwhile.
//!
//! `bench crash` writes and records what was acknowledged; the server is killed at a random moment and started again; `bench verify` fetches every
//! document as a client that has nothing, and looks for all that was recorded. A few rounds by default; with
//! `HIGHWATER_FULL=1` as many as `docs/durability.md` reports. `HIGHWATER_SEED=n` repeats the moments of a run.

#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_highwater");

/// A running server; killed when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--compact-changes-min", "30", "--data-dir"])
            .arg(data);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("ws://"));
        let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { process, url }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bench(url: &str, arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["bench", "--url", url])
        .args(arguments)
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How many acknowledged changes there are in the record.
fn acknowledged(report: &str) -> u64 {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_else(|_| panic!("{report}"));
    find(&report, "acknowledged").unwrap_or_else(|| panic!("no count in {report}"))
}

fn find(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => map
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| map.values().find_map(|value| find(value, key))),
        serde_json::Value::Array(all) => all.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

/// Runs `verify`; panics if anything is lost. Returns how much was looked for.
fn verify(server: &Server, record: &Path) -> u64 {
    let output = bench(&server.url, &["--json", "verify", "--from"], record).output().unwrap();
    let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "acknowledged changes are lost:\n{report}\n{errors}");
    acknowledged(&report)
}

/// Everything in the folder is well, down to the values. Returns how many documents have a snapshot.
fn doctor(data: &Path) -> u64 {
    let output =
        Command::new(BINARY).args(["doctor", "--deep", "--json", "--data-dir"]).arg(data).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["unfit"], serde_json::json!([]), "every document can be compacted");
    find(&report, "compacted").expect("a count of documents with a snapshot")
}

/// Small and good enough to pick moments.
struct Random(u64);

impl Random {
    fn new(name: &str) -> Self {
        let seed = std::env::var("HIGHWATER_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("{name}: HIGHWATER_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn rounds(quick: usize, full: usize) -> usize {
    if std::env::var_os("HIGHWATER_FULL").is_some_and(|full| full == "1") { full } else { quick }
}

/// Writes to the server until it is killed, some time after the first acknowledgement.
fn write_and_kill(server: Server, record: &Path, random: &mut Random) {
    let mut writer = bench(&server.url, &["crash", "--clients", "8", "--reconnect", "0", "--out"], record)
        .spawn()
        .unwrap();
    let started = Instant::now();
    while std::fs::metadata(record).map_or(0, |about| about.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was ever acknowledged");
        assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
        std::thread::yield_now();
    }
    // The moment is what is random here; nothing is waited for.
    std::thread::sleep(Duration::from_millis(random.below(400)));
    server.kill();
    writer.wait().unwrap();
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let mut random = Random::new("kill -9");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut total, mut compacted) = (0, 0);
    for round in 0..rounds(5, 60) {
        let record = folder.path().join(format!("acknowledged-{round}"));
        write_and_kill(Server::start(&data, &[]), &record, &mut random);
        compacted = doctor(&data);
        total += verify(&Server::start(&data, &[]), &record);
    }
    assert!(total > 0, "nothing was acknowledged, so nothing was tested");
    assert!(compacted > 0, "nothing was compacted");
    println!("kill -9: {total} acknowledged changes, 0 lost; {compacted} documents compacted");
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let mut random = Random::new("power cut");
    let folder = tempfile::tempdir().unwrap();
    let library = build_interposer(folder.path());
    let (mut total, mut compacted) = (0, 0);
    for round in 0..rounds(5, 60) {
        let (real, shadow) =
            (folder.path().join(format!("real-{round}")), folder.path().join(format!("shadow-{round}")));
        std::fs::create_dir_all(&real).unwrap();
        std::fs::create_dir_all(&shadow).unwrap();
        let record = folder.path().join(format!("acknowledged-{round}"));
        let environment =
            [("LD_PRELOAD", &*library), ("POWERCUT_REAL", &*real), ("POWERCUT_SHADOW", &*shadow)];
        write_and_kill(Server::start(&real, &environment), &record, &mut random);
        compacted += doctor(&shadow);
        total += verify(&Server::start(&shadow, &[]), &record);
    }
    assert!(total > 0, "nothing was acknowledged, so nothing was tested");
    assert!(compacted > 0, "nothing was compacted");
    println!("power cut: {total} acknowledged changes, 0 lost; {compacted} documents compacted");
}

/// The interposer is worth something only if it does forget what was not synced.
#[test]
fn the_interposer_forgets_what_was_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let library = build_interposer(folder.path());
    let (real, shadow) = (folder.path().join("real"), folder.path().join("shadow"));
    std::fs::create_dir_all(&real).unwrap();
    std::fs::create_dir_all(&shadow).unwrap();
    let write = |name: &str, options: &[&str]| {
        let status = Command::new("dd")
            .args(["if=/dev/zero", "bs=1000", "count=3", &format!("of={}", real.join(name).display())])
            .args(options)
            .env("LD_PRELOAD", &library)
            .env("POWERCUT_REAL", &real)
            .env("POWERCUT_SHADOW", &shadow)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    };
    write("synced", &["conv=fsync"]);
    write("not-synced", &[]);
    assert_eq!(std::fs::read(shadow.join("synced")).unwrap(), [0; 3000]);
    assert!(real.join("not-synced").exists() && !shadow.join("not-synced").exists());
}

fn build_interposer(folder: &Path) -> PathBuf {
    let library = folder.join("powercut.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/powercut/powercut.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(status.expect("a C compiler, which building SQLite needs too").success());
    library
}
