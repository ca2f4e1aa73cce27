use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutoCommit, ObjType, ROOT, ScalarValue};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A document with a bit of everything.
fn rich_document() -> AutoCommit {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    for round in 0..20 {
        doc.splice_text(&text, round, 0, "x").unwrap();
        doc.insert(&list, 0, i64::try_from(round).unwrap() - 10).unwrap();
        doc.put(ROOT, "counter", ScalarValue::counter(-5)).unwrap();
        doc.increment(ROOT, "counter", 300).unwrap();
        doc.put(ROOT, "bytes", ScalarValue::Bytes(vec![0; 40])).unwrap();
        if round % 3 == 0 {
            doc.delete(&list, 0).unwrap();
        }
        doc.commit_with(CommitOptions::default().with_message("round").with_time(-1));
    }
    doc.splice_text(&text, 0, 0, &"long ".repeat(200)).unwrap();
    doc.commit();
    doc
}

fn assert_same(ours: &[Change], stock: &[automerge::Change]) {
    assert_eq!(ours.len(), stock.len());
    for (ours, stock) in ours.iter().zip(stock) {
        assert_eq!(ours.hash, stock.hash());
        assert_eq!(ours.deps, stock.deps());
        assert_eq!(
            (ours.seq, ours.start_op, ours.max_op()),
            (stock.seq(), stock.start_op().get(), stock.max_op())
        );
    }
}

#[test]
fn changes_are_read_plain_compressed_and_from_documents() {
    let mut doc = rich_document();
    let mut stock = doc.get_changes(&[]);
    let plain: Vec<Bytes> = stock.iter().map(|c| Bytes::copy_from_slice(c.raw_bytes())).collect();
    assert_same(&unpack(&plain).unwrap(), &stock);
    assert_same(&unpack(&[plain.concat().into()]).unwrap(), &stock);
    let compressed: Vec<Bytes> = stock.iter_mut().map(|c| c.bytes().into_owned().into()).collect();
    assert!(compressed.iter().map(Bytes::len).sum::<usize>() < plain.iter().map(Bytes::len).sum());
    let read = unpack(&compressed).unwrap();
    assert_same(&read, &stock);
    assert_eq!(read.iter().map(|c| c.bytes.clone()).collect::<Vec<_>>(), compressed, "kept as received");
    assert_same(&unpack(&[doc.save().into()]).unwrap(), &stock);
    assert_same(&unpack(&[doc.save_nocompress().into()]).unwrap(), &stock);
    let bundle = doc.bundle(stock.iter().map(automerge::Change::hash).collect::<Vec<_>>()).unwrap();
    assert_same(&unpack(&[Bytes::copy_from_slice(bundle.bytes())]).unwrap(), &stock);
}

#[test]
fn cheap_is_a_few_plain_changes() {
    let mut doc = rich_document();
    let plain: Vec<Bytes> =
        doc.get_changes(&[]).iter().map(|c| Bytes::copy_from_slice(c.raw_bytes())).collect();
    assert!(is_cheap(&plain));
    assert!(!is_cheap(&[doc.save().into()]));
    assert!(!is_cheap(&vec![plain.concat().into(); 40]));
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut doc = rich_document();
    let mut bytes = doc.get_changes(&[])[0].raw_bytes().to_vec();
    bytes[5] ^= 1;
    assert_eq!(Change::parse(bytes.into()), Err(ChunkError::Checksum));
}

/// A change chunk with a right checksum around `data`.
fn change_chunk(data: &[u8]) -> Bytes {
    use sha2::{Digest, Sha256};
    let mut hashed = vec![1];
    crate::sync::message::write_leb128(&mut hashed, data.len() as u64);
    hashed.extend(data);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend(&Sha256::digest(&hashed)[..4]);
    chunk.extend(hashed);
    chunk.into()
}

#[test]
fn a_run_of_a_trillion_operations_is_refused_at_once() {
    // No dependencies, a one-byte actor, seq 1, start op 1, time 0, no message, no other actors; one column (actions), one run.
    let mut data = vec![0, 1, 7, 1, 1, 0, 0, 0, 1, 0x42, 7];
    data.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1]);
    let chunk = change_chunk(&data);
    assert!(matches!(Change::parse(chunk), Err(ChunkError::TooLarge { .. })));
}

#[test]
fn a_deflate_bomb_is_refused_before_it_unfolds() {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 40 << 20]).unwrap();
    let data = encoder.finish().unwrap();
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 1, 2, 3, 4, 2];
    crate::sync::message::write_leb128(&mut chunk, data.len() as u64);
    chunk.extend(data);
    assert!(matches!(Change::parse(chunk.into()), Err(ChunkError::TooLarge { what: "inflated data", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_changes_are_read_or_refused(which: prop::sample::Index, edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        thread_local!(static CHANGES: Vec<Vec<u8>> = {
            let mut doc = rich_document();
            doc.get_changes(&[]).iter().map(|c| c.raw_bytes().to_vec()).chain([doc.save()]).collect()
        });
        let mut bytes = CHANGES.with(|changes| changes[which.index(changes.len())].clone());
        for (at, byte) in edits {
            let at = 10 + at.index(bytes.len() - 10);
            bytes[at] = byte;
        }
        // With the checksum made right again, so that the damage is looked at.
        let data = Chunk::take(&mut Bytes::from(bytes)).map(|chunk| chunk.data);
        if let Ok(data) = data {
            let _ = unpack(&[change_chunk(&data)]);
        }
    }

    #[test]
    fn any_data_is_read_or_refused(data in vec(any::<u8>(), 0..200)) {
        let _ = unpack(&[change_chunk(&data)]);
        let _ = unpack(&[data.into()]);
    }
}

#[test]
fn what_the_changes_of_a_message_unpack_to_is_bounded_together() {
    let mut document = AutoCommit::new();
    document.put(ROOT, "text", "a".repeat(1 << 20)).unwrap();
    document.commit();
    let chunk = Bytes::copy_from_slice(&document.get_last_local_change().unwrap().clone().bytes());
    assert!(chunk.len() < 10_000, "it is not packed");
    assert_eq!(unpack_within(std::slice::from_ref(&chunk), 2 << 20).unwrap().len(), 1);
    let both = unpack_within(&[chunk.clone(), chunk], 2 << 20);
    assert!(matches!(both, Err(ChunkError::TooLarge { .. })), "{both:?}");
}

#[test]
fn a_client_checks_the_same_bounds_without_unpacking() {
    let mut document = AutoCommit::new();
    document.put(ROOT, "text", "a".repeat(1 << 20)).unwrap();
    document.commit();
    let change = Bytes::copy_from_slice(&document.get_last_local_change().unwrap().clone().bytes());
    let saved = Bytes::from(document.save());
    for chunk in [change, saved] {
        assert!(chunk.len() < 10_000, "it is not packed");
        assert_eq!(check_bounds_within(std::slice::from_ref(&chunk), 2 << 20), Ok(()));
        let many = check_bounds_within(&[chunk.clone(), chunk.clone()], 2 << 20);
        assert!(matches!(many, Err(ChunkError::TooLarge { .. })), "{many:?}");
        assert!(check_bounds(&[chunk.slice(..chunk.len() - 1)]).is_err());
    }
}
