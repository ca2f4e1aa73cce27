//! What the server goes on lacking, or saying nothing of, on a connection that lives.

use highwater_core::wire::Body;

use super::*;
use crate::limits::REPEAT_BYTES_MAX;
use crate::{SaveState, UnsavedReason};

/// A change that cannot be compressed.
fn set_noise(document: &Document, bytes: usize, random: &mut Random) -> ChangeHash {
    let noise: Vec<u8> = (0..bytes / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    document.change(|tx| tx.put(ROOT, "noise", noise)).unwrap().unwrap()
}

#[test]
fn a_message_that_was_lost_on_the_servers_side_is_made_good() {
    run(async {
        for is_extended in [true, false] {
            let server = FakeServer::new();
            server.lock().is_extended = is_extended;
            let (client, line, document) = client_with_saved_document(&server).await;
            server.lock().loses = |_| true;
            let hashes = [set(&document, "n", 2), set(&document, "n", 3)];
            pass(1000).await;
            server.lock().loses = |_| false;
            client.close(5 * SECOND).await.unwrap();
            assert!(hashes.iter().all(|hash| server.has(document.id(), *hash)));
            assert_eq!(line.dials(), 1);
        }
    });
}

#[test]
fn an_acknowledgement_that_was_lost_is_asked_for() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        server.lock().withholds = |body| matches!(body, Body::Sync { .. });
        let hash = set(&document, "n", 2);
        pass(1000).await;
        assert!(server.has(document.id(), hash));
        assert_eq!(document.save_status().state, SaveState::Saving);
        client.close(10 * SECOND).await.unwrap();
        assert_eq!(line.dials(), 1);
    });
}

#[test]
fn what_a_document_owes_is_saved_also_if_automerge_has_failed_on_it() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        let hashes: Vec<_> = (2..5).map(|n| set(&document, "n", n)).collect();
        let entry = client.inner_shared().entry(document.id()).unwrap();
        entry.lock().break_down("the test says so".to_owned());
        assert!(document.read(|_| ()).is_err());
        line.mend();
        server.edit(document.id(), 7);
        client.close(60 * SECOND).await.unwrap();
        assert!(hashes.iter().all(|hash| server.has(document.id(), *hash)));
    });
}

#[test]
fn a_server_that_takes_nothing_is_told_ever_more_seldom_and_never_much_at_once() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        server.lock().loses = |_| true;
        let mut random = Random::new(5);
        let hashes: Vec<_> = (0..5).map(|_| set_noise(&document, 400_000, &mut random)).collect();
        pass(4000).await;
        server.lock().brought.clear();
        pass(3_600_000).await;
        let brought = server.lock().brought.clone();
        assert!((10..40).contains(&brought.len()), "{}", brought.len());
        assert!(brought.iter().all(|size| *size <= REPEAT_BYTES_MAX + 1000), "{brought:?}");
        let error = client.close(SECOND).await.unwrap_err();
        assert_eq!((error.reason, &error.documents[0].hashes), (UnsavedReason::Timeout, &hashes));
        // But when somebody waits, not more seldom than at first.
        server.lock().loses = |_| false;
        client.close(16 * SECOND).await.unwrap();
    });
}

#[test]
fn what_is_more_than_may_be_sent_again_at_once_goes_one_part_after_the_other_and_a_large_change_alone() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        // All at once is too much for it.
        server.lock().loses = |message| message.changes.len() > 2;
        line.cut();
        let mut random = Random::new(5);
        for bytes in [400_000, 400_000, 400_000, 3_000_000, 400_000, 400_000] {
            set_noise(&document, bytes, &mut random);
        }
        line.mend();
        pass(30_000).await;
        client.close(60 * SECOND).await.unwrap();
        assert_eq!(server.lock().documents[&document.id()].get_heads(), document.heads());
    });
}

#[test]
fn somebody_who_types_without_pause_is_acknowledged_all_the_same() {
    run(async {
        let server = FakeServer::new();
        let (_client, _, document) = client_with_saved_document(&server).await;
        server.lock().brought.clear();
        let type_on = async {
            for n in 0..3000 {
                set(&document, "n", n);
                pass(10).await;
            }
        };
        type_on.await;
        document.wait_durable(SECOND).await.unwrap();
        let brought = server.lock().brought.len();
        assert!(brought <= 3000, "nothing is sent twice: {brought}");
    });
}

#[test]
fn what_builds_on_a_refused_change_is_offered_once_on_a_connection_so_that_the_server_can_name_it() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        let first = set_refused(&document, "n");
        document.wait_durable(SECOND).await.unwrap_err();
        line.cut();
        let after = set(&document, "n", 2);
        let second = set_refused(&document, "n");
        // What the sync protocol brings is lost; what is sent again is less than that.
        server.lock().loses = |message| message.changes.len() != 2 && !message.changes.is_empty();
        line.mend();
        pass(40_000).await;
        assert_eq!(line.dials(), 2);
        let error = client.close(3600 * SECOND).await.unwrap_err();
        assert_eq!(error.reason, UnsavedReason::Rejected);
        assert_eq!(error.documents[0].hashes, [first, after, second]);
        assert!(error.documents[0].rejected.iter().map(|one| one.hash).eq([first, second]), "{error:?}");
        pass(10_000).await;
        let frames = server.lock().frames;
        pass(3_600_000).await;
        assert_eq!(server.lock().frames, frames, "there is nothing more to say");
    });
}
