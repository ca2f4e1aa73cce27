//! What stock clients rely on, one fact a test.

mod scene;

use automerge::sync::{Message as StockMessage, MessageFlags, State};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;
use highwater_core::ChangeHash;
use highwater_core::document::{ConnectionId, Outgoing};
use highwater_core::limits::{CHANGE_BYTES_MAX, SEND_CHANGES_BYTES_MAX, UNANSWERED_CHANGES_MAX};
use highwater_core::sync::{BloomFilter, Flags, Have, Message, Version};
use highwater_core::wire::RemoteHeads;

use scene::{Client, Server, carried, chunk, info, settle, storage};

/// A server and a client that agree on a first change.
fn agreed() -> (Server, Client) {
    let mut server = Server::new();
    let mut client = Client::join(&mut server, 1);
    client.edit(0);
    settle(&mut server, &mut [&mut client]);
    (server, client)
}

/// Two clients that agree with the server.
fn two_agreed() -> (Server, Client, Client) {
    let (mut server, mut first) = agreed();
    let mut second = Client::join(&mut server, 2);
    settle(&mut server, &mut [&mut first, &mut second]);
    (server, first, second)
}

fn message(heads: Vec<ChangeHash>, chunks: Vec<Bytes>) -> Message {
    let have = Vec::new();
    Message { version: Version::V1, heads, need: vec![], have, chunks, flags: Some(Flags::default()) }
}

#[test]
fn the_first_change_is_acknowledged_after_two_round_trips() {
    let mut server = Server::new();
    let mut client = Client::join(&mut server, 1);
    client.edit(1);

    assert!(client.speak(&mut server));
    let first = server.sync(1);
    assert_eq!((first.heads.len(), first.have.len(), first.need.clone()), (0, 1, client.heads()));
    client.take(&first);

    assert!(client.speak(&mut server));
    assert!(server.is_committing());
    assert!(server.syncs(1).is_empty(), "nothing is said before the commit");
    server.commit();
    assert_eq!(server.sync(1).heads, client.heads());
}

#[test]
fn a_reader_is_sent_a_change_only_after_the_commit() {
    let (mut server, mut writer, mut reader) = two_agreed();
    let change = writer.edit(1);
    assert!(writer.speak(&mut server));
    assert!(server.is_committing() && server.syncs(2).is_empty());
    server.commit();
    let message = server.sync(2);
    assert_eq!(carried(&message), [change]);
    reader.take(&message);
    assert_eq!(reader.heads(), writer.heads());
}

#[test]
fn what_happens_while_a_reader_is_behind_is_one_message() {
    let (mut server, mut writer, mut reader) = two_agreed();
    let slow = ConnectionId(2);
    server.behind.insert(slow);
    let changes: Vec<ChangeHash> = (1..=100)
        .map(|value| {
            let change = writer.edit(value);
            settle(&mut server, &mut [&mut writer]);
            change
        })
        .collect();
    assert!(server.syncs(2).is_empty());
    // The driver notes whom to wait for each time: once is enough, however much happens.
    assert_eq!(server.found_behind, 1);
    server.behind.remove(&slow);
    server.document.handle_ready(slow);
    server.poll();
    let message = server.sync(2);
    assert_eq!(carried(&message), changes);
    reader.take(&message);
    assert_eq!(reader.heads(), writer.heads());
    // Ready again without anything to say.
    server.document.handle_ready(slow);
    server.poll();
    assert!(server.syncs(2).is_empty());
}

#[test]
fn an_own_change_is_acknowledged_among_the_edits_of_others() {
    let (mut server, mut client, mut other) = two_agreed();
    let own = client.edit(1);
    client.speak(&mut server);
    for value in 0..10 {
        other.edit(value);
        other.speak(&mut server);
        // The heads are never the client's own, but they cover its change as soon as it is durable.
        server.commit_one();
        let messages = server.syncs(1);
        messages.iter().for_each(|message| client.take(message));
        let last = messages.last().expect("every commit is told");
        assert!(client.is_covered(own, &last.heads));
        other.listen(&mut server);
    }
}

#[test]
fn a_message_is_always_answered_even_if_nothing_moved() {
    let (mut server, mut client) = agreed();
    let mut newcomer = Client::join(&mut server, 2);
    newcomer.doc = client.doc.fork().with_actor(ActorId::from([2]));
    newcomer.speak(&mut server);
    assert_eq!(server.sync(2).heads, client.heads(), "the acknowledgement of a newcomer that lacks nothing");
}

