//! Changes that the server will never take.

use super::close::seeds;
use super::schedule::{Scene, Step, schedule};
use super::*;
use crate::{SaveState, UnsavedReason};

/// A document of which some changes are refused, in random schedules.
struct Refusals {
    document: Document,
    made: Vec<ChangeHash>,
    refused: Vec<ChangeHash>,
}

impl Refusals {
    fn edit(&mut self, random: &mut Random) {
        let key = self.made.len().to_string();
        if random.below(2) == 0 {
            self.refused.push(set_refused(&self.document, &key));
            self.made.extend(self.refused.last());
        } else {
            self.made.push(set(&self.document, &key, 1));
        }
    }
}

async fn play_refusals(seed: u64) {
    let mut random = Random::new(seed);
    let scene = Scene::new();
    let outbox = MemoryOutbox::default();
    outbox.set(|how| how.write_ms = [0, 3, 50][random.below(3) as usize]);
    let client = client_on(&scene.line, scene.issuer.builder().outbox_store(outbox.clone())).await;
    let document = client.create().unwrap();
    let id = document.id();
    let mut refusals = Refusals { document: document.clone(), made: Vec::new(), refused: Vec::new() };
    let (before, during) = (schedule(&mut random, 20), schedule(&mut random, 12));
    let timeout = Duration::from_millis([100, 20_000].map(|max| random.below(max))[random.below(2) as usize]);
    let others = |step| {
        if let Step::OtherEdit(_) = step {
            scene.server.edit(id, 1);
        }
    };
    scene
        .play(&before, |step| match step {
            Step::Edit(_) => refusals.edit(&mut random),
            step => others(step),
        })
        .await;
    refusals.edit(&mut random);
    let Refusals { made, refused, .. } = refusals;
    let (closed, ()) = tokio::join!(client.close(timeout), scene.play(&during, others));
    if refused.is_empty() {
        return;
    }
    let error = closed.expect_err(&format!("seed {seed}"));
    assert!(refused.iter().all(|hash| error.documents[0].hashes.contains(hash)), "seed {seed}: {error:?}");

    scene.repair();
    // What was lost of what builds on a refused change is offered on the next connection.
    scene.server.close_all(1013, "");
    pass(100_000).await;
    // There is nothing to wait for any more.
    let again = tokio::time::timeout(SECOND / 10, client.close(3600 * SECOND)).await;
    let error = again.unwrap_or_else(|_| panic!("seed {seed}: in time")).unwrap_err();
    assert_eq!(error.reason, UnsavedReason::Rejected, "seed {seed}");
    let unsaved = &error.documents[0];
    let named: Vec<_> = unsaved.rejected.iter().map(|one| one.hash).collect();
    assert_eq!(named, refused, "seed {seed}");
    let (saved, lost): (Vec<_>, Vec<_>) = made.iter().partition(|hash| scene.server.has(id, **hash));
    assert_eq!(unsaved.hashes, lost, "seed {seed}");
    assert!(unsaved.in_outbox && lost.iter().all(|hash| outbox.has(id, *hash)), "seed {seed}");
    assert_eq!(document.save_status().state, SaveState::Rejected, "seed {seed}");

    let discarded = document.discard_rejected().unwrap();
    assert_eq!(discarded.iter().map(|change| change.hash()).collect::<Vec<_>>(), lost, "seed {seed}");
    set(&document, "n", 1);
    client.close(SECOND).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(saved.iter().all(|hash| scene.server.has(id, *hash)), "seed {seed}");
    assert_eq!(scene.server.lock().documents[&id].get_heads(), document.heads(), "seed {seed}");
    pass(1000).await;
    assert_eq!(outbox.len(), 0, "seed {seed}");
}

#[test]
fn close_never_succeeds_once_a_change_was_refused_whatever_else_happens_and_says_which() {
    for seed in seeds() {
        run(play_refusals(seed));
    }
}

#[test]
fn it_says_what_was_refused_and_does_not_wait_for_it() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        let refused = set_refused(&document, "n");
        let after = set(&document, "n", 2);
        for error in
            [client.close(3600 * SECOND).await.unwrap_err(), document.close(3600 * SECOND).await.unwrap_err()]
        {
            assert_eq!(error.reason, UnsavedReason::Rejected);
            let [unsaved] = &error.documents[..] else { panic!("{error:?}") };
            assert_eq!(unsaved.hashes, [refused, after]);
            assert_eq!(unsaved.rejected.len(), 1);
            assert_eq!(
                (unsaved.rejected[0].hash, unsaved.rejected[0].reason.as_str()),
                (refused, "refused by the test")
            );
        }
    });
}

