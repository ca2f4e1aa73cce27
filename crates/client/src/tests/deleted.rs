//! Documents that somebody deleted on the server.

use highwater_core::document::DELETED;

use super::close::seeds;
use super::schedule::{Scene, Step, schedule};
use super::*;
use crate::{ChangeError, OpenError, RejectedChange, SaveState, UnsavedChanges, UnsavedReason};

/// That exactly these changes of one document are refused, because it was deleted.
fn check_deleted(error: &UnsavedChanges, document: DocumentId, hashes: &[ChangeHash]) {
    assert_eq!(error.reason, UnsavedReason::Deleted);
    assert!(error.to_string().contains("deleted"), "{error}");
    let [unsaved] = &error.documents[..] else { panic!("{error:?}") };
    assert_eq!((unsaved.document, &unsaved.hashes[..]), (document, hashes));
    let refused = |hash: &ChangeHash| RejectedChange { hash: *hash, reason: DELETED.to_owned() };
    assert_eq!(unsaved.rejected, hashes.iter().map(refused).collect::<Vec<_>>());
}

#[test]
fn what_was_changed_offline_meanwhile_is_refused_at_once_all_of_it() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        let other = client.create().unwrap();
        line.cut();
        let hashes: Vec<_> = (2..5).map(|n| set(&document, "n", n)).collect();
        set(&other, "n", 1);
        server.delete(document.id());
        line.mend();
        let started = tokio::time::Instant::now();
        let error = client.close(3600 * SECOND).await.unwrap_err();
        assert!(started.elapsed() < 60 * SECOND);
        check_deleted(&error, document.id(), &hashes);
        assert_eq!(document.save_status().state, SaveState::Rejected);
        check_deleted(&document.close(3600 * SECOND).await.unwrap_err(), document.id(), &hashes);
        check_deleted(&document.wait_durable(3600 * SECOND).await.unwrap_err(), document.id(), &hashes);
        check_deleted(&client.flush(3600 * SECOND).await.unwrap_err(), document.id(), &hashes);
    });
}

#[test]
fn what_is_under_way_when_it_is_deleted_is_refused_and_nothing_is_owed_of_what_was_durable() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        server.lock().commit_ms = 500;
        let hash = set(&document, "n", 2);
        pass(100).await;
        server.delete(document.id());
        let error = client.close(3600 * SECOND).await.unwrap_err();
        check_deleted(&error, document.id(), &[hash]);

        let (client, _, document) = client_with_saved_document(&server).await;
        server.delete(document.id());
        pass(100).await;
        assert_eq!(document.save_status().state, SaveState::Saved);
        document.wait_durable(SECOND).await.unwrap();
        client.close(SECOND).await.unwrap();
    });
}

#[test]
fn it_is_told_again_on_the_next_connection_if_the_first_word_of_it_was_lost() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        let hashes = [set(&document, "n", 2), set(&document, "n", 3)];
        server.delete(document.id());
        line.mend();
        let mut dials = line.dials();
        for ms in [6, 11, 16, 21, 26] {
            // Every connection ends a moment later than the last one.
            while line.dials() == dials {
                pass(1).await;
            }
            pass(ms).await;
            line.cut();
            line.mend();
            dials = line.dials();
            client.reconnect();
        }
        check_deleted(&client.close(3600 * SECOND).await.unwrap_err(), document.id(), &hashes);
    });
}

#[test]
fn what_an_earlier_session_left_of_it_is_reported_and_kept_and_not_sent_again_and_again() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let line = server.line();
        let client = client_with(&line, &outbox).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        line.cut();
        let hashes = [set(&document, "n", 2), set(&document, "n", 3)];
        client.disconnect().await;
        server.delete(document.id());

        let next = client_with(&server.line(), &outbox).await;
        check_deleted(&next.close(3600 * SECOND).await.unwrap_err(), document.id(), &hashes);
        assert_eq!(next.save_status().state, SaveState::Rejected);
        pass(1000).await;
        let frames = server.lock().frames;
        pass(3_600_000).await;
        assert_eq!(server.lock().frames, frames);
        assert_eq!(outbox.len(), 2);
    });
}

#[test]
fn another_server_may_have_it_still() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        let hash = set(&document, "n", 2);
        server.delete(document.id());
        line.mend();
        check_deleted(&client.close(3600 * SECOND).await.unwrap_err(), document.id(), &[hash]);
        server.replace();
        pass(10).await;
        assert!(client.connected(60 * SECOND).await);
        client.flush(60 * SECOND).await.unwrap();
        assert!(server.has(document.id(), hash));
    });
}

#[test]
fn what_only_another_server_had_of_it_is_not_called_saved() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        let heads = document.heads();
        server.replace();
        server.delete(document.id());
        pass(10).await;
        assert!(client.connected(60 * SECOND).await);
        check_deleted(&client.close(3600 * SECOND).await.unwrap_err(), document.id(), &heads);
        check_deleted(&document.wait_durable(3600 * SECOND).await.unwrap_err(), document.id(), &heads);
    });
}

