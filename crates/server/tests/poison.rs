//! Changes that would hurt others, each sent to a running server by an ordinary writer. Every one is refused by name, and whoever comes afterwards gets the
//! document, loads it and writes to it.

mod common;

use std::sync::Arc;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ScalarValue};
use bytes::Bytes;
use common::*;
use highwater_core::sync::{Flags, Message as SyncMessage, Version};
use highwater_core::wire::Body;
use highwater_forge::model::{action, hash};
use highwater_forge::{HandMade, Key, Op, OpId};
use highwater_server::{CheckChanges, Config};
use highwater_storage::MemoryStore;

const WRITER: u8 = 1;
const OTHER: u8 = 2;

/// The operations of the document that everybody has, in order.
const TEXT: u64 = 1;
const LETTER_A: u64 = 2;
const LETTER_B: u64 = 3;
const LIST: u64 = 5;
const COUNTER: u64 = 7;
const KEY: u64 = 8;
const TABLE: u64 = 9;
/// The first one that the writer adds after that.
const KEY_AGAIN: u64 = 11;
/// What the other one does at the same time.
const UNSEEN: u64 = 11;

/// A document that two actors changed at the same time: the chunks, and the change that the poison stands on.
fn document_of_two() -> (Vec<Bytes>, automerge::ChangeHash) {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([WRITER]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "abc").unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.insert(&list, 0, 1).unwrap();
    doc.put(ROOT, "counter", ScalarValue::counter(1)).unwrap();
    doc.put(ROOT, "key", "old").unwrap();
    doc.put_object(ROOT, "table", ObjType::Table).unwrap();
    doc.put(ROOT, "n", 2).unwrap();
    let base = doc.commit().unwrap();
    let mut other = doc.fork_at(&[base]).unwrap().with_actor(ActorId::from([OTHER]));
    doc.put(ROOT, "key", "new").unwrap();
    let head = doc.commit().unwrap();
    other.put(ROOT, "unseen", "something").unwrap();
    other.commit();
    doc.merge(&mut other).unwrap();
    let chunks =
        doc.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
    (chunks, head)
}

fn id(ctr: u64) -> OpId {
    OpId { ctr, actor: vec![WRITER] }
}

fn nobody() -> OpId {
    OpId { ctr: 3, actor: vec![77] }
}

fn op(object: u64, key: Key, act: u64) -> Op {
    let object = (object > 0).then(|| id(object));
    let value = if act == action::SET { (6, b"x".to_vec()) } else { (0, vec![]) };
    Op { object, key, action: act, value, ..Op::set("", "") }
}

fn insert(object: u64, behind: Key) -> Op {
    Op { insert: true, ..op(object, behind, action::SET) }
}

fn mark(behind: Key, name: Option<&str>) -> Op {
    let value = if name.is_some() { (2, vec![]) } else { (0, vec![]) };
    Op { action: action::MARK, mark_name: name.map(str::to_owned), value, ..insert(TEXT, behind) }
}

fn key(text: &str) -> Key {
    Key::Text(text.to_owned())
}

fn at(ctr: u64) -> Key {
    Key::Element(id(ctr))
}

