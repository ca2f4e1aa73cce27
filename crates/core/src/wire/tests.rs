use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

fn document() -> DocumentId {
    DocumentId::from_bytes([7; 16])
}

fn bodies() -> Vec<Body> {
    let storage = StorageId::new("storage").unwrap();
    let hash = ChangeHash([9; 32]);
    let data = Bytes::from_static(b"\x42\x00");
    vec![
        Body::Join { metadata: PeerMetadata::default(), versions: vec!["1".into()] },
        Body::Peer {
            metadata: PeerMetadata {
                storage_id: Some(storage.clone()),
                is_ephemeral: true,
                extension: Some(EXTENSION_VERSION),
            },
            version: "1".into(),
        },
        Body::Error { message: "no".into() },
        Body::Request { document: document(), data: data.clone() },
        Body::Sync { document: document(), data: data.clone() },
        Body::DocUnavailable { document: document() },
        Body::Ephemeral(Ephemeral {
            document: document(),
            count: 1 << 40,
            session: SessionId::new("s").unwrap(),
            data,
        }),
        Body::RemoteSubscriptionChange { add: vec![storage.clone()], remove: vec![] },
        Body::RemoteHeadsChanged {
            document: document(),
            heads: vec![RemoteHeads { storage, heads: vec![hash], timestamp: 1.7e12 }],
        },
        Body::Leave,
        Body::Rejected { document: document(), changes: vec![Rejection { hash, reason: "why".into() }] },
        Body::Have { document: document(), query: 7, hashes: vec![hash] },
        Body::Durable {
            document: document(),
            query: 1 << 40,
            durable: vec![hash],
            missing: vec![hash, hash],
        },
        Body::Unknown { kind: "from-the-future".into() },
    ]
}

#[test]
fn every_message_round_trips() {
    for body in bodies() {
        let message = Message { sender: Some(peer("a")), target: Some(peer("b")), body };
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn a_sync_frame_is_the_same_however_it_is_written() {
    let data = Bytes::from_static(b"payload");
    let direct =
        encode_sync(&peer("a"), &peer("b"), &document().to_string(), data.len(), |out| out.extend(&data[..]));
    let body = Body::Sync { document: document(), data };
    assert_eq!(direct, Message { sender: Some(peer("a")), target: Some(peer("b")), body }.encode());
}

/// As `cbor-x` writes it: 16-bit map length, keys with `undefined`, numbers as floats.
#[test]
fn the_forms_of_stock_clients_are_read() {
    let mut frame = vec![0xb9, 0x00, 0x04];
    for (key, value) in [("type", "join"), ("senderId", "peer-x")] {
        text(&mut frame, key);
        text(&mut frame, value);
    }
    text(&mut frame, "peerMetadata");
    frame.extend([0xb9, 0x00, 0x02]);
    text(&mut frame, "storageId");
    frame.push(0xf7);
    text(&mut frame, "isEphemeral");
    frame.push(0xf5);
    text(&mut frame, "supportedProtocolVersions");
    frame.push(0xf7);
    let message = Message::decode(&frame.into()).unwrap();
    let metadata = PeerMetadata { is_ephemeral: true, ..PeerMetadata::default() };
    assert_eq!(message.body, Body::Join { metadata, versions: vec!["1".into()] });
}

/// As clients of automerge-repo 1.0 write it: an object is a record, with its keys where its shape comes first.
#[test]
fn records_are_read() {
    let join = "d9dfff8519e0008364747970656873656e64657249647819737570706f7274656450726f746f636f6c56657273696f6e73\
                646a6f696e6170816131";
    let message = Message::decode(&hex::decode(join).unwrap().into()).unwrap();
    assert_eq!(message.sender, Some(peer("p")));
    assert_eq!(message.body, Body::Join { metadata: PeerMetadata::default(), versions: vec!["1".into()] });
    // A record of a shape that was never shown, and one that has fewer values than keys.
    for damaged in ["d9e00081616a", "d9dfff8319e0008264747970656873656e6465724964646a6f696e"] {
        assert!(matches!(Message::decode(&hex::decode(damaged).unwrap().into()), Err(DecodeError::Cbor(_))));
    }
}

#[test]
fn a_document_id_of_bytes_and_data_with_tag_64_are_read() {
    let mut frame = vec![0xbf];
    for (key, value) in [("type", "sync"), ("senderId", "a")] {
        text(&mut frame, key);
        text(&mut frame, value);
    }
    text(&mut frame, "documentId");
    frame.push(0x50);
    frame.extend([7; 16]);
    text(&mut frame, "data");
    frame.extend([0xd8, 64, 0x41, 0x42, 0xff]);
    let message = Message::decode(&frame.into()).unwrap();
    assert_eq!(message.body, Body::Sync { document: document(), data: Bytes::from_static(b"\x42") });
}

#[test]
fn errors_name_the_field() {
    let body = Body::Sync { document: document(), data: Bytes::from_static(b"x") };
    let good = Message { sender: Some(peer("a")), target: None, body }.encode();
    let mut long = good.to_vec();
    long.push(0);
    assert_eq!(Message::decode(&long.into()), Err(DecodeError::TrailingBytes(1)));
    let lacks = Body::Error { message: String::new() };
    assert!(Message::decode(&Message { sender: None, target: None, body: lacks }.encode()).is_ok());
    let nobody = Message { sender: None, target: None, body: Body::Leave }.encode();
    assert_eq!(Message::decode(&nobody), Err(DecodeError::MissingField("senderId")));
    let empty = encode_sync(&peer("a"), &peer("b"), &document().to_string(), 0, |_| ());
    assert_eq!(Message::decode(&empty), Err(DecodeError::EmptyData));
}

fn text(frame: &mut Vec<u8>, text: &str) {
    frame.push(0x60 + u8::try_from(text.len().min(23)).unwrap());
    if text.len() > 23 {
        *frame.last_mut().unwrap() = 0x78;
        frame.push(u8::try_from(text.len()).unwrap());
    }
    frame.extend(text.as_bytes());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes.into());
    }

    #[test]
    fn damaged_messages_are_read_or_refused(which in 0usize..12, at in any::<prop::sample::Index>(), byte: u8) {
        let message = Message { sender: Some(peer("a")), target: Some(peer("b")), body: bodies().swap_remove(which) };
        let mut frame = message.encode().to_vec();
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = Message::decode(&frame.into());
    }
}