#[test]
fn it_is_told_to_whoever_changes_opens_or_follows_it() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        let mut watch = document.watch();
        assert!(!document.is_deleted());
        let delete = async {
            pass(100).await;
            server.delete(document.id());
        };
        let (told, ()) = tokio::join!(watch.changed(), delete);
        assert_eq!(told, None);
        assert_eq!(watch.changed().await, None);
        assert!(document.is_deleted());
        assert!(matches!(document.change(|tx| tx.put(ROOT, "n", 2)), Err(ChangeError::Deleted)));
        assert_eq!(get(&document, "n"), Some(1), "what is here stays here");
        assert_eq!(document.save_status().unsaved_changes, 0);
        let saved = document.heads()[0];
        assert_eq!(document.is_saved(saved).await, Ok(false));
        assert_eq!(client.open(document.id()).await.unwrap_err(), OpenError::Deleted(document.id()));

        let (stranger, _) = super::client(&server).await;
        assert_eq!(stranger.open(document.id()).await.unwrap_err(), OpenError::Deleted(document.id()));
        assert!(stranger.inner_shared().entries().is_empty());
        let waiting = stranger.document(document.id()).unwrap();
        assert_eq!(waiting.watch().changed().await, None);
        assert!(waiting.is_deleted());
    });
}

#[test]
fn somebody_who_waits_is_told_when_it_is_deleted() {
    run(async {
        let server = FakeServer::new();
        let (_client, _, document) = client_with_saved_document(&server).await;
        server.lock().commit_ms = 1_000_000;
        let hash = set(&document, "n", 2);
        let delete = async {
            pass(100).await;
            server.delete(document.id());
            server.lock().commit_ms = 1;
            set(&document, "n", 3)
        };
        let (waited, last) = tokio::join!(document.wait_durable(3600 * SECOND), delete);
        check_deleted(&waited.unwrap_err(), document.id(), &[hash, last]);
    });
}

#[test]
fn nothing_is_owed_of_it_on_later_connections_either_and_a_server_that_has_it_again_is_believed() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        server.back_up();
        let hash = set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
        server.delete(document.id());
        pass(100).await;
        server.close_all(1013, "");
        pass(10).await;
        for _ in 0..1000 {
            pass(1).await;
            assert_eq!(client.save_status().state, SaveState::Saved);
            client.flush(SECOND).await.unwrap();
        }
        assert!(document.is_deleted());
        // It was restored from a backup.
        server.restore_deleted();
        pass(10).await;
        assert!(client.connected(60 * SECOND).await);
        pass(1000).await;
        assert!(!document.is_deleted());
        assert!(server.has(document.id(), hash));
        client.close(SECOND).await.unwrap();
    });
}

async fn play_deletion(seed: u64) {
    let mut random = Random::new(seed);
    let scene = Scene::new();
    let outbox = MemoryOutbox::default();
    let client = client_on(&scene.line, scene.issuer.builder().outbox_store(outbox.clone())).await;
    let documents = [client.create().unwrap(), client.create().unwrap()];
    let ids = documents.each_ref().map(Document::id);
    let mut made = [Vec::new(), Vec::new()];
    let schedules = [schedule(&mut random, 20), schedule(&mut random, 12)];
    for (is_deleted, steps) in [false, true].into_iter().zip(schedules) {
        let mut count = 0;
        let edit = |step| {
            count += 1;
            match step {
                Step::Edit(which) => match documents[which].change(|tx| tx.put(ROOT, "n", count)) {
                    Ok(hash) => made[which].extend(hash),
                    Err(error) => assert_eq!(error, ChangeError::Deleted, "seed {seed}"),
                },
                Step::OtherEdit(which) if which == 0 || !is_deleted => scene.server.edit(ids[which], count),
                _ => {}
            }
        };
        scene.play(&steps, edit).await;
        if !is_deleted {
            scene.server.delete(ids[1]);
        }
    }
    scene.repair();
    scene.server.close_all(1013, "");
    pass(100_000).await;
    let closed = tokio::time::timeout(SECOND, client.close(3600 * SECOND)).await;
    let closed = closed.unwrap_or_else(|_| panic!("seed {seed}: in time"));
    let lost = closed.err().map(|error| {
        check_deleted(&error, ids[1], &error.documents[0].hashes.clone());
        assert!(error.documents[0].in_outbox, "seed {seed}");
        error.documents[0].hashes.clone()
    });
    if let Some(lost) = &lost {
        let discarded = documents[1].discard_rejected().unwrap();
        assert!(discarded.iter().map(|change| change.hash()).eq(lost.iter().copied()), "seed {seed}");
        client.close(SECOND).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let lost = lost.unwrap_or_default();
    assert!(lost.iter().all(|hash| made[1].contains(hash)), "seed {seed}");
    assert!(made[0].iter().all(|hash| scene.server.has(ids[0], *hash)), "seed {seed}");
    let was_saved = |hash: &ChangeHash| lost.contains(hash) || scene.server.ever_had(ids[1], *hash);
    assert!(made[1].iter().all(was_saved), "seed {seed}");
    pass(1000).await;
    assert_eq!(outbox.len(), 0, "seed {seed}");
}

#[test]
fn close_says_what_is_lost_and_calls_nothing_else_saved_over_random_schedules() {
    for seed in seeds() {
        run(play_deletion(seed));
    }
}