#[test]
fn a_peer_that_asks_for_a_reset_is_sent_everything_again() {
    for (flags, expected) in [(Flags::default(), 0), (Flags::SYNC_RESET, 2)] {
        let (mut server, mut first, second) = two_agreed();
        let heads = server.heads();
        first.edit(1);
        first.edit(2);
        settle(&mut server, &mut [&mut first]);
        assert_eq!(carried(&server.sync(second.connection)).len(), 2);
        let have = Have { last_sync: heads.clone(), bloom: BloomFilter::default() };
        let again = Message { have: vec![have], flags: Some(flags), ..message(heads, vec![]) };
        server.hear(2, again.encode());
        let resent: usize = server.syncs(2).iter().map(|message| carried(message).len()).sum();
        assert_eq!(resent, expected);
    }
}

#[test]
fn a_peer_that_lost_everything_gets_everything_again() {
    let (mut server, mut first, mut second) = two_agreed();
    first.edit(1);
    settle(&mut server, &mut [&mut first, &mut second]);
    second.doc = AutoCommit::new();
    second.state = State::new();
    settle(&mut server, &mut [&mut first, &mut second]);
    assert_eq!(second.heads(), first.heads());
}

#[test]
fn a_server_that_lost_changes_gets_them_back() {
    let (server, mut client) = agreed();
    let mut restored = server.after_power_cut();
    restored.attach(1, info("peer-1"));
    client.edit(1);
    client.state = State::decode(&client.state.encode()).unwrap();
    settle(&mut restored, &mut [&mut client]);

    // An older backup; the client has written down that the server has more.
    let mut empty = Server::new();
    empty.attach(1, info("peer-1"));
    client.state = State::decode(&client.state.encode()).unwrap();
    assert_eq!(client.state.shared_heads.clone(), client.heads());
    settle(&mut empty, &mut [&mut client]);
    assert_eq!(empty.heads(), client.heads());
}

#[test]
fn a_reader_that_counts_on_unknown_changes_still_gets_what_there_is() {
    let (mut server, mut writer) = agreed();
    writer.edit(1);
    settle(&mut server, &mut [&mut writer]);
    // It agreed with another server on a change that this one will never take from it.
    let mut reader = Client::join(&mut server, 2);
    server.attach(2, highwater_core::document::PeerInfo { may_write: false, ..info("reader") });
    let own = reader.edit(7);
    reader.state.shared_heads = vec![own];
    settle(&mut server, &mut [&mut writer, &mut reader]);
    for head in server.heads() {
        assert!(reader.doc.get_change_by_hash(&head).is_some());
    }
    assert!(!server.document.contains(&own));
}

#[test]
fn a_change_that_is_being_committed_is_neither_asked_for_nor_named() {
    let (mut server, mut first, mut second) = two_agreed();
    let change = first.edit(1);
    second.doc.merge(&mut first.doc).unwrap();
    first.speak(&mut server);
    assert!(server.is_committing());
    second.state = State::new();
    server.attach(2, info("peer-2"));
    second.speak(&mut server);
    let message = server.sync(2);
    assert!(message.need.is_empty() && !message.heads.contains(&change));
    for have in &message.have {
        assert!(!have.last_sync.contains(&change) && !have.bloom.may_contain(&change));
    }
}

#[test]
fn who_sends_on_and_on_is_answered_in_between_and_what_waits_shares_a_commit() {
    let (mut server, mut first, _) = two_agreed();
    let sent: Vec<_> = (0..4)
        .map(|value| {
            let change = first.edit(value);
            first.speak(&mut server);
            change
        })
        .collect();
    // The first is on its way; the others wait, and go together.
    assert!(server.commit_one());
    let answer = server.syncs(1).pop().expect("an answer, although more is on its way");
    assert_eq!(answer.heads, [sent[0]]);
    assert!(server.commit_one());
    let answer = server.syncs(1).pop().expect("an answer");
    assert_eq!(answer.heads, [sent[3]]);
    assert!(!server.is_committing());
}

