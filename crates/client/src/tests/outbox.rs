//! What one session leaves behind reaches the server without the application touching it.

use super::*;
use crate::{ChangeError, SaveState, UnsavedReason};

/// A session that ends offline: a document that is saved, and a change of another one that is not.
async fn leave(server: &FakeServer, outbox: &MemoryOutbox) -> (DocumentId, DocumentId, ChangeHash) {
    let line = server.line();
    let client = client_with(&line, outbox).await;
    let (quiet, owing) = (client.create().unwrap(), client.create().unwrap());
    set(&quiet, "n", 0);
    set(&owing, "n", 0);
    client.flush(SECOND).await.unwrap();
    line.cut();
    let hash = set(&owing, "n", 1);
    client.disconnect().await;
    assert!(outbox.has(owing.id(), hash));
    assert_eq!(outbox.len(), 1, "what is saved is not kept");
    (quiet.id(), owing.id(), hash)
}

#[test]
fn documents_that_owe_something_are_sent_and_others_are_not_opened() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let (quiet, owing, hash) = leave(&server, &outbox).await;
        server.lock().asked_for.clear();
        let client = client_with(&server.line(), &outbox).await;
        pass(1000).await;
        assert!(server.has(owing, hash));
        assert_eq!(outbox.len(), 0);
        assert!(!server.lock().asked_for.contains(&quiet));
        assert!(client.inner_shared().entries().is_empty(), "nobody has it open");
        assert_eq!(get(&client.open(owing).await.unwrap(), "n"), Some(1));
    });
}

#[test]
fn an_outbox_in_another_order_than_the_causal_one_is_taken_up_as_well() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let line = server.line();
        line.cut();
        let client = client_with(&line, &outbox).await;
        let document = client.create().unwrap();
        let hashes = [set_refused(&document, "n"), set(&document, "n", 1), set(&document, "n", 2)];
        client.disconnect().await;
        // As it is when a server has lost something: that is put later than what builds on it.
        for (seq, _) in outbox.kept.lock().unwrap().values_mut() {
            *seq = 10 - *seq;
        }
        let client = client_with(&server.line(), &outbox).await;
        let error = client.close(3600 * SECOND).await.unwrap_err();
        assert_eq!((error.reason, &error.documents[0].hashes[..]), (UnsavedReason::Rejected, &hashes[..]));
    });
}

#[test]
fn what_is_refused_of_it_is_said_and_the_rest_is_sent() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let (_, owing, hash) = leave(&server, &outbox).await;
        let line = server.line();
        line.cut();
        let client = client_with(&line, &outbox).await;
        let document = client.create().unwrap();
        let refused = set_refused(&document, "n");
        client.disconnect().await;

        let client = client_with(&server.line(), &outbox).await;
        let error = client.close(3600 * SECOND).await.unwrap_err();
        assert_eq!((error.documents.len(), error.reason), (1, UnsavedReason::Rejected));
        assert_eq!(error.documents[0].rejected[0].hash, refused);
        assert!(error.documents[0].in_outbox);
        assert!(server.has(owing, hash));
        pass(100).await;
        assert_eq!(outbox.len(), 1);
        client.document(document.id()).unwrap().discard_rejected().unwrap();
        client.close(SECOND).await.unwrap();
        assert_eq!(outbox.len(), 0);
    });
}

#[test]
fn flush_and_the_status_know_of_it_from_the_first_moment() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let (_, owing, hash) = leave(&server, &outbox).await;
        let line = server.line();
        line.cut();
        let client = client_with(&line, &outbox).await;
        let status = client.save_status();
        assert_eq!((status.state, status.unsaved_changes), (SaveState::SavedOnDevice, 1));
        let error = client.close(SECOND).await.unwrap_err();
        assert_eq!((error.documents[0].document, &error.documents[0].hashes[..]), (owing, &[hash][..]));
        assert!(error.documents[0].in_outbox);
        line.mend();
        client.flush(60 * SECOND).await.unwrap();
        assert!(server.has(owing, hash));
    });
}

