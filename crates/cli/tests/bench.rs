//! Every case of the load generator, small, against the server.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use common::{Server, highwater, run, stderr};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::tempdir;

/// Runs a case and returns its report.
fn bench(folder: &Path, server: &Server, arguments: &[&str]) -> Value {
    let url = server.url();
    let common = ["bench", "--json", "--timeout", "60", "--url", &url];
    let output = highwater(folder).args(common).args(arguments).output().unwrap();
    assert!(!output.stdout.is_empty(), "{arguments:?}: {}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), report["passed"].as_bool().unwrap());
    report
}

#[test]
fn edits_of_many_clients_are_acknowledged() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path());
    let own = ["edits", "--clients", "3", "--edits", "20", "--history", "50", "--in-flight", "4"];
    let report = bench(folder.path(), &server, &own);
    assert_eq!(report["edits"], 60);
    assert!(report["latency_p50_us"].as_f64().unwrap() > 0.0);
    let shared = ["edits", "--clients", "3", "--edits", "20", "--one-document"];
    assert_eq!(bench(folder.path(), &server, &shared)["edits"], 60);
}

#[test]
fn every_reader_gets_every_edit() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path());
    let report = bench(folder.path(), &server, &["fanout", "--readers", "4", "--edits", "10"]);
    assert_eq!(report["deliveries"], 40);
}

#[test]
fn a_fetched_document_is_whole() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path());
    let report = bench(folder.path(), &server, &["cold", "--history", "300", "--clients", "2"]);
    assert_eq!(report["changes"], 300);
    let document = report["document"].as_str().unwrap();
    let again = bench(folder.path(), &server, &["cold", "--clients", "1", "--document", document]);
    assert_eq!(again["changes"], 300);
}

#[test]
fn idle_connections_stay() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path());
    let report = bench(folder.path(), &server, &["idle", "--connections", "5", "--settle", "1"]);
    assert_eq!(report["connections"], 5);
}

#[test]
fn what_was_acknowledged_is_found_and_what_was_not_there_is_lost() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let crash = ["crash", "--out", "acks", "--seconds", "1", "--clients", "2", "--edits", "100"];
    let written = bench(folder.path(), &server, &crash);
    assert!(written["acknowledged"].as_u64().unwrap() > 0);
    server.kill();
    let server = Server::start(folder.path());
    let verify = ["verify", "--from", "acks"];
    let found = bench(folder.path(), &server, &verify);
    assert_eq!((&found["lost"], &found["acknowledged"]), (&0.into(), &written["acknowledged"]));

    let acks = fs::read_to_string(folder.path().join("acks")).unwrap();
    let (document, _) = acks.lines().next().unwrap().split_once(' ').unwrap();
    fs::write(folder.path().join("acks"), format!("{acks}{document} {}\n", "00".repeat(32))).unwrap();
    let found = bench(folder.path(), &server, &verify);
    assert_eq!((&found["lost"], &found["passed"]), (&1.into(), &false.into()));
}

/// A trace of `keystrokes` letters, packed as the real one is.
fn write_trace(folder: &Path, keystrokes: usize) {
    let typed: Vec<Value> = (0..keystrokes).map(|at| json!({ "patches": [[at, 0, "x"]] })).collect();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(json!({ "txns": typed }).to_string().as_bytes()).unwrap();
    fs::write(folder.join("trace.json.gz"), packed.finish().unwrap()).unwrap();
}

#[test]
fn a_long_history_is_patched() {
    let folder = tempdir().unwrap();
    write_trace(folder.path(), 300);
    let arguments = ["bench", "--json", "patches", "--trace", "trace.json.gz", "--data-dir", "patched"];
    let small = ["--changes", "300", "--patches", "12", "--clients", "3"];
    let output = highwater(folder.path()).args(arguments).args(small).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for kind in ["automerge", "warm", "behind", "many"] {
        assert!(report[format!("long_{kind}_p50_us")].as_f64().unwrap() > 0.0, "{kind}");
    }
}

#[test]
fn a_long_history_is_stored_compacted_and_served() {
    let folder = tempdir().unwrap();
    write_trace(folder.path(), 1_500);
    let arguments = ["bench", "--json", "history", "--trace", "trace.json.gz", "--data-dir", "long"];
    let small = ["--changes", "2000", "--clients", "2", "--edits", "20"];
    let output = highwater(folder.path()).args(arguments).args(small).output().unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("no {key} in {report}"));
    assert_eq!(report["changes"], 2000);
    assert!(number("disk_compacted_bytes") < number("disk_raw_bytes"));
    for key in ["open_best_ms", "fetch_bytes", "find_warm_us", "http_cold_p50_us", "edit_p50_us"] {
        assert!(number(key) > 0.0, "{key}");
    }
    let again = highwater(folder.path()).args(arguments).output().unwrap();
    assert!(stderr(&again).contains("holds a database already"), "{}", stderr(&again));
}

#[test]
fn many_documents_are_stored_and_visited() {
    let folder = tempdir().unwrap();
    let arguments =
        ["bench", "--json", "documents", "--data-dir", "many", "--documents", "30", "--visits", "10"];
    let output = run(folder.path(), &arguments);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(report["documents"], 30);
    assert!(report["start_full_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_echo_needs_no_server() {
    let folder = tempdir().unwrap();
    let output = run(
        folder.path(),
        &["bench", "--json", "echo", "--clients", "2", "--messages", "50", "--in-flight", "3"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["messages"], 100);
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_not_a_wait() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), &["bench", "--url", "ws://127.0.0.1:1", "edits"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is the server running?"));
    let output = run(folder.path(), &["bench", "edits"]);
    assert!(stderr(&output).contains("--url"));
}

#[test]
fn a_server_that_says_nothing_is_given_up_on() {
    let folder = tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let output = run(folder.path(), &["bench", "--url", &url, "--timeout", "1", "cold"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not finished after 1 seconds"), "{}", stderr(&output));
}
