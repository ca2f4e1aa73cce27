//! The promise of `close`: it succeeds only when everything is durable, otherwise it fails in time with exactly what the server has not called
//! durable; and it always ends.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::{Scene, Step, schedule};
use super::*;
use crate::{ChangeError, UnsavedChanges, UnsavedReason};

/// How many schedules are played, and from which seed: `HIGHWATER_RUNS` and `HIGHWATER_SEED` say otherwise.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let start = number("HIGHWATER_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("HIGHWATER_SEED={start}");
    start..start + number("HIGHWATER_RUNS").unwrap_or(2000)
}

/// What one client does in a schedule: two documents, and every change that it made.
struct Editor {
    client: Client,
    documents: [Document; 2],
    made: [Vec<ChangeHash>; 2],
    count: i64,
}

impl Editor {
    fn new(client: Client) -> Self {
        let documents = [client.create().unwrap(), client.create().unwrap()];
        Self { client, documents, made: Default::default(), count: 0 }
    }

    fn edit(&mut self, scene: &Scene, step: Step) {
        self.count += 1;
        match step {
            Step::Edit(which) => {
                let changed = self.documents[which].change(|tx| tx.put(ROOT, "n", self.count));
                match changed {
                    Ok(hash) => self.made[which].extend(hash),
                    Err(ChangeError::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::OtherEdit(which) => scene.server.edit(self.documents[which].id(), self.count),
            _ => {}
        }
    }

    fn check_saved(&self, scene: &Scene, seed: u64) {
        for (document, made) in self.documents.iter().zip(&self.made) {
            assert!(made.iter().all(|hash| scene.server.has(document.id(), *hash)), "seed {seed}");
        }
    }

    /// That these are what the server had not called durable, by what had reached the client.
    fn check_unsaved(&self, scene: &Scene, error: &UnsavedChanges, seed: u64) {
        for (document, made) in self.documents.iter().zip(&self.made) {
            let listed = error.documents.iter().find(|unsaved| unsaved.document == document.id());
            let listed = listed.map(|unsaved| unsaved.hashes.clone()).unwrap_or_default();
            let (now, before) = scene.line.untold(document.id(), made);
            assert!(now.iter().all(|hash| listed.contains(hash)), "seed {seed}: {now:?} in {listed:?}");
            assert!(listed.iter().all(|hash| before.contains(hash)), "seed {seed}: {listed:?} in {before:?}");
            let order: Vec<_> = made.iter().filter(|hash| listed.contains(hash)).copied().collect();
            assert_eq!(listed, order, "seed {seed}: in causal order, and nobody else's");
        }
    }
}

async fn play_close(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let scene = Scene::new();
    let outbox = MemoryOutbox::default();
    let write_ms = [0, 3, 50][random.below(3) as usize];
    outbox.set(|how| how.write_ms = write_ms);
    let client = client_on(&scene.line, scene.issuer.builder().outbox_store(outbox.clone())).await;
    let mut editor = Editor::new(client);
    let (before, during) = (schedule(&mut random, 20), schedule(&mut random, 12));
    let timeout = [100, 20_000].map(|max| random.below(max))[random.below(2) as usize];
    let timeout = Duration::from_millis(timeout);

    scene.play(&before, |step| editor.edit(&scene, step)).await;
    let started = Instant::now();
    let client = editor.client.clone();
    let editor = RefCell::new(editor);
    let close = async {
        let result = client.close(timeout).await;
        // In the same turn in which it ends.
        match &result {
            Ok(()) => editor.borrow().check_saved(&scene, seed),
            Err(error) => editor.borrow().check_unsaved(&scene, error, seed),
        }
        (result, started.elapsed())
    };
    // Also what is typed while it waits is saved, or cannot be typed any more.
    let type_on = scene.play(&during, |step| editor.borrow_mut().edit(&scene, step));
    let ((result, took), ()) = tokio::join!(close, type_on);
    let editor = editor.into_inner();
    // The socket's end and the outbox's are waited for no longer than that.
    assert!(took <= timeout + Duration::from_millis(2), "seed {seed}: {took:?} of {timeout:?}");

    if let Err(error) = &result {
        assert_eq!(error.reason, UnsavedReason::Timeout, "seed {seed}");
        scene.repair();
        pass(100_000).await;
        let again = editor.client.close(30 * SECOND).await;
        assert!(again.is_ok(), "seed {seed}: {again:?}");
    }
    editor.check_saved(&scene, seed);
    let is_closed = |document: &Document| document.change(|_| Ok(())) == Err(ChangeError::Closed);
    assert!(editor.documents.iter().all(is_closed), "seed {seed}");
    pass(1000).await;
    assert_eq!(outbox.len(), 0, "seed {seed}");
    let removed = outbox.removed.lock().unwrap();
    assert!(removed.iter().all(|(id, hash)| scene.server.has(*id, *hash)), "seed {seed}");
    result.is_ok()
}

#[test]
fn it_holds_over_random_schedules_of_edits_and_accidents() {
    let (mut succeeded, mut failed) = (0, 0);
    for seed in seeds() {
        if run(play_close(seed)) {
            succeeded += 1;
        } else {
            failed += 1;
        }
    }
    println!("{succeeded} closed, {failed} failed in time");
}

/// Ends without a word, and what is left is sent by the next client.
async fn play_restart(seed: u64) {
    let mut random = Random::new(seed);
    let scene = Scene::new();
    let outbox = MemoryOutbox::default();
    let builder = || scene.issuer.builder().outbox_store(outbox.clone());
    let mut editor = Editor::new(client_on(&scene.line, builder()).await);
    scene.play(&schedule(&mut random, 25), |step| editor.edit(&scene, step)).await;
    editor.client.disconnect().await;
    for (document, made) in editor.documents.iter().zip(&editor.made) {
        for hash in made {
            let (untold, _) = scene.line.untold(document.id(), &[*hash]);
            assert!(untold.is_empty() || outbox.has(document.id(), *hash), "seed {seed}");
        }
    }
    scene.repair();
    let next = client_on(&scene.line, builder()).await;
    let flushed = next.flush(60 * SECOND).await;
    assert!(flushed.is_ok(), "seed {seed}: {flushed:?}");
    for (document, made) in editor.documents.iter().zip(&editor.made) {
        assert!(made.iter().all(|hash| scene.server.has(document.id(), *hash)), "seed {seed}");
    }
    next.close(60 * SECOND).await.unwrap();
    assert_eq!(outbox.len(), 0, "seed {seed}");
}

#[test]
fn what_a_session_leaves_behind_is_sent_by_the_next_over_random_schedules() {
    for seed in seeds() {
        run(play_restart(seed));
    }
}

#[test]
fn a_document_that_is_closed_is_let_go_of_and_can_be_opened_again() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        line.cut();
        let error = document.close(SECOND).await.unwrap_err();
        assert_eq!((error.reason, error.documents.len()), (UnsavedReason::Timeout, 1));
        set(&document, "n", 2);
        line.mend();
        document.close(60 * SECOND).await.unwrap();
        assert!(document.change(|_| Ok(())).is_err());
        assert!(document.read(|_| ()).is_err());
        // On the same connection, where the server has it open still.
        let again = client.open(document.id()).await.unwrap();
        assert_eq!(get(&again, "n"), Some(2));
        server.edit(again.id(), 7);
        pass(100).await;
        assert_eq!(get(&again, "other"), Some(7));
        set(&again, "n", 3);
        again.wait_durable(SECOND).await.unwrap();
    });
}

