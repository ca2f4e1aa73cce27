//! Save status, and waiting for documents.

use automerge::sync::{self as stock, SyncDoc};

use super::*;
use crate::{AskError, OpenError, SaveState, UnsavedReason};

#[test]
fn it_goes_from_not_saved_over_saving_to_saved_and_counts() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        assert_eq!(client.save_status().state, SaveState::Saved);
        line.cut();
        let document = client.create().unwrap();
        set(&document, "n", 1);
        set(&document, "n", 2);
        let status = document.save_status();
        assert_eq!((status.state, status.unsaved_changes), (SaveState::NotSaved, 2));
        assert!(status.unsaved_since.is_some());
        line.mend();
        assert!(client.connected(60 * SECOND).await);
        assert_eq!(document.save_status().state, SaveState::Saving);
        let saved = document.save_status_changed(&document.save_status()).await;
        assert_eq!((saved.state, saved.unsaved_changes, saved.unsaved_since), (SaveState::Saved, 0, None));
        assert_eq!(client.save_status(), saved);
    });
}

#[test]
fn it_is_saved_on_device_offline_once_the_outbox_has_it_and_not_saved_if_the_outbox_fails() {
    run(async {
        let server = FakeServer::new();
        let (line, outbox) = (server.line(), MemoryOutbox::default());
        let client = client_with(&line, &outbox).await;
        line.cut();
        outbox.set(|how| how.write_ms = 10);
        let document = client.create().unwrap();
        set(&document, "n", 1);
        assert_eq!(document.save_status().state, SaveState::NotSaved);
        let status = document.save_status_changed(&document.save_status()).await;
        assert_eq!((status.state, status.unsaved_changes), (SaveState::SavedOnDevice, 1));

        outbox.set(|how| how.fails = true);
        set(&document, "n", 2);
        pass(5000).await;
        assert_eq!(document.save_status().state, SaveState::NotSaved);
        let error = client.close(SECOND).await.unwrap_err();
        assert!(!error.documents[0].in_outbox);
        outbox.set(|how| how.fails = false);
        pass(2000).await;
        assert_eq!(document.save_status().state, SaveState::SavedOnDevice);
        assert!(client.close(SECOND).await.unwrap_err().documents[0].in_outbox);
    });
}

#[test]
fn it_is_right_while_somebody_else_edits_without_pause() {
    run(async {
        let server = FakeServer::new();
        let (client, _) = client(&server).await;
        let document = client.create().unwrap();
        set(&document, "n", 0);
        document.wait_durable(SECOND).await.unwrap();
        let others = async {
            for n in 0..2000 {
                server.edit(document.id(), n);
                pass(1).await;
            }
        };
        let own = async {
            for n in 1..50 {
                let hash = set(&document, "n", n);
                document.wait_durable(SECOND).await.unwrap();
                assert!(server.has(document.id(), hash));
            }
        };
        tokio::join!(others, own);
        client.flush(SECOND).await.unwrap();
        pass(100).await;
        assert_eq!(get(&document, "other"), Some(1999));
    });
}

#[test]
fn nothing_counts_as_durable_any_more_if_another_server_answers() {
    run(async {
        let one = FakeServer::new();
        let line = one.line();
        let client = client_on(&line, builder()).await;
        let document = client.create().unwrap();
        let hash = set(&document, "n", 1);
        one.edit(document.id(), 5);
        document.wait_durable(SECOND).await.unwrap();
        pass(100).await;
        // The same address, and everything that the first server had is not there.
        one.replace();
        one.lock().commit_ms = 500;
        pass(10).await;
        assert!(client.connected(60 * SECOND).await);
        assert_ne!(document.save_status().state, SaveState::Saved);
        let error = document.wait_durable(Duration::from_millis(1)).await.unwrap_err();
        assert!(!error.documents[0].hashes.is_empty());
        document.wait_durable(60 * SECOND).await.unwrap();
        assert!(one.has(document.id(), hash));
        let doc = one.lock().documents[&document.id()].clone();
        assert_eq!(doc.get_heads(), document.heads(), "others' changes too");
    });
}