#[test]
fn a_change_that_is_being_committed_is_not_common_ground_either() {
    let (mut server, mut first, mut second) = two_agreed();
    // The second lacks a change, and takes none, so that it is told what both have.
    let missing = first.edit(1);
    settle(&mut server, &mut [&mut first]);
    let own = second.edit(2);
    second.speak(&mut server);
    assert!(server.is_committing());
    server.attach(2, info("peer-2"));
    second.state = State::new_read_only();
    second.speak(&mut server);
    let message = server.syncs(2).pop().expect("an answer");
    assert_eq!(message.heads, [missing]);
    assert!(message.have.iter().all(|have| !have.last_sync.contains(&own)));
}

#[test]
fn what_a_peer_named_before_the_commit_is_not_sent_to_it_after() {
    let (mut server, mut first, mut second) = two_agreed();
    first.edit(1);
    second.doc.merge(&mut first.doc).unwrap();
    first.speak(&mut server);
    second.speak(&mut server);
    server.commit();
    let messages = server.syncs(2);
    assert!(messages.iter().all(|message| message.chunks.is_empty()), "{messages:#?}");
    assert_eq!(messages.last().expect("the acknowledgement").heads, second.heads());
}

#[test]
fn an_orphan_is_stored_but_not_acknowledged_until_its_dependency_arrives() {
    let mut server = Server::new();
    let mut author = Client::join(&mut server, 1);
    let (dependency, orphan) = (author.edit(1), author.edit(2));
    let changes = author.changes();

    server.hear(1, message(vec![orphan], vec![chunk(&changes[1])]).encode());
    server.commit();
    let answer = server.sync(1);
    assert_eq!((answer.heads.len(), answer.need), (0, vec![dependency]));
    assert_eq!(server.document.orphan_count(), 1);

    // It was stored: after a power cut only the dependency is asked for.
    let mut server = server.after_power_cut();
    assert!(server.document.is_empty());
    server.attach(1, info("peer-1"));
    server.hear(1, message(vec![orphan], vec![]).encode());
    assert_eq!(server.sync(1).need, [dependency]);
    server.hear(1, message(vec![orphan], vec![chunk(&changes[0])]).encode());
    assert!(server.syncs(1).is_empty());
    server.commit();
    assert_eq!(server.sync(1).heads, [orphan]);
    assert_eq!(server.after_power_cut().heads(), [orphan]);
}

#[test]
fn the_dependencies_of_an_orphan_come_all_at_once() {
    let mut server = Server::new();
    let mut author = Client::join(&mut server, 1);
    for value in 0..50 {
        author.edit(value);
    }
    let last = author.changes().pop().unwrap();
    server.hear(1, message(author.heads(), vec![chunk(&last)]).encode());
    server.commit();
    assert_eq!(server.document.orphan_count(), 1);
    let messages = settle(&mut server, &mut [&mut author]);
    assert_eq!(server.heads(), author.heads());
    assert!(messages <= 6, "{messages}");
}

#[test]
fn a_peer_that_hides_its_heads_is_answered_although_nobody_seems_to_have_anything() {
    let mut server = Server::new();
    let mut client = Client::join(&mut server, 1);
    client.speak(&mut server);
    client.listen(&mut server);
    // It opens the document anew, only to publish; and changes its mind before it hears that the server understands a reset.
    client.state = State::new_read_only();
    client.speak(&mut server);
    client.edit(1);
    client.state.set_read_only(false);
    let hidden = client.message().unwrap();
    assert!(hidden.heads.is_empty());
    server.hear(1, hidden.encode().into());
    settle(&mut server, &mut [&mut client]);
    assert_eq!(server.heads(), client.heads());
}

#[test]
fn a_silent_peer_is_not_sent_more_than_the_limit_and_gets_the_rest_when_it_answers() {
    const BATCH: usize = 200;
    let (mut server, mut writer, mut silent) = two_agreed();
    let mut sent = Vec::new();
    for _ in 0..(2 * UNANSWERED_CHANGES_MAX).div_ceil(BATCH) {
        for value in 0..BATCH as i64 {
            writer.edit(value);
        }
        settle(&mut server, &mut [&mut writer]);
        sent.extend(server.syncs(2));
    }
    let changes: usize = sent.iter().map(|message| carried(message).len()).sum();
    assert!(changes >= UNANSWERED_CHANGES_MAX);
    assert!(changes < UNANSWERED_CHANGES_MAX + BATCH, "{changes}");
    sent.iter().for_each(|message| silent.take(message));
    settle(&mut server, &mut [&mut writer, &mut silent]);
    assert_eq!(silent.heads(), server.heads());
}

