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

#[test]
fn static_pages_are_served_beside_everything_else() {
    let folder = tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("pages/assets")).unwrap();
    std::fs::write(folder.path().join("pages/index.html"), "<p>the page</p>").unwrap();
    std::fs::write(folder.path().join("pages/assets/a.js"), "code()").unwrap();
    let mut command = common::highwater(folder.path());
    let server = Server::spawn(command.args(common::SERVE).args(["--pages-dir", "pages"]));
    for (path, status, part) in [
        ("/", "200", "the page"),
        ("/assets/a.js", "200", "code()"),
        ("/assets/b.js", "404", ""),
        ("/../secret", "404", ""),
        ("/readyz", "200", "ready"),
        ("/demo", "404", ""),
    ] {
        let answer = server.get(path);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part),
            "{path}: {answer}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_page_of_the_demo_can_kill_the_server_which_comes_back() {
    use std::io::{Read, Write};

    let folder = tempdir().unwrap();
    let mut command = common::highwater(folder.path());
    let mut server = Server::spawn(command.args(common::SERVE).arg("--demo"));
    assert!(server.get("/demo").starts_with("HTTP/1.1 200"));
    let mut stream = server.connect();
    stream.write_all(b"POST /demo/kill HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").unwrap();
    // Not a word.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    server.next_line();
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"), "on the port of {}", server.line);
    drop(server);
    let output = run(folder.path(), &["serve", "--listen", "192.0.2.1:0", "--demo", "--open-to-network"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--demo"));
}
