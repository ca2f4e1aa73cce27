//! The fuzzers' corpus, and random changes of it, on the stable compiler.
//!
//! `HIGHWATER_SEED=n` chooses the changes, `HIGHWATER_FULL=1` makes many more, `HIGHWATER_WRITE_CORPUS=1` writes the corpus anew.

#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod fuzz;
#[path = "network/rng.rs"]
#[allow(dead_code)]
mod rng;
#[allow(dead_code)]
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use automerge::transaction::Transactable;
use automerge::{ActorId, ROOT};
use bytes::Bytes;
use highwater_core::sync::{Flags, Message as SyncMessage, Version};
use highwater_core::wire::{Body, Ephemeral, Message, PeerMetadata, RemoteHeads};
use highwater_core::{ChangeHash, DocumentId, PeerId, SessionId};

use rng::Rng;
use scene::{Client, Server, chunk, storage};

const DOCUMENT: DocumentId = DocumentId::from_bytes([3; 16]);

type Corpus = BTreeMap<String, Vec<u8>>;

fn frame(place: usize, body: Body) -> Bytes {
    let peer = |name: &str| Some(PeerId::new(name).unwrap());
    Message { sender: peer(&format!("peer-{place}")), target: peer("server"), body }.encode()
}

fn join(place: usize) -> Bytes {
    let metadata = PeerMetadata {
        storage_id: Some(storage(&format!("storage-{place}"))),
        is_ephemeral: false,
        extension: Some(1),
    };
    frame(place, Body::Join { metadata, versions: vec!["1".to_owned()] })
}

/// A script being written: what is said is heard by a server too, so that clients can answer it.
struct Tape {
    script: Vec<u8>,
    server: Server,
}

impl Tape {
    fn new() -> (Self, [Client; 2]) {
        let mut server = Server::new();
        let clients = [Client::join(&mut server, 0), Client::join(&mut server, 1)];
        let mut tape = Self { script: Vec::new(), server };
        (0..2).for_each(|place| tape.add(fuzz::FRAME + place, &join(usize::from(place))));
        (tape, clients)
    }

    fn add(&mut self, kind: u8, payload: &[u8]) {
        self.script.extend(fuzz::step(kind, payload));
    }

    fn say(&mut self, place: u64, data: Bytes) {
        let body = Body::Sync { document: DOCUMENT, data: data.clone() };
        self.add(fuzz::FRAME + place as u8, &frame(place as usize, body));
        self.server.hear(place, data);
    }

    fn commit(&mut self) {
        self.add(fuzz::UNPACK, &[]);
        self.add(fuzz::COMMIT, &[]);
        self.server.commit();
    }

    /// Everybody talks until there is nothing to say.
    fn talk(&mut self, clients: &mut [Client]) {
        for _ in 0..8 {
            for client in &mut *clients {
                client.listen(&mut self.server);
                if let Some(message) = client.message() {
                    self.say(client.connection, message.encode().into());
                }
            }
            self.commit();
        }
    }
}

fn message(heads: Vec<ChangeHash>, chunks: Vec<Bytes>) -> SyncMessage {
    let (need, have, flags) = (Vec::new(), Vec::new(), Some(Flags::default()));
    SyncMessage { version: Version::V2, heads, need, have, chunks, flags }
}

fn conversation() -> Vec<u8> {
    let (mut tape, mut clients) = Tape::new();
    for value in 0..3 {
        clients[0].edit(value);
        tape.talk(&mut clients);
        clients[1].edit(value);
    }
    tape.talk(&mut clients);
    tape.script
}

fn orphans_and_a_break() -> Vec<u8> {
    let (mut tape, mut clients) = Tape::new();
    (0..3).for_each(|value| assert_eq!(clients[0].edit(value).0.len(), 32));
    let changes = clients[0].changes();
    let heads = clients[0].heads();
    tape.say(0, message(heads.clone(), vec![chunk(&changes[2])]).encode());
    tape.add(fuzz::BREAK, &[]);
    tape.add(fuzz::FRAME, &join(0));
    tape.say(0, message(heads.clone(), vec![chunk(&changes[1])]).encode());
    tape.commit();
    tape.say(0, message(heads, vec![chunk(&changes[0])]).encode());
    tape.commit();
    tape.script
}

fn twins() -> Vec<u8> {
    let (mut tape, mut clients) = Tape::new();
    clients[1].doc.set_actor(ActorId::from([0]));
    let (first, second) = (clients[0].edit(1), clients[1].edit(2));
    let chunks = clients.each_mut().map(|client| chunk(&client.changes()[0]));
    let [one, other] = chunks;
    tape.say(0, message(vec![first], vec![one]).encode());
    tape.commit();
    tape.say(1, message(vec![second], vec![other]).encode());
    tape.commit();
    tape.script
}

