//! Events of the real binary, which is killed and started again while somebody follows thousands of changes: nothing is missed, and nothing is out of order.

#![cfg(unix)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::http::{Event, follow, request};
use common::{Server, highwater};
use serde_json::{Value, json};

const DOCUMENTS: usize = 4;
/// Acknowledged changes of each document, so many thousands are followed in all.
const CHANGES: usize = 600;
const KILLS: usize = 5;
/// The document that is made last.
const LAST: &str = "8JT5gXGHPWfPRoMrV1mqqo4QBFn";

/// Where the server listens now: another place after every start.
type Address = Arc<Mutex<String>>;

fn now(address: &Address) -> String {
    address.lock().unwrap().clone()
}

fn start(folder: &std::path::Path, address: &Address) -> Server {
    let server = Server::spawn(highwater(folder).args(common::SERVE).args(["--compact-changes-min", "100"]));
    *address.lock().unwrap() = server.address();
    server
}

/// Types at the end of a text until so many changes are acknowledged. Returns what is acknowledged: hashes.
fn write(address: &Address, id: &str, acknowledged: &AtomicUsize) -> Vec<String> {
    let mut hashes = Vec::new();
    while hashes.len() < CHANGES {
        let letter = char::from(b'a' + (hashes.len() % 26) as u8).to_string();
        let patch = json!([{ "op": "splice", "path": "/text", "index": 0, "insert": letter }]).to_string();
        let path = format!("/v1/docs/{id}");
        match request(&now(address), "PATCH", &path, "application/json-patch+json", &patch) {
            Some((200, answer)) => {
                hashes.push(answer["hash"].as_str().unwrap().to_owned());
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Some((503, _)) | None => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    hashes
}

/// Applies the patches of a text.
fn apply(text: &mut Vec<char>, patches: &Value) {
    for patch in patches.as_array().expect("patches that are not too large") {
        let path = patch["path"].as_str().unwrap();
        let place = path.strip_prefix("/text/").map(|place| place.parse::<usize>().unwrap());
        match (patch["action"].as_str().unwrap(), place) {
            ("splice", Some(place)) => {
                drop(text.splice(place..place, patch["value"].as_str().unwrap().chars()))
            }
            ("delete", Some(place)) => {
                let length = patch["length"].as_u64().unwrap_or(1) as usize;
                text.drain(place..place + length);
            }
            ("put", None) => text.clear(),
            other => panic!("{other:?}: {patch}"),
        }
    }
}

/// Follows one document with patches, over all restarts, up to the full stop.
fn follow_document(address: &Address, id: &str) -> (String, Value, usize) {
    let (mut text, mut told, mut last, mut resumed) = (Vec::new(), json!([]), None::<String>, 0);
    while !text.contains(&'.') {
        let path = format!("/v1/docs/{id}/events?patches=true");
        resumed += 1;
        let from = last.clone();
        follow(&now(address), &path, from.as_deref(), |Event { name, id, data }| {
            assert_eq!(name, "heads");
            assert_eq!(data["from"], told, "it goes on where it was, without a gap");
            apply(&mut text, &data["patches"]);
            told = data["heads"].clone();
            last = id;
            !text.contains(&'.')
        });
    }
    (text.into_iter().collect(), told, resumed)
}

/// Follows all documents, until the last one is made. Returns the heads that were told last of each.
fn follow_feed(address: &Address) -> HashMap<String, Value> {
    let (mut heads, mut last) = (HashMap::new(), 0u64);
    while !heads.contains_key(LAST) {
        let from = last.to_string();
        follow(&now(address), "/v1/events", Some(&from), |Event { name, id, data }| {
            let number: u64 = id.unwrap().parse().unwrap();
            if name == "start" {
                assert_eq!(number, last, "it goes on where it was");
            } else {
                assert!(number > last, "{number} after {last}");
                heads.insert(data["document"].as_str().unwrap().to_owned(), data["heads"].clone());
                last = number;
            }
            !heads.contains_key(LAST)
        });
    }
    heads
}

#[test]
fn who_follows_a_server_that_is_killed_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let address: Address = Arc::default();
    let mut server = start(folder.path(), &address);
    let ids: Vec<String> = (0..DOCUMENTS)
        .map(|_| {
            let (status, made) =
                request(&now(&address), "POST", "/v1/docs", "application/json", r#"{"text":""}"#).unwrap();
            assert_eq!(status, 201);
            made["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            ids.iter().map(|id| scope.spawn(|| write(&address, id, &acknowledged))).collect();
        let followers: Vec<_> = ids.iter().map(|id| scope.spawn(|| follow_document(&address, id))).collect();
        let feed = scope.spawn(|| follow_feed(&address));
        for kill in 1..=KILLS {
            while acknowledged.load(Ordering::SeqCst) < kill * DOCUMENTS * CHANGES / (KILLS + 1) {
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill();
            server = start(folder.path(), &address);
        }
        let written: BTreeMap<&String, Vec<String>> =
            ids.iter().zip(writers).map(|(id, writer)| (id, writer.join().unwrap())).collect();
        // A full stop in each, and then a document that is the last one.
        let mut last = HashMap::new();
        for id in &ids {
            let patch = json!([{ "op": "splice", "path": "/text", "index": 0, "insert": "." }]).to_string();
            let path = format!("/v1/docs/{id}");
            let done = request(&now(&address), "PATCH", &path, "application/json-patch+json", &patch);
            last.insert(id.clone(), done.unwrap().1["heads"].clone());
        }
        let path = format!("/v1/docs?id={LAST}");
        request(&now(&address), "POST", &path, "application/json", "{}").unwrap();
        for (id, follower) in ids.iter().zip(followers) {
            let (text, told, resumed) = follower.join().unwrap();
            let (_, document) =
                request(&now(&address), "GET", &format!("/v1/docs/{id}"), "text/plain", "").unwrap();
            assert_eq!(json!(text), document["text"], "the patches make the document");
            assert_eq!(told, last[id], "the newest heads were told");
            assert!(resumed > KILLS, "{resumed}");
            // All that was acknowledged is part of what was told.
            let have = json!({ "hashes": written[id].iter().take(1_000).collect::<Vec<_>>() }).to_string();
            let path = format!("/v1/docs/{id}/have");
            let (_, found) = request(&now(&address), "POST", &path, "application/json", &have).unwrap();
            assert_eq!(found["missing"], json!([]));
            // An edit whose answer was lost may be there twice.
            assert!(text.chars().count() > CHANGES);
        }
        let heads = feed.join().unwrap();
        for id in &ids {
            assert_eq!(heads[id], last[id], "the feed told the newest heads");
        }
        println!("{} changes followed over {KILLS} kills", acknowledged.load(Ordering::SeqCst));
    });
}