type Case = (&'static str, Box<dyn Fn(&mut HandMade)>);

fn with(name: &'static str, ops: Vec<Op>) -> Case {
    (name, Box::new(move |change| change.ops = ops.clone()))
}

fn header_cases() -> Vec<Case> {
    vec![
        ("a sequence that skips", Box::new(|change| change.seq = 7)),
        ("operations that start too low", Box::new(|change| change.start_op = 1)),
        ("operations that start where those of an ancestor are", Box::new(|change| change.start_op -= 1)),
        ("operations that start far too high", Box::new(|change| change.start_op = 4_000_000_000)),
        ("a time that overflows differences", Box::new(|change| change.time = i64::MIN)),
        ("an actor that nobody names", Box::new(|change| change.unused_actors = vec![vec![50]])),
        (
            "nothing, after a gap",
            Box::new(|change| {
                change.ops.clear();
                change.start_op += 5;
            }),
        ),
        (
            "an author in the second change",
            Box::new(|change| {
                (change.actor, change.seq, change.extra) = (vec![WRITER], 3, vec![1, 1, 65]);
            }),
        ),
        (
            "somebody's next change, made without the one before",
            Box::new(|change| {
                (change.actor, change.seq) = (vec![OTHER], 2);
            }),
        ),
    ]
}

fn reference_cases() -> Vec<Case> {
    let unseen = OpId { ctr: UNSEEN, actor: vec![OTHER] };
    let del = |preds: Vec<OpId>| Op { preds, ..op(0, key("key"), action::DELETE) };
    vec![
        with("an object that does not exist", vec![Op { object: Some(nobody()), ..Op::set("a", "b") }]),
        with("an object that is a value", vec![op(KEY, key("a"), action::SET)]),
        with("an element that does not exist", vec![insert(TEXT, at(4000))]),
        with("an element of another object", vec![insert(LIST, at(LETTER_A))]),
        with("an element that is none", vec![insert(TEXT, at(TEXT))]),
        with("a predecessor that does not exist", vec![del(vec![nobody()])]),
        with(
            "a predecessor that the author had not seen",
            vec![Op { preds: vec![unseen], ..Op::set("unseen", "x") }],
        ),
        with("a predecessor under another key", vec![del(vec![id(COUNTER)])]),
        with(
            "a predecessor that comes later",
            vec![Op { preds: vec![OpId { ctr: 12, actor: vec![9] }], ..Op::set("a", "b") }],
        ),
        with("predecessors out of order", vec![del(vec![id(KEY_AGAIN), id(KEY)])]),
        with("a predecessor twice", vec![del(vec![id(KEY_AGAIN), id(KEY_AGAIN)])]),
    ]
}

fn kind_cases() -> Vec<Case> {
    let inc = |key_name: &str, pred: u64, value: (u8, Vec<u8>)| Op {
        preds: vec![id(pred)],
        value,
        ..op(0, key(key_name), action::INCREMENT)
    };
    vec![
        with("a key of a map in a text", vec![op(TEXT, key("a"), action::SET)]),
        with("an element of a text in a map", vec![insert(0, at(LETTER_A))]),
        with("a value in a table", vec![op(TABLE, key("a"), action::SET)]),
        with("an empty key", vec![op(0, key(""), action::SET)]),
        with("no key at all", vec![op(0, Key::Missing, action::SET)]),
        with("an action that there is not", vec![op(0, key("a"), 8)]),
        with(
            "an insertion that replaces",
            vec![Op { preds: vec![id(LETTER_A)], ..insert(TEXT, at(LETTER_A)) }],
        ),
        with("a deletion of nothing", vec![op(0, key("key"), action::DELETE)]),
        with(
            "a deletion with a value",
            vec![Op {
                value: (6, b"x".to_vec()),
                preds: vec![id(KEY_AGAIN)],
                ..op(0, key("key"), action::DELETE)
            }],
        ),
        with("an increment of a text", vec![inc("key", KEY_AGAIN, (4, vec![1]))]),
        with("an increment by a text", vec![inc("counter", COUNTER, (6, b"x".to_vec()))]),
        with("a new value for an element, in place of none", vec![op(TEXT, at(LETTER_A), action::SET)]),
        with("a name on what is no mark", vec![Op { mark_name: Some("bold".into()), ..Op::set("a", "b") }]),
        with("a direction on what is no mark", vec![Op { expand: true, ..Op::set("a", "b") }]),
        with(
            "a mark that ends before it begins",
            vec![mark(at(LETTER_B), Some("bold")), mark(at(LETTER_A), None)],
        ),
        with("a mark that does not end", vec![mark(at(LETTER_A), Some("bold"))]),
        with("a mark that does not begin", vec![mark(at(LETTER_A), None)]),
        with("a value that does not decode", vec![Op { value: (5, vec![0; 3]), ..Op::set("a", "b") }]),
        with("a number with a byte too many", vec![Op { value: (3, vec![0x81, 0x00]), ..Op::set("a", "b") }]),
    ]
}

fn chunks_message(document: highwater_core::DocumentId, sender: &str, chunks: Vec<Bytes>) -> Bytes {
    let flags = Some(Flags::default());
    let message =
        SyncMessage { version: Version::V2, heads: vec![], need: vec![], have: vec![], chunks, flags };
    common::message(sender, Body::Sync { document, data: message.encode() })
}

/// Sends one case to a document of its own, and lets somebody come afterwards.
async fn is_kept_from_others(server: &TestServer, poisoner: &mut Socket, n: u8, case: &Case) {
    let (name, edit) = case;
    let (chunks, head) = document_of_two();
    let id = document(n);
    let mut change = HandMade {
        deps: vec![head],
        actor: vec![9],
        seq: 1,
        start_op: 12,
        time: 0,
        message: vec![],
        ops: vec![Op::set("a", "b")],
        extra: vec![],
        unused_actors: vec![],
    };
    poisoner.send(chunks_message(id, "poisoner", chunks)).await;
    edit(&mut change);
    let poison = change.encode();
    poisoner.send(chunks_message(id, "poisoner", vec![poison.clone()])).await;
    loop {
        match poisoner.try_receive().await {
            Ok(Body::Rejected { changes, document }) if document == id => {
                assert_eq!(changes[0].hash, hash(&poison), "{name}");
                break;
            }
            Ok(_) => {}
            Err(close) => panic!("{name}: {close:?}"),
        }
    }
    let mut newcomer = Client::open(server, "newcomer", id).await;
    newcomer.until("n", 2).await;
    newcomer.edit("n", 7);
    newcomer.push().await;
    newcomer.acknowledged().await;
    let mut loaded = AutoCommit::load(&newcomer.doc.save()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(loaded.get_changes(&[]).len(), 4, "{name}: the document as it was, and the newcomer's change");
}

#[tokio::test]
async fn poison_is_refused_and_newcomers_are_well() {
    let server = TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await;
    let mut poisoner = server.join("poisoner").await;
    let cases: Vec<Case> = header_cases().into_iter().chain(reference_cases()).chain(kind_cases()).collect();
    for (n, case) in cases.iter().enumerate() {
        is_kept_from_others(&server, &mut poisoner, n as u8 + 1, case).await;
    }
}

#[tokio::test]
async fn what_stands_on_poison_is_not_passed_on() {
    let server = TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await;
    let (chunks, head) = document_of_two();
    let mut poison = HandMade::decode(&chunks[1]);
    (poison.deps, poison.actor, poison.seq, poison.start_op) = (vec![head], vec![9], 1, 3);
    let mut dependant = HandMade::decode(&chunks[1]);
    (dependant.deps, dependant.actor, dependant.seq, dependant.start_op) =
        (vec![poison.hash()], vec![10], 1, 40);
    dependant.ops = vec![Op::set("a", "b")];
    let mut poisoner = server.join("poisoner").await;
    // The dependant first: it waits, and goes on waiting.
    let all = chunks.into_iter().chain([dependant.encode(), poison.encode()]).collect();
    poisoner.send(chunks_message(document(1), "poisoner", all)).await;
    while !matches!(poisoner.receive().await, Body::Rejected { .. }) {}
    let mut newcomer = Client::open(&server, "newcomer", document(1)).await;
    newcomer.until("n", 2).await;
    assert_eq!(newcomer.doc.get_changes(&[]).len(), 3);
}

#[tokio::test]
async fn the_full_check_lets_ordinary_edits_pass() {
    let store = Arc::new(MemoryStore::new());
    let strict = || Config { check_changes: CheckChanges::Full, ..config() };
    let server = TestServer::start(strict(), always(store.clone())).await;
    let mut writer = Client::open(&server, "writer", document(1)).await;
    for n in 0..5 {
        writer.edit("n", n);
        writer.push().await;
    }
    let text = writer.doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    writer.doc.splice_text(&text, 0, 0, "some words").unwrap();
    let bold = Mark::new("bold".to_owned(), true, 2, 5);
    writer.doc.mark(&text, bold, ExpandMark::Both).unwrap();
    writer.edit("n", 9);
    writer.push().await;
    writer.acknowledged().await;
    server.stopped().await.unwrap();

    let server = TestServer::start(strict(), always(Arc::new(store.reopen()))).await;
    let mut reader = Client::open(&server, "reader", document(1)).await;
    reader.until("n", 9).await;
}

#[tokio::test]
async fn who_sends_poison_on_and_on_is_closed() {
    let server = TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await;
    let (chunks, head) = document_of_two();
    let poison = (0..1_000u64).map(|n| HandMade {
        deps: vec![head],
        actor: vec![9, (n / 256) as u8, n as u8],
        seq: 7,
        start_op: 12,
        time: 0,
        message: vec![],
        ops: vec![Op::set("a", "b")],
        extra: vec![],
        unused_actors: vec![],
    });
    let mut poisoner = server.join("poisoner").await;
    let all = chunks.into_iter().chain(poison.map(|change| change.encode())).collect();
    poisoner.send(chunks_message(document(1), "poisoner", all)).await;
    let (code, error) = poisoner.closed().await;
    assert_eq!((code, error.is_some()), (Some(4422), true));
    let mut newcomer = Client::open(&server, "newcomer", document(1)).await;
    newcomer.until("n", 2).await;
}
