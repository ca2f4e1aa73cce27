//! Edits over HTTP on the real binary, which is killed between storing them and answering.

#![cfg(unix)]

mod common;

use std::io::{Read, Write};

use common::{SERVE, Server, highwater};

const DOCUMENT: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

fn request(method: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{method} /v1/docs/{DOCUMENT} HTTP/1.1\r\nhost: test\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    )
}

/// The answer to a request; nothing if the server is gone before.
fn ask(server: &Server, request: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset says nothing either.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn count(server: &Server) -> u64 {
    let read = ask(server, &request("GET", "", ""));
    let body: serde_json::Value = serde_json::from_str(read.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["n"]["$counter"].as_u64().unwrap_or_else(|| panic!("{read}"))
}

/// Small and good enough to pick moments.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

#[test]
fn an_edit_that_is_sent_again_after_a_kill_is_made_once() {
    let seed = std::env::var("HIGHWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = seed.unwrap_or_else(|| u64::from(std::process::id())) | 1;
    println!("HIGHWATER_SEED={random}");
    let is_full = std::env::var_os("HIGHWATER_FULL").is_some_and(|full| full == "1");
    let folder = tempfile::tempdir().unwrap();
    let start = || Server::spawn(highwater(folder.path()).args(SERVE));
    let mut server = start();
    let made = ask(&server, &request("PUT", "content-type: application/json\r\n", r#"{"n":{"$counter":0}}"#));
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let patch = r#"[{"op":"increment","path":"/n","by":1}]"#;
    let (mut unanswered, mut stored) = (0, 0);
    for round in 1..=if is_full { 200 } else { 20 } {
        let headers =
            format!("content-type: application/json-patch+json\r\nidempotency-key: round {round}\r\n");
        let request = request("PATCH", &headers, patch);
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        // The moment is what is random here; nothing is waited for. An edit takes a few milliseconds.
        std::thread::sleep(std::time::Duration::from_micros(next(&mut random) % 6_000));
        server.kill();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        server = start();
        if answer.is_empty() {
            unanswered += 1;
            stored += u64::from(count(&server) == round);
        } else {
            assert_eq!(count(&server), round, "an edit that was answered is lost");
        }
        // As a client does that heard nothing, or does not trust what it heard.
        for _ in 0..2 {
            let again = ask(&server, &request);
            assert!(again.starts_with("HTTP/1.1 200"), "{again}");
            assert_eq!(count(&server), round);
        }
    }
    println!("{unanswered} edits were not answered, {stored} of them stored");
    assert!(unanswered > 0, "the server was never killed before it answered, so nothing was tested");
}