#[test]
fn a_document_that_nobody_has_any_more_is_let_go_of_when_it_owes_nothing() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        line.cut();
        let document = client.create().unwrap();
        let (id, hash) = (document.id(), set(&document, "n", 1));
        drop(document);
        assert_eq!(client.save_status().unsaved_changes, 1);
        line.mend();
        client.flush(60 * SECOND).await.unwrap();
        assert!(server.has(id, hash));
        assert!(client.inner_shared().entries().is_empty());
    });
}

#[test]
fn whoever_waits_is_told_when_the_client_is_disconnected() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        line.cut();
        let document = client.create().unwrap();
        set(&document, "n", 1);
        let wait = async { document.wait_durable(60 * SECOND).await.unwrap_err().reason };
        let (reason, ()) = tokio::join!(wait, client.disconnect());
        assert_eq!(reason, UnsavedReason::Closed);
        assert_eq!(client.close(SECOND).await.unwrap_err().reason, UnsavedReason::Closed);
    });
}

#[test]
fn it_ends_within_one_timeout_and_not_two_if_the_outbox_is_slow() {
    run(async {
        let (server, outbox) = (FakeServer::new(), MemoryOutbox::default());
        let client = client_with(&server.line(), &outbox).await;
        let document = client.create().unwrap();
        set(&document, "n", 0);
        document.wait_durable(SECOND).await.unwrap();
        server.lock().commit_ms = 800;
        outbox.set(|how| how.hangs = true);
        set(&document, "n", 1);
        let started = Instant::now();
        client.close(SECOND).await.unwrap();
        assert!(started.elapsed() <= SECOND + Duration::from_millis(2), "{:?}", started.elapsed());
    });
}

#[test]
fn it_can_be_waited_for_ever() {
    run(async {
        let server = FakeServer::new();
        let forever = Duration::MAX;
        let builder = builder().backoff(SECOND, forever).heartbeat(forever, forever).connect_timeout(forever);
        let client = client_on(&server.line(), builder.open_timeout(forever)).await;
        let document = client.create().unwrap();
        set(&document, "n", 1);
        document.wait_durable(forever).await.unwrap();
        assert!(client.connected(forever).await);
        client.open(document.id()).await.unwrap();
        client.close(forever).await.unwrap();
    });
}
