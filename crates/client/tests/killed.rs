//! A program that is killed: what its outbox had, the next one sends.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::*;
use highwater_client::{ChangeHash, DocumentId, SaveState};
use highwater_storage::MemoryStore;
use rand::RngExt;

const URL: &str = "HIGHWATER_TEST_URL";
const OUTBOX: &str = "HIGHWATER_TEST_OUTBOX";

/// The program that is killed: this test, run by the other one. It says which changes are safe, on this device or on the server.
#[tokio::test]
async fn program() {
    let (Ok(url), Ok(path)) = (std::env::var(URL), std::env::var(OUTBOX)) else { return };
    let client = builder(url).outbox(path).connect().await.unwrap();
    let document = client.create().unwrap();
    println!("document {}", document.id());
    let mut made = Vec::new();
    for n in 0.. {
        made.push(set(&document, "n", n));
        let mut status = document.save_status();
        // What is safe one way or the other is told, and before it is not.
        while !matches!(status.state, SaveState::Saved | SaveState::SavedOnDevice) {
            status = document.save_status_changed(&status).await;
        }
        for hash in made.drain(..) {
            println!("safe {hash}");
        }
    }
}

fn start(url: &str, path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--nocapture"])
        .env(URL, url)
        .env(OUTBOX, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads what the program says until it has said so much, and kills it.
fn kill_after(mut child: Child, lines: usize) -> (DocumentId, Vec<ChangeHash>) {
    let (mut document, mut safe) = (None, Vec::new());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut is_killed = false;
    while output.read_line(&mut line).unwrap() > 0 {
        // The test harness puts its own words before the first.
        let said = line.trim_end();
        if let Some((_, id)) = said.split_once("document ") {
            document = Some(id.parse().unwrap());
        } else if let Some(hash) = said.strip_prefix("safe ").filter(|hash| hash.len() == 64) {
            safe.push(hash.parse().unwrap());
        }
        if safe.len() >= lines && !is_killed {
            child.kill().unwrap();
            is_killed = true;
        }
        line.clear();
    }
    child.wait().unwrap();
    (document.unwrap(), safe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_called_safe_is_on_the_server_after_the_next_start() {
    let server = TestServer::start(Arc::new(MemoryStore::new())).await;
    let line = Line::to(server.address).await;
    for round in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let is_offline = round % 2 == 0;
        if is_offline {
            line.cut();
        } else {
            line.mend(server.address);
        }
        let child = start(&line.url(), &path);
        let lines = rand::rng().random_range(1..30);
        let killed = tokio::task::spawn_blocking(move || kill_after(child, lines));
        let (id, safe) = tokio::time::timeout(PATIENCE, killed).await.unwrap().unwrap();

        let next = builder(server.url()).outbox(&path).connect().await.unwrap();
        next.flush(PATIENCE).await.unwrap();
        let document = next.open(id).await.unwrap();
        for hash in &safe {
            assert_eq!(document.is_saved(*hash).await, Ok(true), "round {round}");
        }
        assert!(safe.len() >= lines);
        next.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_do_not_share_an_outbox_and_the_second_finds_what_the_first_left_once_it_is_gone() {
    let server = TestServer::start(Arc::new(MemoryStore::new())).await;
    let line = Line::to(server.address).await;
    line.cut();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let mut first = start(&line.url(), &path);
    let mut output = BufReader::new(first.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("safe ") {
        assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let error = builder(server.url()).outbox(&path).connect().await.unwrap_err().to_string();
    assert!(error.contains("another program has it open"), "{error}");
    let killed = tokio::task::spawn_blocking(move || {
        // It goes on as if nothing had happened.
        while said.matches("safe ").count() < 5 {
            assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
        }
        first.kill().unwrap();
        while output.read_line(&mut said).unwrap() > 0 {}
        first.wait().unwrap();
        said
    });
    let said = tokio::time::timeout(PATIENCE, killed).await.unwrap().unwrap();
    let id = said.split_once("document ").unwrap().1.lines().next().unwrap().parse().unwrap();
    let safe = said.lines().filter_map(|line| line.strip_prefix("safe ")?.parse().ok());
    let safe: Vec<ChangeHash> = safe.collect();

    let second = builder(server.url()).outbox(&path).connect().await.unwrap();
    second.flush(PATIENCE).await.unwrap();
    let document = second.open(id).await.unwrap();
    assert!(safe.len() >= 5);
    for hash in safe {
        assert_eq!(document.is_saved(hash).await, Ok(true));
    }
    second.close(PATIENCE).await.unwrap();
    let third = builder(line.url()).outbox(&path).connect().await.unwrap();
    assert_eq!(third.save_status().unsaved_changes, 0, "nothing is sent or told twice");
}