#[test]
fn a_change_is_kept_until_the_server_has_it_and_what_is_saved_first_is_never_written() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        outbox.set(|how| how.write_ms = 10);
        server.lock().commit_ms = 500;
        let client = client_with(&server.line(), &outbox).await;
        let document = client.create().unwrap();
        let hash = set(&document, "n", 1);
        pass(100).await;
        assert!(outbox.has(document.id(), hash), "sent, and not durable yet");
        document.wait_durable(SECOND).await.unwrap();
        pass(100).await;
        assert_eq!(outbox.len(), 0);
    });
}

#[test]
fn an_outbox_that_never_answers_holds_nothing_up_and_does_not_keep_close_from_its_end() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        outbox.set(|how| how.hangs = true);
        let client = client_with(&server.line(), &outbox).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        tokio::time::timeout(3 * SECOND, client.close(SECOND)).await.unwrap().unwrap();
    });
}

#[test]
fn an_outbox_that_does_not_say_what_it_holds_is_an_error_in_time() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        outbox.set(|how| how.is_silent = true);
        let builder = builder().outbox_store(outbox);
        let error = builder.connect_with(Arc::new(server.line()), Random::new(1)).await.unwrap_err();
        assert!(error.to_string().contains("does not say what it holds"), "{error}");
    });
}

#[test]
fn one_write_is_under_way_at_a_time_and_the_next_has_all_that_came_meanwhile() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let line = server.line();
        line.cut();
        let client = client_with(&line, &outbox).await;
        let document = client.create().unwrap();
        outbox.set(|how| how.write_ms = 100);
        let mut hashes = Vec::new();
        for n in 0..10 {
            hashes.push(set(&document, "n", n));
            pass(10).await;
        }
        pass(200).await;
        assert_eq!(document.save_status().state, SaveState::SavedOnDevice);
        assert_eq!(*outbox.batches.lock().unwrap(), [&hashes[..1], &hashes[1..]]);
    });
}

#[test]
fn an_outbox_that_cannot_be_taken_up_is_an_error_and_nothing_is_removed_from_it() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        leave(&server, &outbox).await;
        for (_, change) in outbox.kept.lock().unwrap().values_mut() {
            let mut bytes = change.bytes.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            change.bytes = bytes.into();
        }
        let builder = builder().outbox_store(outbox.clone());
        let error = builder.connect_with(Arc::new(server.line()), Random::new(1)).await.unwrap_err();
        assert!(error.to_string().contains("cannot be taken up"), "{error}");
        assert_eq!(outbox.len(), 1);
    });
}

#[test]
fn changes_of_several_sessions_are_sent_together_with_what_others_did() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let (_, owing, hash) = leave(&server, &outbox).await;
        server.edit(owing, 4);
        // Opened offline, where only what is owed is there, and that cannot be shown without what it builds on.
        let line = server.line();
        line.cut();
        let client = client_with(&line, &outbox).await;
        let document = client.document(owing).unwrap();
        let second = set(&document, "m", 2);
        client.disconnect().await;
        assert_eq!(outbox.len(), 2);
        let client = client_with(&server.line(), &outbox).await;
        let document = client.open(owing).await.unwrap();
        client.flush(SECOND).await.unwrap();
        assert!(server.has(owing, hash) && server.has(owing, second));
        assert_eq!(["n", "m", "other"].map(|key| get(&document, key)), [Some(1), Some(2), Some(4)]);
        client.close(SECOND).await.unwrap();
        assert_eq!(outbox.len(), 0);
    });
}

#[test]
fn a_change_that_no_server_takes_is_refused_at_once_and_leaves_nothing() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let client = client_with(&server.line(), &outbox).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        let large = vec![0; highwater_core::limits::CHANGE_BYTES_MAX];
        let error = document.change(|tx| tx.put(ROOT, "large", large)).unwrap_err();
        assert!(matches!(error, ChangeError::TooLarge(_)), "{error}");
        assert!(error.to_string().contains("33554432"), "{error}");
        assert_eq!((get(&document, "n"), client.save_status().unsaved_changes), (Some(1), 0));
        assert!(document.read(|doc| doc.get(ROOT, "large").unwrap().is_none()).unwrap());
        let hash = set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
        server.edit(document.id(), 3);
        pass(100).await;
        assert!(server.has(document.id(), hash));
        assert_eq!(get(&document, "other"), Some(3));
        client.disconnect().await;
        client_with(&server.line(), &outbox).await.close(SECOND).await.unwrap();
    });
}
