//! Server-sent events: only what is durable, nothing missed, no queue.

mod common;

use std::sync::Arc;

use automerge::AutoCommit;
use common::*;
use highwater_core::DocumentId;
use highwater_storage::{FaultyStore, Pace};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// A stream of events.
struct Events {
    stream: TcpStream,
    /// Without the frames of the chunked encoding.
    text: String,
    raw: Vec<u8>,
}

impl Events {
    async fn open(server: &TestServer, path: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self { stream, text: String::new(), raw: Vec::new() };
        while !events.raw.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(events.read().await, "no answer");
        }
        let end = events.raw.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(events.raw.drain(..end + 4).collect()).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
        events
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = patiently(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.raw.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// The next event; `None` at the end.
    async fn try_next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                if let Some(data) = field("data") {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(Event { name: field("event").unwrap(), id: field("id"), data });
                }
            }
            while !self.unframe() {
                if !self.read().await {
                    return None;
                }
            }
        }
    }

    /// Takes one chunk out of its frame, if it is there.
    fn unframe(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|end| end == b"\r\n") else { return false };
        let len = usize::from_str_radix(std::str::from_utf8(&self.raw[..line]).unwrap(), 16).unwrap();
        if len == 0 || self.raw.len() < line + len + 4 {
            return false;
        }
        let chunk: Vec<u8> = self.raw.drain(..line + len + 4).skip(line + 2).take(len).collect();
        self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        true
    }

    async fn next(&mut self) -> Event {
        self.try_next().await.expect("an event")
    }
}

impl TestServer {
    /// Makes the document this; returns its heads.
    async fn set(&self, id: DocumentId, value: Value) -> Value {
        let answer = self.put(id, value).await;
        assert!(answer.status < 300, "{answer:?}");
        answer.json()["heads"].clone()
    }
}

#[tokio::test]
async fn who_follows_a_document_is_told_its_heads_until_it_is_deleted() {
    let server = memory_server().await;
    let id = document(1);
    assert_eq!(server.http("GET", &format!("{}/events", path(id)), &[], b"").await.status, 404);
    let first = server.set(id, json!({ "n": 1 })).await;
    let mut events = Events::open(&server, &format!("{}/events", path(id)), None).await;
    let event = events.next().await;
    assert_eq!((&*event.name, event.id.as_deref()), ("heads", first[0].as_str()));
    assert_eq!(event.data, json!({ "document": id.to_string(), "heads": first }));
    let second = server.set(id, json!({ "n": 2 })).await;
    assert_eq!(events.next().await.data["heads"], second);
    // Somebody else's change, from a socket.
    let mut client = Client::open(&server, "client", id).await;
    client.until("n", 2).await;
    client.edit("n", 3);
    client.push().await;
    client.acknowledged().await;
    let third = json!([client.doc.get_heads()[0].to_string()]);
    assert_eq!(events.next().await.data["heads"], third);
    // Who knows the heads hears nothing before there are others.
    let mut known = Events::open(&server, &format!("{}/events", path(id)), third[0].as_str()).await;
    let mut knew = Events::open(&server, &format!("{}/events", path(id)), second[0].as_str()).await;
    assert_eq!(knew.next().await.data["heads"], third);
    let fourth = server.set(id, json!({ "n": 4 })).await;
    assert_eq!(known.next().await.data["heads"], fourth);
    server.http("DELETE", &path(id), &[], b"").await.ok(204);
    assert_eq!(known.next().await.name, "deleted");
    assert_eq!(known.try_next().await, None);
    assert_eq!(server.http("GET", &format!("{}/events", path(id)), &[], b"").await.status, 410);
}

#[tokio::test]
async fn patches_lead_from_what_was_told_to_what_is() {
    let server = memory_server().await;
    let id = document(1);
    server.set(id, json!({ "text": "" })).await;
    let mut events = Events::open(&server, &format!("{}/events?patches=true", path(id)), None).await;
    let mut text: Vec<char> = Vec::new();
    let mut told = json!([]);
    let wanted: String = ('a'..='z').collect();
    let writing = async {
        for (place, letter) in wanted.chars().enumerate() {
            let patch =
                json!([{ "op": "splice", "path": "/text", "index": place, "insert": letter.to_string() }]);
            server.http("PATCH", &path(id), &[PATCH], patch.to_string().as_bytes()).await.ok(200);
        }
    };
    let reading = async {
        let mut count = 0;
        while text.len() < 26 {
            let event = events.next().await;
            count += 1;
            assert_eq!(event.data["from"], told, "it goes on where it was");
            told = event.data["heads"].clone();
            for patch in event.data["patches"].as_array().unwrap() {
                if patch["action"] == "splice" {
                    let place: usize = patch["path"].as_str().unwrap()["/text/".len()..].parse().unwrap();
                    text.splice(place..place, patch["value"].as_str().unwrap().chars());
                }
            }
        }
        count
    };
    let (count, ()) = futures::join!(reading, writing);
    assert!(count <= 27, "{count}");
    assert_eq!(text.iter().collect::<String>(), wanted);
    // Patches that are too large are not told.
    server.set(id, json!({ "large": { "$string": "x".repeat(2 << 20) } })).await;
    let event = events.next().await;
    assert_eq!((&event.data["from"], &event.data["patches"]), (&told, &Value::Null));
    // Heads that are not known here.
    let stranger = "00".repeat(32);
    let path = format!("{}/events?patches=true", path(id));
    let event = Events::open(&server, &path, Some(&stranger)).await.next().await;
    assert_eq!((&event.data["from"], &event.data["patches"]), (&json!([stranger]), &Value::Null));
}