#[test]
fn what_a_server_lost_from_its_storage_is_owed_again() {
    run(async {
        let server = FakeServer::new();
        let (line, outbox) = (server.line(), MemoryOutbox::default());
        let client = client_with(&line, &outbox).await;
        let document = client.create().unwrap();
        let first = set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        server.back_up();
        let second = set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
        assert_eq!(outbox.len(), 0);
        server.restore();
        server.lock().commit_ms = 300;
        pass(10).await;
        let third = set(&document, "n", 3);
        // Its first words are from before it gets the change again.
        let mut status = client.save_status();
        while status.unsaved_changes < 2 {
            status = client.save_status_changed(&status).await;
        }
        assert_eq!(status.state, SaveState::Saving);
        let error = client.flush(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(error.documents[0].hashes, [second, third], "in causal order");
        client.flush(60 * SECOND).await.unwrap();
        assert!([first, second, third].iter().all(|hash| server.has(document.id(), *hash)));
        assert_eq!(document.save_status().state, SaveState::Saved);
    });
}

#[test]
fn it_works_with_a_server_that_knows_no_extensions() {
    run(async {
        let server = FakeServer::new();
        server.lock().is_extended = false;
        let (client, _) = client(&server).await;
        let document = client.create().unwrap();
        let hash = set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        assert_eq!(document.is_saved(hash).await, Ok(true));
        assert_eq!(document.is_saved(ChangeHash([7; 32])).await, Err(AskError::NotSupported));
        client.close(SECOND).await.unwrap();
    });
}

#[test]
fn single_changes_are_asked_for_by_hash() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        let document = client.create().unwrap();
        let saved = set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        server.lock().commit_ms = 500;
        let under_way = set(&document, "n", 2);
        assert_eq!(document.is_saved(saved).await, Ok(true));
        assert_eq!(document.is_saved(under_way).await, Ok(false));
        document.wait_durable(SECOND).await.unwrap();
        assert_eq!(document.is_saved(under_way).await, Ok(true));
        let lost = async {
            pass(2).await;
            line.cut();
        };
        let (answer, ()) = tokio::join!(document.is_saved(ChangeHash([7; 32])), lost);
        assert_eq!(answer, Err(AskError::NotConnected), "the line was cut before the answer");
    });
}

#[test]
fn a_question_that_is_not_answered_ends_in_time_and_those_whom_nobody_waits_for_take_no_place() {
    run(async {
        let server = FakeServer::new();
        let (_client, _, document) = client_with_saved_document(&server).await;
        // As of a document that it cannot read.
        server.lock().withholds = |_| true;
        let unknown = ChangeHash([7; 32]);
        for _ in 0..crate::limits::QUESTIONS_MAX {
            let asked = tokio::time::timeout(Duration::from_millis(1), document.is_saved(unknown));
            assert!(asked.await.is_err());
        }
        assert_eq!(document.is_saved(unknown).await, Err(AskError::Timeout));
        server.lock().withholds = |_| false;
        assert_eq!(document.is_saved(unknown).await, Ok(false));
    });
}

#[test]
fn what_is_said_while_the_servers_heads_are_unknown_here_is_found_by_asking() {
    run(async {
        let server = FakeServer::new();
        let id = DocumentId::from_bytes([5; 16]);
        server.edit(id, 1);
        let (client, _) = client(&server).await;
        let document = client.open(id).await.unwrap();
        let hash = set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        // A message whose heads are not here, and that brings nothing.
        let entry = client.inner_shared().entry(id).unwrap();
        let hash_two = set(&document, "n", 2);
        let mut other = server.lock().documents[&id].clone();
        other.apply_changes(document.read(|doc| doc.get_changes(&[hash])).unwrap()).unwrap();
        let mut tx = other.transaction();
        tx.put(ROOT, "other", 9).unwrap();
        tx.commit();
        let message = other.generate_sync_message(&mut stock::State::new()).unwrap();
        {
            let mut replica = entry.lock();
            replica.receive(message.encode().into(), 0).unwrap();
            assert_eq!(replica.undecided(), [hash_two]);
            let effects = replica.mark_durable(&[hash_two]);
            assert_eq!(effects.settled.len(), 1);
            assert!(replica.is_saved());
        }
    });
}

#[test]
fn a_document_that_the_server_does_not_have_is_not_opened() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        let id = DocumentId::from_bytes([9; 16]);
        assert_eq!(client.open(id).await.unwrap_err(), OpenError::Unavailable(id));
        assert!(client.inner_shared().entries().is_empty());
        // But one that waits for it gets it when it appears.
        let waiting = client.document(id).unwrap();
        pass(100).await;
        let mut watch = waiting.watch();
        server.edit(id, 3);
        assert_eq!(watch.changed().await.unwrap(), waiting.heads());
        assert_eq!(get(&waiting, "other"), Some(3));
        // Also after a connection on which it was not there.
        let late = DocumentId::from_bytes([7; 16]);
        let waiting = client.document(late).unwrap();
        pass(100).await;
        assert_eq!(client.open(late).await.unwrap_err(), OpenError::Unavailable(late));
        line.cut();
        server.edit(late, 4);
        line.mend();
        pass(25_000).await;
        assert_eq!(get(&client.open(late).await.unwrap(), "other"), Some(4));
        assert_eq!(get(&waiting, "other"), Some(4));
        line.cut();
        assert_eq!(
            client.open(DocumentId::from_bytes([8; 16])).await.unwrap_err(),
            OpenError::Timeout(DocumentId::from_bytes([8; 16]))
        );
    });
}

#[test]
fn a_watch_tells_what_happened_meanwhile_as_one() {
    run(async {
        let server = FakeServer::new();
        let (client, _) = client(&server).await;
        let document = client.create().unwrap();
        let mut watch = document.watch();
        set(&document, "n", 1);
        for n in 0..20 {
            set(&document, "n", n + 2);
        }
        assert_eq!(watch.changed().await.unwrap(), document.heads());
        document.wait_durable(SECOND).await.unwrap();
        server.edit(document.id(), 1);
        assert_eq!(watch.changed().await.unwrap().len(), 1);
        let (told, closed) = tokio::join!(watch.changed(), client.close(SECOND));
        closed.unwrap();
        assert_eq!(told, None);
    });
}