#[test]
fn a_large_document_goes_out_in_several_messages() {
    const CHANGE: usize = 5 << 20;
    let (mut server, mut writer) = agreed();
    for byte in 0..5u8 {
        writer.doc.put(ROOT, "blob", vec![byte; CHANGE]).unwrap();
        writer.doc.commit();
    }
    settle(&mut server, &mut [&mut writer]);
    let mut reader = Client::join(&mut server, 2);
    let mut messages = Vec::new();
    while reader.speak(&mut server) {
        for message in server.syncs(2) {
            reader.take(&message);
            messages.push(message);
        }
    }
    assert_eq!(reader.heads(), server.heads());
    let sizes = messages.iter().map(|message| message.chunks.iter().map(Bytes::len).sum::<usize>());
    assert!(sizes.clone().filter(|size| *size > 0).count() > 1);
    assert!(sizes.max().unwrap() < SEND_CHANGES_BYTES_MAX + CHANGE_BYTES_MAX);
}

#[test]
fn the_same_message_again_and_again_is_not_answered_for_ever() {
    let (mut server, mut client) = agreed();
    client.state = State::new();
    server.attach(1, info("peer-1"));
    // It claims heads that it never sends.
    let stuck = message(vec![ChangeHash([9; 32])], vec![]).encode();
    let mut answers = 0;
    for _ in 0..100 {
        server.hear(1, stuck.clone());
        answers += server.syncs(1).len();
    }
    assert!((1..=2).contains(&answers), "{answers}");
}

#[test]
fn a_peer_that_turned_read_only_can_still_upload() {
    let (mut server, mut first, mut second) = two_agreed();
    first.edit(1);
    settle(&mut server, &mut [&mut first]);
    // The change is on its way when the other stops taking changes.
    let on_its_way = server.sync(2);
    second.state.set_read_only(true);
    second.take(&on_its_way);
    let own = second.edit(2);
    settle(&mut server, &mut [&mut first, &mut second]);
    assert!(server.document.contains(&own));

    second.state.set_read_only(false);
    settle(&mut server, &mut [&mut first, &mut second]);
    assert_eq!((second.heads(), first.heads()), (server.heads(), server.heads()));
}

#[test]
fn a_read_only_peer_is_sent_no_changes_and_everything_once_it_takes_them() {
    let (mut server, mut first) = agreed();
    let mut mirror = Client::join(&mut server, 2);
    mirror.state = State::new_read_only();
    mirror.speak(&mut server);
    let messages = server.syncs(2);
    assert!(!messages.is_empty() && messages.iter().all(|message| message.chunks.is_empty()));
    messages.iter().for_each(|message| mirror.take(message));
    mirror.state.set_read_only(false);
    settle(&mut server, &mut [&mut first, &mut mirror]);
    assert_eq!(mirror.heads(), server.heads());
}

#[test]
fn a_peer_that_may_not_write_is_told_so_and_its_changes_are_not_taken() {
    let (mut server, mut writer) = agreed();
    let mut reader = Client::join(&mut server, 2);
    server.attach(2, highwater_core::document::PeerInfo { may_write: false, ..info("reader") });
    let refused = reader.edit(5);
    reader.speak(&mut server);
    let told = server.sync(2);
    assert!(told.flags.is_some_and(|flags| flags.contains(Flags::READ_ONLY)) && told.need.is_empty());
    reader.take(&told);
    // An old client does not understand, and sends all the same.
    server.hear(2, message(vec![refused], vec![chunk(&reader.changes()[0])]).encode());
    assert!(!server.is_committing());
    settle(&mut server, &mut [&mut writer, &mut reader]);
    assert!(!server.document.contains(&refused));
    assert!(reader.doc.get_change_by_hash(&server.heads()[0]).is_some());
}

#[test]
fn version_2_is_spoken_only_to_peers_that_showed_it() {
    let (mut server, mut client) = agreed();
    client.edit(1);
    settle(&mut server, &mut [&mut client]);
    for (flags, version) in [(None, Version::V1), (Some(Flags::default()), Version::V2)] {
        server.attach(2, info("peer-2"));
        let have = vec![Have::default()];
        server.hear(2, Message { have, flags, ..message(vec![], vec![]) }.encode());
        let answer = server.sync(2);
        assert_eq!(answer.version, version);
        assert_eq!(carried(&answer).len(), 2);
    }
}

