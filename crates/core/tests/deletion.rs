//! Deleting a document: nothing is said of it before it is durable, and nothing else after.

#[allow(dead_code, reason = "each test file uses its part")]
mod scene;

use automerge::AutoCommit;
use bytes::Bytes;
use highwater_core::document::{DELETED, Outgoing};
use highwater_core::sync::{Flags, Message, Version};
use highwater_core::{ChangeHash, Document, DocumentId, Record};

use scene::{Client, Server, chunk, info, settle};

fn message(heads: Vec<ChangeHash>, chunks: Vec<Bytes>) -> Message {
    let have = Vec::new();
    Message { version: Version::V1, heads, need: vec![], have, chunks, flags: Some(Flags::default()) }
}

/// The hashes that a peer was told will never be part of the document, and how often it was told that this was deleted.
fn told(said: Vec<Outgoing>) -> (Vec<ChangeHash>, usize) {
    let (mut refused, mut deleted) = (Vec::new(), 0);
    for outgoing in said {
        match outgoing {
            Outgoing::Rejected(rejections) => refused.extend(rejections.into_iter().map(|rejection| {
                assert_eq!(rejection.reason, DELETED);
                rejection.hash
            })),
            Outgoing::Deleted => deleted += 1,
            other => panic!("{other:?}"),
        }
    }
    (refused, deleted)
}

fn two_agreed() -> (Server, Client, Client) {
    let mut server = Server::new();
    let mut first = Client::join(&mut server, 1);
    first.edit(0);
    settle(&mut server, &mut [&mut first]);
    let mut second = Client::join(&mut server, 2);
    settle(&mut server, &mut [&mut first, &mut second]);
    (server, first, second)
}

#[test]
fn everybody_is_told_once_and_only_when_it_is_durable() {
    let (mut server, mut first, _second) = two_agreed();
    server.document.delete(Vec::new());
    server.poll();
    assert!(server.said(1).is_empty() && server.said(2).is_empty(), "it is not durable");
    assert!(!server.document.is_deleted() && !server.heads().is_empty());
    server.commit();
    assert!(server.document.is_deleted() && server.heads().is_empty());
    assert_eq!(told(server.said(1)), (vec![], 1));
    assert_eq!(told(server.said(2)), (vec![], 1));
    // What is typed on is refused by name, and nobody else hears of it.
    let hash = first.edit(1);
    first.speak(&mut server);
    let (refused, deleted) = told(server.said(1));
    assert!(refused.contains(&hash) && deleted == 0, "{refused:?}");
    assert!(server.said(2).is_empty());
    assert!(!server.is_committing(), "nothing is stored of it");
    // Whoever comes now hears it when he asks, each time that he asks.
    server.attach(3, info("late"));
    for _ in 0..2 {
        server.try_hear(3, message(vec![], vec![]).encode(), true).unwrap();
        assert_eq!(told(server.said(3)), (vec![], 1));
    }
}

#[test]
fn what_comes_while_it_is_being_deleted_is_refused_when_that_is_durable() {
    let (mut server, mut first, mut second) = two_agreed();
    // One before, which counts, and one after.
    let before = first.edit(1);
    first.speak(&mut server);
    server.document.delete(vec![]);
    server.poll();
    let after = second.edit(2);
    second.speak(&mut server);
    server.syncs(1);
    server.syncs(2);
    assert!(server.commit_one());
    assert!(server.heads().contains(&before));
    server.syncs(1);
    server.syncs(2);
    server.commit();
    assert_eq!(told(server.said(1)), (vec![], 1));
    let (refused, deleted) = told(server.said(2));
    assert!(refused.contains(&after) && deleted == 1, "{refused:?}");
    let changes = server.durable.iter().filter(|record| matches!(record, Record::Change { .. }));
    assert_eq!(changes.count(), 2);
    assert_eq!(server.durable.last(), Some(&Record::Tombstone));
}

#[test]
fn an_upload_under_way_is_refused_by_name() {
    let (mut server, mut first, _second) = two_agreed();
    let mut doc = AutoCommit::new();
    server.attach(3, info("uploader"));
    server.holds_uploads = true;
    let saved = Bytes::from({
        use automerge::transaction::Transactable;
        for n in 0..50 {
            doc.put(automerge::ROOT, "n", n).unwrap();
            doc.commit();
        }
        doc.save()
    });
    let heads: Vec<ChangeHash> = doc.get_heads();
    server.hear(3, message(heads, vec![saved]).encode());
    assert_eq!(server.uploads.len(), 1);
    server.document.delete(vec![]);
    server.poll();
    server.commit();
    server.finish_upload();
    server.commit();
    let (refused, deleted) = told(server.said(3));
    assert_eq!((refused.len(), deleted), (50, 1));
    assert!(server.document.is_deleted() && server.document.is_empty());
    assert_eq!(first.changes().len(), 1);
}

#[test]
fn a_late_client_cannot_revive_it_after_a_restart() {
    let (mut server, mut first, _second) = two_agreed();
    server.document.delete(vec![]);
    server.poll();
    server.commit();
    let mut late = Document::deleted(DocumentId::from_bytes([3; 16]));
    std::mem::swap(&mut server.document, &mut late);
    let mut back = Client::join(&mut server, 7);
    std::mem::swap(&mut back.doc, &mut first.doc);
    let offline = back.edit(9);
    back.speak(&mut server);
    // It sends nothing before it has heard what is here; its heads are named all the same.
    assert_eq!(told(server.said(7)), (vec![offline], 1));
    let chunks = back.changes().iter().map(chunk).collect();
    server.hear(7, message(vec![offline], chunks).encode());
    let (refused, deleted) = told(server.said(7));
    assert_eq!((refused.len(), deleted), (2, 0));
    assert!(!server.is_committing());
    assert!(server.document.is_empty() && server.document.is_deleted());
    assert!(server.document.is_settled(highwater_core::document::ConnectionId(7)));
}

#[test]
fn deleting_again_appends_only_what_goes_with_it() {
    let (mut server, _first, _second) = two_agreed();
    let answer = || Record::Answer { key: [1; 32], request: [2; 32], answer: Bytes::new() };
    server.document.delete(vec![answer()]);
    server.document.delete(vec![]);
    server.document.delete(vec![answer()]);
    server.poll();
    server.commit();
    let rest = &server.durable[1..];
    assert_eq!(rest, [Record::Tombstone, answer(), answer()]);
    assert_eq!(told(server.said(1)), (vec![], 1));
}
