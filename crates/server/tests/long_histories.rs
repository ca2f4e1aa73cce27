//! Documents with long histories: compacted while people edit, opened from the index, left by everybody; and large uploads.

mod common;

use std::sync::Arc;

use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use bytes::Bytes;
use common::*;
use highwater_core::change;
use highwater_core::sync::{Message as SyncMessage, Version};
use highwater_core::wire::Body;
use highwater_core::{DocumentId, Record, Snapshot, SnapshotIndex};
use highwater_server::Config;
use highwater_storage::{MemoryStore, SqliteStore, Store, StoredDocument};
use tempfile::TempDir;

/// A server that compacts as soon as there are a few changes.
fn eager() -> Config {
    Config { compact_changes_min: 20, ..config() }
}

fn sqlite(folder: &TempDir) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(folder.path()).unwrap())
}

async fn load(store: &Arc<dyn Store>, id: DocumentId) -> StoredDocument {
    store.load(id).await.unwrap().unwrap()
}

/// Waits until a snapshot stands for at least so many changes.
async fn compacted(store: &Arc<dyn Store>, id: DocumentId, changes: u64) {
    patiently(async {
        while load(store, id).await.snapshot.is_none_or(|snapshot| snapshot.changes < changes) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn edit(client: &mut Client, values: std::ops::Range<i64>) {
    for value in values {
        client.edit("n", value);
        client.push().await;
        client.acknowledged().await;
    }
}

/// Sends a sync message of ours, rather than one that stock would send.
async fn say(client: &mut Client, what: SyncMessage) {
    let body = Body::Sync { document: client.id, data: what.encode() };
    client.socket.send(message(&client.name, body)).await;
}

/// A message that says nothing but that here are changes.
fn chunks(chunks: Vec<Bytes>) -> SyncMessage {
    SyncMessage { version: Version::V2, heads: vec![], need: vec![], have: vec![], chunks, flags: None }
}

#[tokio::test]
async fn a_document_is_compacted_while_it_is_edited_and_everybody_gets_all_of_it() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let server = TestServer::start(eager(), always(store.clone())).await;
    let id = document(1);
    let mut writer = Client::open(&server, "writer", id).await;
    edit(&mut writer, 1..31).await;
    let early = writer.doc.fork();
    edit(&mut writer, 31..120).await;
    compacted(&store, id, 100).await;
    edit(&mut writer, 120..131).await;

    // Who has nothing gets the snapshot and what came after it.
    let mut fresh = Client::open(&server, "fresh", id).await;
    fresh.until("n", 130).await;
    // Who has a part gets the rest, most of which only the snapshot holds.
    let mut middle = Client::with(&server, "middle", id, early).await;
    middle.until("n", 130).await;
    for client in [&mut fresh, &mut middle] {
        assert_eq!(client.doc.get_heads(), writer.doc.get_heads());
        assert_eq!(client.doc.get_changes(&[]).len(), 130);
    }
    drop((writer, fresh, middle));
    server.stopped().await.unwrap();

    // From the index that is stored beside the snapshot.
    let store = sqlite(&folder);
    assert!(load(&store, id).await.snapshot.is_some());
    let server = TestServer::start(eager(), always(store)).await;
    let mut later = Client::open(&server, "later", id).await;
    later.until("n", 130).await;
    edit(&mut later, 131..135).await;
    assert_eq!(later.doc.get_changes(&[]).len(), 134);
    drop(later);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_client_that_knows_only_version_1_gets_a_compacted_document_change_by_change() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let server = TestServer::start(eager(), always(store.clone())).await;
    let id = document(1);
    let mut writer = Client::open(&server, "writer", id).await;
    edit(&mut writer, 1..60).await;
    compacted(&store, id, 20).await;

    let mut old = server.join("old").await;
    let (mut doc, mut state) = (AutoCommit::new(), stock::State::new());
    while doc.get_heads() != writer.doc.get_heads() {
        if let Some(stock) = doc.sync().generate_sync_message(&mut state) {
            // Without the trailer, as clients before automerge 0.9 send it.
            let ours = SyncMessage::decode(stock.encode().into()).unwrap();
            let data = SyncMessage { version: Version::V1, flags: None, ..ours }.encode();
            old.send(message("old", Body::Sync { document: id, data })).await;
        }
        let Body::Sync { data, .. } = old.receive().await else { continue };
        let heard = SyncMessage::decode(data.clone()).unwrap();
        assert_eq!(heard.version, Version::V1);
        doc.sync().receive_sync_message(&mut state, stock::Message::decode(&data).unwrap()).unwrap();
    }
    assert_eq!(doc.get_changes(&[]).len(), 59);
    drop((writer, old));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn an_index_that_is_missing_is_made_anew_and_stored() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.reopen());
    let id = document(1);
    let server = TestServer::start(eager(), always(store.clone())).await;
    let mut writer = Client::open(&server, "writer", id).await;
    edit(&mut writer, 1..40).await;
    compacted(&store, id, 20).await;
    drop(writer);
    server.stopped().await.unwrap();

    let store: Arc<dyn Store> = Arc::new(memory.reopen());
    let stored = load(&store, id).await;
    let mut info = stored.snapshot.unwrap();
    let document = store.load_snapshot(id).await.unwrap().unwrap();
    info.index = SnapshotIndex::default();
    store.put_snapshot(id, Snapshot { info, document }).await.unwrap();

    let server = TestServer::start(eager(), always(store.clone())).await;
    let mut reader = Client::open(&server, "reader", id).await;
    reader.until("n", 39).await;
    patiently(async {
        while load(&store, id).await.snapshot.is_none_or(|snapshot| snapshot.index.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_document_that_cannot_be_materialised_is_noted_and_goes_on() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.reopen());
    let (id, other) = (document(1), document(2));
    let server = TestServer::start(eager(), always(store.clone())).await;
    let mut docs = Vec::new();
    for id in [other, id] {
        let mut writer = Client::open(&server, &format!("writer of {id}"), id).await;
        edit(&mut writer, 1..30).await;
        compacted(&store, id, 20).await;
        docs.push(writer.doc);
    }
    server.stopped().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(memory.reopen());
    // The gate lets nothing in that would do this, so it is made by exchanging the snapshots' chunks: what comes next stands on what is not there.
    let mut info = load(&store, id).await.snapshot.unwrap();
    let chunk = store.load_snapshot(other).await.unwrap().unwrap();
    info.document_bytes = chunk.len() as u64;
    store.put_snapshot(id, Snapshot { info, document: chunk }).await.unwrap();
    let mut doc = docs.pop().unwrap();
    let mut records = Vec::new();
    for n in 30..60 {
        doc.put(ROOT, "n", n).unwrap();
        doc.commit();
        let bytes = Bytes::copy_from_slice(doc.get_last_local_change().unwrap().raw_bytes());
        records.push(Record::Change { bytes });
    }
    store.append(id, records).await.unwrap();
    let first = load(&store, id).await.changes.swap_remove(0);
    let first = change::Change::parse(first).unwrap().hash;

    let server = TestServer::start(eager(), always(store.clone())).await;
    let mut writer = Client::with(&server, "writer", id, doc).await;
    patiently(async {
        while load(&store, id).await.unfit.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    edit(&mut writer, 60..70).await;
    assert_eq!(load(&store, id).await.unfit.map(|(hash, _)| hash), Some(first));
    drop(writer);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn documents_that_nobody_uses_leave_memory_when_there_is_no_room() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let config = Config { idle_documents_bytes_max: 20_000, ..config() };
    let server = TestServer::start(config, always(store.clone())).await;
    for n in 0..100 {
        let mut visitor = Client::open(&server, &format!("visitor {n}"), document(n)).await;
        edit(&mut visitor, 1..4).await;
    }
    let mut last = Client::open(&server, "last", document(0)).await;
    last.until("n", 3).await;
    patiently(async {
        while open_documents(&server).await > 30 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What is known of a document when it goes answers questions about it.
    assert!(load(&store, document(1)).await.is_noted);
    drop(last);
    server.stopped().await.unwrap();
}

/// How many documents are open, as the page says.
async fn open_documents(server: &TestServer) -> usize {
    let page = server.get("/").await;
    let mark = "data-documents=\"";
    let start = page.find(mark).map(|at| at + mark.len()).unwrap_or_else(|| panic!("{page}"));
    page[start..].split('"').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn who_has_most_documents_open_goes_when_there_is_no_room_for_another() {
    let config = Config { open_documents_max: 6, ..config() };
    let server = TestServer::start(config, always(Arc::new(MemoryStore::new()))).await;
    let mut modest = Client::open(&server, "modest", document(1)).await;
    edit(&mut modest, 1..2).await;
    let mut greedy = server.join("greedy").await;
    for n in 2..7 {
        let body = Body::Request { document: document(n), data: chunks(vec![]).encode() };
        greedy.send(message("greedy", body)).await;
    }
    let mut next = Client::open(&server, "next", document(8)).await;
    edit(&mut next, 1..2).await;
    let (code, _) = greedy.closed().await;
    assert_eq!(code, Some(1013));
    edit(&mut modest, 2..3).await;
    drop((modest, next));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn who_opens_more_and_more_documents_drives_out_nobody_else() {
    let config = Config { open_documents_max: 6, ..config() };
    let server = TestServer::start(config, always(Arc::new(MemoryStore::new()))).await;
    let mut modest = Vec::new();
    for n in 1..4 {
        let mut client = Client::open(&server, &format!("modest {n}"), document(n)).await;
        edit(&mut client, 1..2).await;
        modest.push(client);
    }
    let mut greedy = server.join("greedy").await;
    for n in 10..80 {
        let body = Body::Request { document: document(n), data: chunks(vec![]).encode() };
        greedy.send(message("greedy", body)).await;
    }
    let (code, _) = greedy.closed().await;
    assert_eq!(code, Some(1013));
    for client in &mut modest {
        edit(client, 2..3).await;
    }
    drop(modest);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_change_that_waited_when_its_document_was_compacted_is_found() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let server = TestServer::start(eager(), always(store.clone())).await;
    let id = document(1);
    let mut writer = Client::open(&server, "writer", id).await;
    // The second of two changes of somebody else, without the first.
    let mut elsewhere = AutoCommit::new();
    let made: Vec<(String, Bytes)> = (0..3)
        .map(|n| {
            elsewhere.put(ROOT, "else", n).unwrap();
            let hash = elsewhere.commit().unwrap();
            let bytes = Bytes::copy_from_slice(elsewhere.get_last_local_change().unwrap().raw_bytes());
            (hash.to_string(), bytes)
        })
        .collect();
    say(&mut writer, chunks(vec![made[1].1.clone()])).await;
    edit(&mut writer, 1..40).await;
    compacted(&store, id, 20).await;
    assert_eq!(load(&store, id).await.snapshot.unwrap().orphans.len(), 1);
    // Now it is part of the document, and not the last one of it.
    say(&mut writer, chunks(vec![made[0].1.clone(), made[2].1.clone()])).await;
    edit(&mut writer, 40..41).await;
    drop(writer);
    server.stopped().await.unwrap();

    let server = TestServer::start(eager(), always(sqlite(&folder))).await;
    for (hash, _) in &made {
        let answer = server.get(&format!("/v1/docs/{id}/changes/{hash}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn whether_a_change_is_durable_is_told_of_open_and_of_closed_documents() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let server = TestServer::start(eager(), always(store.clone())).await;
    let id = document(1);
    let mut writer = Client::open(&server, "writer", id).await;
    edit(&mut writer, 1..60).await;
    compacted(&store, id, 20).await;
    // One that waits for another, and one that was never sent.
    let mut elsewhere = writer.doc.fork();
    let mut hashes: Vec<String> = Vec::new();
    for n in 0..2 {
        elsewhere.put(ROOT, "else", n).unwrap();
        hashes.push(elsewhere.commit().unwrap().to_string());
    }
    let orphan = Bytes::copy_from_slice(elsewhere.get_last_local_change().unwrap().raw_bytes());
    say(&mut writer, chunks(vec![orphan])).await;
    let all: Vec<String> =
        writer.doc.get_changes(&[]).iter().map(|change| change.hash().to_string()).collect();
    for round in ["open", "closed", "opened anew"] {
        for hash in &all {
            let answer = server.get(&format!("/v1/docs/{id}/changes/{hash}")).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(hash), "{round}: {answer}");
        }
        for hash in &hashes {
            let answer = server.get(&format!("/v1/docs/automerge:{id}/changes/{hash}")).await;
            assert!(
                answer.starts_with("HTTP/1.1 404") && answer.contains("no_such_change"),
                "{round}: {answer}"
            );
        }
        if round == "open" {
            let (stream, _) =
                tokio_tungstenite::connect_async(format!("ws://{}/", server.address)).await.unwrap();
            writer.socket = Socket { stream };
        }
    }
    let nowhere = server.get(&format!("/v1/docs/{}/changes/{}", document(9), all[0])).await;
    assert!(nowhere.starts_with("HTTP/1.1 404"), "{nowhere}");
    for path in ["/v1/docs/nonsense/changes/00", &format!("/v1/docs/{id}/changes/00")] {
        let answer = server.get(path).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("application/problem+json"),
            "{answer}"
        );
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_large_upload_holds_up_no_other_document_and_is_durable_before_it_is_acknowledged() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let server = TestServer::start(config(), always(store.clone())).await;
    let mut writer = Client::open(&server, "writer", document(2)).await;
    edit(&mut writer, 1..2).await;
    // Bytes that do not get smaller.
    let mut seed = 1u64;
    let mut block = || -> Vec<u8> {
        let step = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..1 << 20).map(step).collect()
    };
    let mut large = AutoCommit::new();
    for n in 0..40 {
        large.put(ROOT, "block", automerge::ScalarValue::Bytes(block())).unwrap();
        large.put(ROOT, "n", n).unwrap();
        large.commit();
    }
    let mut uploader = Client::with(&server, "uploader", document(1), large).await;
    let mut others = 0;
    let mut value = 2;
    let mut upload = Box::pin(uploader.acknowledged());
    loop {
        tokio::select! {
            () = &mut upload => break,
            () = edit(&mut writer, value..value + 1) => {
                others += 1;
                value += 1;
            }
        }
    }
    drop(upload);
    assert!(others > 0, "nobody else got a word in");
    assert_eq!(load(&store, document(1)).await.records(), 40);
    drop(writer);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_document_is_read_with_all_its_values_however_it_is_stored() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let server = TestServer::start(eager(), always(store.clone())).await;
    let id = document(1);
    let path = format!("/v1/docs/{id}");
    assert!(server.get(&path).await.contains("no_such_document"));
    let mut writer = Client::open(&server, "writer", id).await;
    // Before there is a snapshot, from a copy with one; then from copies that lack ten changes each.
    let mut value = 1;
    for round in 0..8 {
        edit(&mut writer, value..value + 10).await;
        value += 10;
        if round == 4 {
            compacted(&store, id, 40).await;
        }
        let mut read = AutoCommit::load(&saved(&server, &path).await).unwrap();
        assert_eq!(read.get_heads(), writer.doc.get_heads(), "round {round}");
    }
    drop(writer);
    server.stopped().await.unwrap();
    // From the snapshot and what came after it.
    let server = TestServer::start(eager(), always(sqlite(&folder))).await;
    let read = AutoCommit::load(&saved(&server, &path).await).unwrap();
    assert_eq!(read.get(ROOT, "n").unwrap().unwrap().0.as_i64(), Some(80));
    server.stopped().await.unwrap();
}

/// A document as a file.
async fn saved(server: &TestServer, path: &str) -> Vec<u8> {
    server.http("GET", path, &[("accept", "application/vnd.automerge")], b"").await.ok(200).body
}