#[test]
fn changes_in_every_form_of_chunk_are_taken() {
    let mut author = AutoCommit::new().with_actor(ActorId::from([1]));
    for value in 0..4 {
        author.put(ROOT, "key", "long and dull ".repeat(30 + value)).unwrap();
        author.commit();
    }
    let heads = author.get_heads();
    let mut changes = author.get_changes(&[]);
    let hashes: Vec<_> = changes.iter().map(automerge::Change::hash).collect();
    let plain: Vec<Bytes> = changes.iter().map(chunk).collect();
    let compressed: Vec<Bytes> = changes.iter_mut().map(|c| c.bytes().into_owned().into()).collect();
    let bundle = author.bundle(hashes).unwrap();
    let forms: [(Version, Vec<Bytes>); 5] = [
        (Version::V1, plain.clone()),
        (Version::V1, compressed),
        (Version::V2, vec![plain.concat().into()]),
        (Version::V2, vec![author.save().into()]),
        (Version::V2, vec![Bytes::copy_from_slice(bundle.bytes())]),
    ];
    for (version, chunks) in forms {
        let mut server = Server::new();
        server.attach(1, info("peer-1"));
        server.hear(1, Message { version, ..message(heads.clone(), chunks) }.encode());
        server.commit();
        assert_eq!(server.sync(1).heads, heads);
    }
}

#[test]
fn a_need_for_what_is_not_there_is_answered_without_harm() {
    let (mut server, client) = agreed();
    let need = vec![ChangeHash([9; 32])];
    server.hear(1, Message { need, ..message(server.heads(), vec![]) }.encode());
    assert!(server.syncs(client.connection).iter().all(|message| message.chunks.is_empty()));
}

/// A `request` as stock clients send it: a sync message without heads.
fn request(server: &mut Server, client: &mut Client) {
    let message = client.message().expect("the first message");
    server.try_hear(client.connection, message.encode().into(), true).unwrap();
}

fn unavailable(server: &mut Server, connection: u64) -> usize {
    server.said(connection).iter().filter(|outgoing| **outgoing == Outgoing::Unavailable).count()
}

#[test]
fn everybody_who_asks_for_a_missing_document_is_told_and_gets_it_once_it_is_there() {
    let mut server = Server::new();
    let (mut first, mut second) = (Client::join(&mut server, 1), Client::join(&mut server, 2));
    request(&mut server, &mut first);
    request(&mut server, &mut second);
    for client in [1, 2] {
        let said = server.said(client);
        assert!(matches!(&said[..], [Outgoing::Sync(sync), Outgoing::Unavailable] if sync.heads.is_empty()));
    }
    let mut author = Client::join(&mut server, 3);
    author.edit(1);
    settle(&mut server, &mut [&mut author, &mut first, &mut second]);
    assert_eq!((first.heads(), second.heads()), (author.heads(), author.heads()));
}

#[test]
fn a_document_that_is_being_uploaded_is_not_called_unavailable() {
    let mut server = Server::new();
    let (mut author, mut asker) = (Client::join(&mut server, 1), Client::join(&mut server, 2));
    author.edit(1);
    author.speak(&mut server);
    request(&mut server, &mut asker);
    assert_eq!(unavailable(&mut server, 2), 0, "it was announced");
    author.listen(&mut server);
    author.speak(&mut server);
    assert!(server.is_committing());
    assert_eq!(unavailable(&mut server, 2), 0, "it is being committed");
    server.commit();
    assert_eq!(carried(&server.sync(2)).len(), 1);
}

#[test]
fn who_asks_is_told_when_the_upload_never_comes() {
    let mut server = Server::new();
    let (mut author, mut asker) = (Client::join(&mut server, 1), Client::join(&mut server, 2));
    author.edit(1);
    author.speak(&mut server);
    request(&mut server, &mut asker);
    assert_eq!(unavailable(&mut server, 2), 0);
    server.detach(1);
    assert_eq!(unavailable(&mut server, 2), 1);
}