#[test]
fn what_is_discarded_is_handed_back_and_gone_and_the_document_goes_on_without_it() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let client = client_with(&server.line(), &outbox).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        assert_eq!(document.discard_rejected().unwrap(), []);

        let refused = set_refused(&document, "n");
        let after = set(&document, "m", 2);
        server.edit(document.id(), 7);
        client.close(3600 * SECOND).await.unwrap_err();
        pass(100).await;
        assert_eq!((outbox.len(), document.save_status().state), (2, SaveState::Rejected));
        let mut watch = document.watch();
        let discarded = document.discard_rejected().unwrap();
        assert_eq!(discarded.iter().map(|change| change.hash()).collect::<Vec<_>>(), [refused, after]);
        assert_eq!(watch.changed().await.unwrap(), document.heads());
        assert_eq!(["n", "m", "other"].map(|key| get(&document, key)), [Some(1), None, Some(7)]);
        assert_eq!(
            (document.save_status().state, client.save_status().unsaved_changes),
            (SaveState::Saved, 0)
        );

        let hash = set(&document, "n", 3);
        server.edit(document.id(), 8);
        client.close(SECOND).await.unwrap();
        assert!(server.has(document.id(), hash));
        assert_eq!(outbox.len(), 0);
    });
}

#[test]
fn what_can_still_be_saved_is_not_discarded() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        let refused = set_refused(&document, "n");
        assert!(document.wait_durable(SECOND).await.is_err());
        line.cut();
        // What somebody else made of the state before it builds on nothing that was refused.
        let entry = client.inner_shared().entry(document.id()).unwrap();
        let mut other = server.lock().documents[&document.id()].clone().with_actor(vec![9; 16].into());
        let mut tx = other.transaction();
        tx.put(ROOT, "m", 2).unwrap();
        let (hash, _) = tx.commit();
        let change = other.get_change_by_hash(&hash.unwrap()).unwrap();
        entry.lock().recall(vec![crate::engine::Owed::new(&change, 0)]).unwrap();
        let discarded = document.discard_rejected().unwrap();
        assert_eq!(discarded.iter().map(|change| change.hash()).collect::<Vec<_>>(), [refused]);
        assert_eq!(client.close(SECOND).await.unwrap_err().documents[0].hashes, [change.hash()]);
        line.mend();
        client.close(60 * SECOND).await.unwrap();
        assert!(server.has(document.id(), change.hash()));
    });
}

#[test]
fn whoever_waits_for_a_change_that_is_discarded_is_not_told_that_it_is_saved() {
    run(async {
        let server = FakeServer::new();
        let (_client, _, document) = client_with_saved_document(&server).await;
        let refused = set_refused(&document, "n");
        let mut waiting = std::pin::pin!(document.wait_durable(3600 * SECOND));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        // Refused and discarded before whoever waits has looked.
        pass(100).await;
        assert_eq!(document.discard_rejected().unwrap().len(), 1);
        let waited = waiting.await;
        let error = waited.unwrap_err();
        assert_eq!((error.reason, &error.documents[0].hashes[..]), (UnsavedReason::Rejected, &[refused][..]));
        document.wait_durable(SECOND).await.unwrap();
    });
}

#[test]
fn what_is_left_of_a_deleted_document_can_be_discarded_by_a_later_session() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let line = server.line();
        let first = client_with(&line, &outbox).await;
        let document = first.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(SECOND).await.unwrap();
        line.cut();
        let hash = set(&document, "n", 2);
        first.disconnect().await;
        server.delete(document.id());

        let next = client_with(&server.line(), &outbox).await;
        let error = next.close(60 * SECOND).await.unwrap_err();
        let left = next.document(error.documents[0].document).unwrap();
        let discarded = left.discard_rejected().unwrap();
        assert_eq!(discarded.iter().map(|change| change.hash()).collect::<Vec<_>>(), [hash]);
        assert!(left.is_deleted());
        next.close(SECOND).await.unwrap();
        assert!(left.discard_rejected().is_err(), "it is closed");
        assert_eq!(outbox.len(), 0);
    });
}