fn every_kind_of_frame() -> Vec<(&'static str, Bytes)> {
    let data = Bytes::from_static(b"\x42\x00\x00\x00\x00");
    let ephemeral = Ephemeral {
        document: DOCUMENT,
        count: 3,
        session: SessionId::new("session").unwrap(),
        data: Bytes::from_static(&[0x82, 1, 2]),
    };
    let heads =
        vec![RemoteHeads { storage: storage("other"), heads: vec![ChangeHash([1; 32])], timestamp: 1.7e12 }];
    let add = vec![storage("other"), storage("storage-0")];
    vec![
        ("join", join(0)),
        ("sync", frame(0, Body::Sync { document: DOCUMENT, data: data.clone() })),
        ("request", frame(0, Body::Request { document: DOCUMENT, data })),
        ("ephemeral", frame(0, Body::Ephemeral(ephemeral))),
        ("subscription", frame(0, Body::RemoteSubscriptionChange { add, remove: vec![] })),
        ("remote-heads", frame(0, Body::RemoteHeadsChanged { document: DOCUMENT, heads })),
        ("unavailable", frame(0, Body::DocUnavailable { document: DOCUMENT })),
        ("leave", frame(0, Body::Leave)),
        // As a JavaScript encoder writes it: a map with a length of two bytes, and `undefined` for what is not there.
        ("join-from-javascript", Bytes::from_static(b"\xb9\x00\x03\x64type\x64join\x68senderId\x63tab\x6cpeerMetadata\xb9\x00\x02\x69storageId\xf7\x6bisEphemeral\xf5")),
    ]
}

fn wire_corpus() -> Corpus {
    let mut corpus: Corpus = every_kind_of_frame()
        .into_iter()
        .map(|(name, frame)| (format!("frame-{name}"), frame.to_vec()))
        .collect();
    let mut server = Server::new();
    let mut client = Client::join(&mut server, 0);
    client.doc.put(ROOT, "long", "long and dull ".repeat(40)).unwrap();
    client.edit(1);
    let first = client.message().unwrap().encode();
    corpus.insert("message-v1".into(), first.clone());
    server.hear(0, first.into());
    client.listen(&mut server);
    corpus.insert("message-v2".into(), client.message().unwrap().encode());
    let mut changes = client.changes();
    let bundle = client.doc.bundle(changes.iter().map(automerge::Change::hash).collect::<Vec<_>>()).unwrap();
    corpus.insert("chunk-change".into(), changes[0].raw_bytes().to_vec());
    corpus.insert("chunk-compressed".into(), changes[0].bytes().into_owned());
    corpus.insert("chunk-document".into(), client.doc.save());
    corpus.insert("chunk-bundle".into(), bundle.bytes().to_vec());
    corpus
}

fn session_corpus() -> Corpus {
    let all_kinds =
        every_kind_of_frame().into_iter().flat_map(|(_, frame)| fuzz::step(fuzz::FRAME, &frame)).collect();
    let scripts = [
        ("conversation", conversation()),
        ("orphans-and-a-break", orphans_and_a_break()),
        ("twins", twins()),
        ("every-kind-of-frame", all_kinds),
    ];
    scripts.into_iter().map(|(name, script)| (name.to_owned(), script)).collect()
}

/// A document, a change of it, and sometimes other bytes in some places.
fn gate_corpus() -> Corpus {
    let mut rng = Rng::new(11);
    let input = |n: u64| {
        let mut input = vec![n as u8 * 5];
        input.extend((0..8).map(|_| rng.below(256) as u8));
        input.extend((0..n % 3).flat_map(|_| [rng.below(90) as u8, 0, rng.below(256) as u8]));
        (format!("mutant-{n:02}"), input)
    };
    (0..24).map(input).collect()
}