#[test]
fn a_second_change_with_one_number_is_quarantined_and_everybody_else_goes_on() {
    let (mut server, mut first, mut second) = two_agreed();
    let mut twin = Client::join(&mut server, 3);
    twin.doc = first.doc.fork().with_actor(ActorId::from([1]));
    let accepted = first.edit(1);
    let refused = twin.edit(2);
    settle(&mut server, &mut [&mut first, &mut second]);
    server.hear(3, message(vec![refused], vec![chunk(twin.changes().last().unwrap())]).encode());
    server.commit();
    let said = server.said(3);
    let named = |outgoing: &Outgoing| matches!(outgoing, Outgoing::Rejected(all) if all[0].hash == refused);
    assert_eq!(said.iter().filter(|outgoing| named(outgoing)).count(), 1);
    assert!(server.document.contains(&accepted) && !server.document.contains(&refused));

    first.edit(3);
    settle(&mut server, &mut [&mut first, &mut second]);
    assert_eq!(second.heads(), first.heads());
    // It is remembered, with its bytes.
    let server = server.after_power_cut();
    assert_eq!(server.document.rejected().map(|(hash, _)| *hash).collect::<Vec<_>>(), [refused]);
    assert_eq!(server.heads(), first.heads());
}

#[test]
fn what_arrived_is_stored_although_its_sender_is_gone() {
    let (mut server, mut client) = agreed();
    let first = client.edit(1);
    client.speak(&mut server);
    // It does not wait for the answer, and the connection breaks before the first commit.
    let second = client.edit(2);
    client.speak(&mut server);
    server.detach(1);
    assert!(!server.document.is_idle());
    server.commit();
    assert!(server.document.contains(&first) && server.document.contains(&second));
    assert!(server.document.is_idle());
}

#[test]
fn an_upload_is_stored_although_its_sender_is_gone() {
    let mut server = Server::new();
    server.holds_uploads = true;
    let mut client = Client::join(&mut server, 1);
    client.edit(1);
    client.speak(&mut server);
    client.listen(&mut server);
    client.speak(&mut server);
    server.detach(1);
    assert!(!server.document.is_idle());
    server.finish_upload();
    server.commit();
    assert_eq!(server.heads(), client.heads());
}

#[test]
fn two_uploads_on_one_connection_that_joined_twice_are_told_apart() {
    let mut server = Server::new();
    server.holds_uploads = true;
    let mut heads = Vec::new();
    for (actor, peer) in [(1, "tab-1"), (2, "tab-2")] {
        let mut doc = AutoCommit::new().with_actor(ActorId::from([actor]));
        doc.put(ROOT, "key", "value").unwrap();
        heads.extend(doc.get_heads());
        server.attach(1, info(peer));
        let upload = Message { version: Version::V2, ..message(doc.get_heads(), vec![doc.save().into()]) };
        server.hear(1, upload.encode());
    }
    server.finish_upload();
    server.finish_upload();
    server.commit();
    heads.sort_unstable();
    assert_eq!(server.heads(), heads);
    assert_eq!(server.syncs(1).last().unwrap().heads, heads);
}

#[test]
fn the_heads_of_other_storages_are_passed_on_only_when_they_are_durable() {
    let (mut server, mut writer) = agreed();
    let subscriptions = std::sync::Arc::new([storage("laptop")].into());
    server.attach(2, highwater_core::document::PeerInfo { subscriptions, ..info("follower") });
    let change = writer.edit(1);
    let entry = RemoteHeads { storage: storage("laptop"), heads: vec![change], timestamp: 1.0 };
    server.document.set_time(1.0);
    server.document.handle_remote_heads(ConnectionId(1), vec![entry.clone()]);
    server.poll();
    assert!(server.said(2).is_empty());
    writer.speak(&mut server);
    assert!(server.is_committing() && server.said(2).is_empty());
    server.commit();
    assert!(server.said(2).contains(&Outgoing::RemoteHeads(vec![entry])));
}

#[test]
fn a_stock_reset_is_not_answered_for_ever() {
    let (mut server, mut client) = agreed();
    client.edit(1);
    settle(&mut server, &mut [&mut client]);
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    // What a stock peer says, every time, that cannot apply what it is sent.
    let reset = StockMessage {
        heads: vec![ChangeHash([9; 32])],
        need: vec![],
        have: vec![automerge::sync::Have::default()],
        changes: automerge::sync::ChunkList::empty(),
        flags: Some(flags),
        version: automerge::sync::MessageVersion::V1,
    };
    let mut changes = 0;
    for _ in 0..100 {
        server.hear(1, reset.clone().encode().into());
        changes += server.syncs(1).iter().map(|message| carried(message).len()).sum::<usize>();
    }
    assert!(changes <= 4, "{changes}");
}
