//! Starting and stopping the server.

mod common;

#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use common::{Server, run, stderr};
use tempfile::tempdir;

#[test]
fn one_line_says_where_it_listens_and_what_it_promises() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let line = server.line.clone();
    assert!(line.starts_with(&format!("highwater {}", env!("CARGO_PKG_VERSION"))), "{line}");
    assert!(line.contains("ws://127.0.0.1:") && !line.contains(":0 "), "{line}");
    assert!(line.contains("data in data") && line.contains("synchronous=FULL"), "{line}");
    assert_eq!(server.signal("TERM").code(), Some(0));
}

#[test]
fn an_interrupt_ends_it_in_good_order() {
    let folder = tempdir().unwrap();
    assert_eq!(Server::start(folder.path()).signal("INT").code(), Some(0));
}

#[test]
fn it_shows_what_it_counts() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path());
    // Its probe is no append of changes.
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
    let answer = server.get("/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(page.contains("# TYPE highwater_append_seconds histogram"), "{page}");
    assert!(page.lines().any(|line| line == "highwater_connections_opened_total 0"), "{page}");
}

#[test]
fn a_second_server_is_kept_out_of_the_folder() {
    let folder = tempdir().unwrap();
    let _server = Server::start(folder.path());
    let output = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("in use by another process") && text.contains("--data-dir"), "{text}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let folder = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(folder.path(), &["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&address) && text.contains("--listen"), "{text}");
}

#[test]
fn what_is_no_data_folder_is_left_alone() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "a file").unwrap();
    let output = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data-dir"));
    assert_eq!(std::fs::read_to_string(folder.path().join("data")).unwrap(), "a file");
}

#[cfg(unix)]
#[test]
fn it_goes_on_after_it_had_too_many_open_files() {
    use std::process::{Command, Stdio};

    let folder = tempdir().unwrap();
    let mut command = Command::new("sh");
    // For good: the server raises a limit that it may raise.
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_highwater")]);
    command.args(common::SERVE).current_dir(folder.path()).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let log = BufReader::new(server.child.stderr.take().unwrap());
    let flood: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let said = log.lines().map(Result::unwrap).find(|line| line.contains("cannot accept connections"));
    assert!(said.expect("a word about it").contains("Too many open files"));
    drop(flood);
    assert!(server.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
}