#[tokio::test]
async fn nothing_is_told_before_it_is_durable() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let id = document(1);
    let first = server.set(id, json!({ "n": 1 })).await;
    let mut client = Client::open(&server, "client", id).await;
    client.until("n", 1).await;
    let mut events = Events::open(&server, &format!("{}/events", path(id)), first[0].as_str()).await;
    let mut feed = Events::open(&server, "/v1/events?after=0", None).await;
    assert_eq!(feed.next().await.name, "start");
    assert_eq!(feed.next().await.data["heads"], first);
    store.stall();
    client.edit("n", 2);
    client.push().await;
    patiently(async {
        while store.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Who comes now is told what is durable, once it is known that this is all that was on its way.
    let mut late = Events::open(&server, &format!("{}/events", path(id)), None).await;
    // Nobody else hears anything: what is told next is what became durable.
    let wait = std::time::Duration::from_millis(50);
    for quiet in [&mut events, &mut feed, &mut late] {
        assert!(tokio::time::timeout(wait, quiet.try_next()).await.is_err(), "something was told");
    }
    store.resume();
    client.acknowledged().await;
    let second = json!([client.doc.get_heads()[0].to_string()]);
    assert_eq!(late.next().await.data["heads"], second);
    assert_eq!(events.next().await.data["heads"], second);
    assert_eq!(feed.next().await.data["heads"], second);
    // A store that fails ends all streams: who comes back finds what the store has then.
    store.fail_append_after(0);
    client.edit("n", 3);
    client.push().await;
    assert_eq!(events.try_next().await, None);
    assert_eq!(feed.try_next().await, None);
}

#[tokio::test]
async fn the_feed_tells_of_all_documents_in_order_and_goes_on_where_it_was_left() {
    let server = memory_server().await;
    for n in 1..=5 {
        server.set(document(n), json!({ "n": n })).await;
    }
    let mut feed = Events::open(&server, "/v1/events?after=0", None).await;
    let start = feed.next().await;
    assert_eq!(
        (&*start.name, start.id.as_deref(), &start.data),
        ("start", Some("0"), &json!({ "changed": 0 }))
    );
    let mut last = String::new();
    for n in 1..=5 {
        let event = feed.next().await;
        assert_eq!(event.data["document"], document(n).to_string());
        assert_eq!(event.id, Some(event.data["changed"].to_string()));
        last = event.id.unwrap();
    }
    drop(feed);
    let second = server.set(document(2), json!({ "n": 20 })).await;
    server.http("DELETE", &path(document(4)), &[], b"").await.ok(204);
    let mut feed = Events::open(&server, "/v1/events", Some(&last)).await;
    assert_eq!(feed.next().await.data["changed"].to_string(), last);
    let event = feed.next().await;
    assert_eq!(event.data["document"], document(2).to_string());
    assert_eq!(event.data["heads"], second);
    let event = feed.next().await;
    assert_eq!((&*event.name, &event.data["document"]), ("deleted", &json!(document(4).to_string())));
    // Without a place to begin, what happens from now on.
    let mut now = Events::open(&server, "/v1/events", None).await;
    assert_eq!(now.next().await.id, event.id);
    server.set(document(9), json!({})).await;
    assert_eq!(now.next().await.data["document"], document(9).to_string());
    assert_eq!(feed.next().await.data["document"], document(9).to_string());
    // A number of another server: all is told.
    for strange in ["99999", "what"] {
        let mut feed = Events::open(&server, "/v1/events", Some(strange)).await;
        assert_eq!(feed.next().await.data, json!({ "changed": 0 }));
        assert_eq!(feed.next().await.data["document"], document(1).to_string());
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_told_less_often_and_misses_nothing() {
    let server = memory_server().await;
    let id = document(1);
    server.set(id, json!({ "n": 0 })).await;
    let mut client = Client::with(&server, "client", id, AutoCommit::new()).await;
    client.until("n", 0).await;
    let mut events = Events::open(&server, &format!("{}/events", path(id)), None).await;
    for n in 1..=1_500 {
        client.edit("n", n);
        client.push().await;
    }
    client.acknowledged().await;
    let newest = json!([client.doc.get_heads()[0].to_string()]);
    let mut count = 0;
    while events.next().await.data["heads"] != newest {
        count += 1;
    }
    assert!(count < 1_500, "{count}");
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_streams() {
    let mut server = memory_server().await;
    let id = document(1);
    server.set(id, json!({ "n": 0 })).await;
    let mut events = Events::open(&server, &format!("{}/events", path(id)), None).await;
    let mut feed = Events::open(&server, "/v1/events", None).await;
    events.next().await;
    feed.next().await;
    server.begin_stop();
    assert_eq!(events.try_next().await, None);
    assert_eq!(feed.try_next().await, None);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn streams_are_bounded_and_places_are_given_back() {
    let server = memory_server().await;
    let mut streams = Vec::new();
    for _ in 0..128 {
        streams.push(Events::open(&server, "/v1/events", None).await);
    }
    let refused = server.http("GET", "/v1/events", &[], b"").await;
    assert_eq!((refused.status, refused.code()), (503, "too_many_streams".to_owned()));
    assert_eq!(refused.json()["retryable"], true);
    streams.clear();
    server.set(document(1), json!({})).await;
    patiently(async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            if &start == b"HTTP/1.1 200" {
                return;
            }
        }
    })
    .await;
}