/// A byte for the kind of body, and the body.
fn edit_corpus() -> Corpus {
    let patches = [
        (
            "values",
            r#"[{"op":"add","path":"/n","value":1.5},{"op":"replace","path":"/done","value":true},{"op":"remove","path":"/at"}]"#,
        ),
        (
            "lists",
            r#"[{"op":"add","path":"/tags/-","value":{"deep":[null,"x"]}},{"op":"move","from":"/tags/2/0","path":"/tags/0"},{"op":"copy","from":"/tags","path":"/more"}]"#,
        ),
        (
            "texts",
            r#"[{"op":"test","path":"/done","value":false},{"op":"splice","path":"/title","index":1,"delete":3,"insert":"é~0"},{"op":"splice","path":"/tags","index":0,"delete":1,"insert":[2]}]"#,
        ),
        (
            "counters",
            r#"[{"op":"increment","path":"/likes","by":-7},{"op":"increment","path":"/likes","by":9007199254740991}]"#,
        ),
        (
            "root",
            r#"[{"op":"replace","path":"","value":{"a~1/b":"c"}},{"op":"add","path":"/b","value":{"$bytes":"AP8="}}]"#,
        ),
    ];
    let merges = [
        (
            "nested",
            r#"{"title":"Grüße an alle 👋👋","tags":["b",["c","d"],"a"],"likes":null,"new":{"a":{"b":null,"c":1}}}"#,
        ),
        (
            "typed",
            r#"{"at":{"$date":"1969-12-31T23:59:59.999Z"},"map":{"$map":{"$counter":1}},"big":18446744073709551615}"#,
        ),
    ];
    let wholes = [
        ("other", r#"{"title":"Hello","tags":[["c"],"b"],"likes":{"$counter":5},"x":-0.0}"#),
        ("empty", "{}"),
    ];
    let kinds: [&[(&str, &str)]; 3] = [&patches, &merges, &wholes];
    let bodies = (0..).zip(kinds).flat_map(|(kind, bodies)| bodies.iter().map(move |body| (kind, body)));
    bodies
        .map(|(kind, (name, body))| (format!("{kind}-{name}"), [&[kind], body.as_bytes()].concat()))
        .collect()
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The committed corpus.
fn corpus(target: &str, made: impl FnOnce() -> Corpus) -> Corpus {
    let folder = folder(target);
    if std::env::var_os("HIGHWATER_WRITE_CORPUS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in made() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let entries = fs::read_dir(&folder).expect("the corpus is committed").map(|entry| entry.unwrap().path());
    let named =
        |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
    entries.map(named).collect()
}

/// The bytes with a few random changes, some of them parts of another input.
fn mutated(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, [0, 0x7f, 0x80, 0xff][rng.below(4)]),
            4 => drop(bytes.drain(at..(at + rng.below(40)).min(bytes.len()))),
            _ => {
                let from = rng.below(other.len() + 1);
                let part = &other[from..(from + rng.below(200)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
        }
    }
    bytes
}

/// Runs many random changes of a corpus; a panic is reported with what is needed to see it again.
fn mutate(target: &str, corpus: &Corpus, rounds: usize, run: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("HIGHWATER_SEED").unwrap_or(1);
    let rounds = if std::env::var_os("HIGHWATER_FULL").is_some() { 100 * rounds } else { rounds };
    let inputs: Vec<&Vec<u8>> = corpus.values().collect();
    let mut rng = Rng::new(seed);
    for round in 0..rounds {
        let (one, other) = (inputs[rng.below(inputs.len())], inputs[rng.below(inputs.len())]);
        let input = mutated(one, other, &mut rng);
        if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
            panic!("{target}, HIGHWATER_SEED={seed}, round {round}: {}", hex(&input));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_wire_corpus_reads_and_changes_of_it_do_no_harm() {
    let corpus = corpus("wire_decode", wire_corpus);
    for name in wire_corpus().keys() {
        assert!(fuzz::wire_decode(&corpus[name]), "{name} is read");
    }
    mutate("wire_decode", &corpus, 3_000, |input| {
        fuzz::wire_decode(input);
    });
}

#[test]
fn the_session_corpus_plays_and_changes_of_it_do_no_harm() {
    let corpus = corpus("session", session_corpus);
    for (name, changes) in [("conversation", 6), ("orphans-and-a-break", 3), ("twins", 1)] {
        let outcome = fuzz::session(&corpus[name]);
        assert_eq!(outcome.changes, changes, "{name}: {outcome:?}");
        assert!(outcome.frames > 3 && outcome.sent > 0, "{name}: {outcome:?}");
    }
    let outcome = fuzz::session(&corpus["every-kind-of-frame"]);
    assert_eq!(outcome.frames, every_kind_of_frame().len());
    mutate("session", &corpus, 3_000, |input| {
        fuzz::session(input);
    });
}

#[test]
fn the_gate_corpus_and_changes_of_it_do_no_harm() {
    let corpus = corpus("gate", gate_corpus);
    let let_in = corpus.values().filter(|input| fuzz::gate(input)).count();
    assert!(0 < let_in && let_in < corpus.len(), "{let_in} of {} are let in", corpus.len());
    mutate("gate", &corpus, 1_500, |input| {
        fuzz::gate(input);
    });
}

#[test]
fn the_edit_corpus_is_made_and_changes_of_it_do_no_harm() {
    let corpus = corpus("edit", edit_corpus);
    for (name, input) in &corpus {
        assert!(fuzz::edit(input), "{name}");
    }
    mutate("edit", &corpus, 1_500, |input| {
        fuzz::edit(input);
    });
}