#[test]
fn whoever_waits_for_many_changes_looks_for_the_newest_only() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        server.edit(document.id(), 1);
        let hashes: Vec<_> = (0..100).map(|n| set(&document, "n", n)).collect();
        let entry = client.inner_shared().entry(document.id()).unwrap();
        assert_eq!(entry.lock().tips(), hashes[99..]);
        let error = document.wait_durable(SECOND).await.unwrap_err();
        assert_eq!(error.documents[0].hashes, hashes);
        line.mend();
        document.wait_durable(60 * SECOND).await.unwrap();
        assert!(hashes.iter().all(|hash| server.has(document.id(), *hash)));
    });
}

#[test]
fn a_watch_ends_when_its_document_is_closed() {
    run(async {
        let server = FakeServer::new();
        let (_client, _, document) = client_with_saved_document(&server).await;
        let mut watch = document.watch();
        let told = tokio::time::timeout(60 * SECOND, watch.changed());
        let (told, closed) = tokio::join!(told, document.close(SECOND));
        closed.unwrap();
        assert_eq!(told, Ok(None));
    });
}

#[test]
fn an_edit_that_fails_leaves_nothing_and_one_that_does_nothing_is_no_change() {
    run(async {
        let server = FakeServer::new();
        let (client, _) = client(&server).await;
        let document = client.create().unwrap();
        let failed = document.change_with(CommitOptions::default(), |tx| {
            tx.put(ROOT, "n", 1).map_err(|error| error.to_string())?;
            Err::<(), _>("changed my mind".to_owned())
        });
        assert!(matches!(failed, Err(crate::ChangeError::Edit(why)) if why == "changed my mind"));
        assert_eq!(document.change(|_| Ok(())).unwrap(), None);
        assert_eq!((get(&document, "n"), client.save_status().unsaved_changes), (None, 0));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            document.change(|tx| -> Result<(), AutomergeError> {
                tx.put(ROOT, "n", 1)?;
                panic!("in the test")
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(get(&document, "n"), None);
        set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
    });
}

#[test]
fn ten_editors_on_lines_of_all_kinds_are_all_saved_in_the_end_and_counts_return_to_zero() {
    run(async {
        let server = FakeServer::new();
        let (first, _) = client(&server).await;
        let id = first.create().map(|document| {
            set(&document, "n", 0);
            document.id()
        });
        let id = id.unwrap();
        first.flush(SECOND).await.unwrap();
        let mut people = Vec::new();
        for _ in 0..10 {
            let (client, line) = client(&server).await;
            people.push((client.open(id).await.unwrap(), client, line));
        }
        for n in 0..100 {
            for (who, (document, _, line)) in people.iter().enumerate() {
                set(document, &format!("{who}-{n}"), n);
                match (n + who as i64) % 37 {
                    0 => line.cut(),
                    5 => line.mend(),
                    _ => {}
                }
            }
            pass(20).await;
        }
        for (_, _, line) in &people {
            line.mend();
        }
        for (document, client, _) in &people {
            client.flush(100 * SECOND).await.unwrap();
            assert_eq!(client.save_status().unsaved_changes, 0);
            assert_eq!(document.save_status().state, SaveState::Saved);
        }
        pass(1000).await;
        let heads = server.lock().documents[&id].get_heads();
        for (document, client, _) in &people {
            assert_eq!(document.heads(), heads);
            assert_eq!(document.read(|doc| doc.length(ROOT)).unwrap(), 1001);
            client.close(SECOND).await.unwrap();
        }
    });
}

#[test]
fn what_the_server_sends_and_automerge_cannot_read_is_an_error_and_not_a_panic() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        let entry = client.inner_shared().entry(document.id()).unwrap();
        let mut random = Random::new(3);
        let message = document.read(|doc| doc.generate_sync_message(&mut stock::State::new())).unwrap();
        let mut change = document.read(|doc| doc.get_changes(&[])).unwrap().remove(0).raw_bytes().to_vec();
        let good = message.unwrap();
        for round in 0..3000 {
            let mut message = good.clone();
            if round % 2 == 0 {
                let place = random.below(change.len() as u64) as usize;
                change[place] ^= 1 << random.below(8);
                message.changes = vec![change.clone()].into();
            }
            let mut bytes = message.encode();
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] ^= 1 << random.below(8);
            let _ = entry.lock().receive(bytes.into(), 0);
        }
        let dials = line.dials();
        let heads = document.heads();
        server.close_all(1013, "");
        pass(5000).await;
        assert!(line.dials() > dials);
        assert_eq!(document.heads(), heads);
        let reason = client.close(SECOND).await.map_err(|error| error.reason);
        assert!(matches!(reason, Ok(()) | Err(UnsavedReason::Timeout)));
    });
}
