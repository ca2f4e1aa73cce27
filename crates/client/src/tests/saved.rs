//! What "saved" promises, whatever becomes of the connection and of the server: all that this client ever had of a document is durable on the server
//! that it is connected to, or was last connected to.

use std::collections::BTreeSet;

use super::close::seeds;
use super::schedule::{Scene, Step, schedule};
use super::*;
use crate::SaveState;

#[test]
fn what_a_server_lost_under_its_old_name_is_not_saved_meanwhile_and_it_gets_it() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        server.back_up();
        let hash = set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
        server.restore();
        server.lock().commit_ms = 1000;
        for _ in 0..5000 {
            pass(1).await;
            for status in [document.save_status(), client.save_status()] {
                let is_saved = status.state == SaveState::Saved;
                assert!(!is_saved || server.has_for(&line, document.id(), hash));
            }
        }
        assert_eq!(document.save_status().state, SaveState::Saved);
        assert!(server.has(document.id(), hash));
    });
}

#[test]
fn whoever_waits_waits_for_the_server_of_this_connection() {
    run(async {
        let server = FakeServer::new();
        let (client, _, document) = client_with_saved_document(&server).await;
        server.back_up();
        let hash = set(&document, "n", 2);
        document.wait_durable(SECOND).await.unwrap();
        for close in [false, true] {
            server.restore();
            server.lock().commit_ms = 1000;
            pass(10).await;
            assert!(client.connected(60 * SECOND).await);
            if close {
                client.close(60 * SECOND).await.unwrap();
            } else {
                document.wait_durable(60 * SECOND).await.unwrap();
            }
            assert!(server.has(document.id(), hash));
        }
    });
}

/// What happens beside the usual accidents.
#[derive(Debug, Clone, Copy)]
enum Disaster {
    Accident(Step),
    BackUp,
    Restore,
    Replace,
    /// Somebody waits for a document.
    Wait(usize),
}

fn disasters(random: &mut Random) -> Vec<Disaster> {
    let mut all = Vec::new();
    for _ in 0..random.below(15) {
        match random.below(6) {
            0..4 => all.extend(schedule(random, 3).into_iter().map(Disaster::Accident)),
            4 => all.push([Disaster::BackUp, Disaster::Restore, Disaster::Replace][random.below(3) as usize]),
            _ => all.push(Disaster::Wait(random.below(2) as usize)),
        }
    }
    all
}

/// Remembers all that a client ever had, and compares what it says with what the server has.
#[derive(Clone)]
struct Witness {
    server: FakeServer,
    line: Line,
    documents: [Document; 2],
    had: Arc<Mutex<[BTreeSet<ChangeHash>; 2]>>,
    /// What was said and is not so.
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    fn look(&self, client: &Client) {
        for (document, had) in self.documents.iter().zip(self.had.lock().unwrap().iter_mut()) {
            let changes =
                document.read(|doc| doc.get_changes_meta(&[]).into_iter().map(|meta| meta.hash).collect());
            had.extend::<Vec<_>>(changes.unwrap_or_default());
        }
        for which in 0..2 {
            if self.documents[which].save_status().state == SaveState::Saved {
                self.check("saved", which, &self.had(which));
            }
        }
        if client.save_status().state == SaveState::Saved {
            self.check_all("all saved");
        }
    }

    fn had(&self, which: usize) -> Vec<ChangeHash> {
        self.had.lock().unwrap()[which].iter().copied().collect()
    }

    fn check(&self, who: &str, which: usize, hashes: &[ChangeHash]) {
        let id = self.documents[which].id();
        let is_there = |hash: &ChangeHash| self.server.has_for(&self.line, id, *hash);
        if !hashes.iter().all(is_there) {
            self.wrong.lock().unwrap().push(format!("{who}, document {which}"));
        }
    }

    fn check_all(&self, who: &str) {
        for which in 0..2 {
            self.check(who, which, &self.had(which));
        }
    }
}

async fn live_through(seed: u64) {
    let mut random = Random::new(seed);
    let scene = Scene::new();
    scene.server.lock().is_extended = random.below(4) > 0;
    let outbox = MemoryOutbox::default();
    outbox.set(|how| how.write_ms = [0, 3, 50][random.below(3) as usize]);
    let client = client_on(&scene.line, scene.issuer.builder().outbox_store(outbox.clone())).await;
    let documents = [client.create().unwrap(), client.create().unwrap()];
    let (server, line) = (scene.server.clone(), scene.line.clone());
    let witness = Witness { server, line, documents, had: Arc::default(), wrong: Arc::default() };
    let watching = tokio::spawn({
        let (witness, client) = (witness.clone(), client.clone());
        async move {
            let look = || {
                witness.look(&client);
                None::<()>
            };
            crate::wait::until(client.inner_shared(), look).await;
        }
    });
    let mut count = 0;
    for disaster in disasters(&mut random) {
        match disaster {
            Disaster::BackUp => scene.server.back_up(),
            Disaster::Restore => scene.server.restore(),
            Disaster::Replace => scene.server.replace(),
            Disaster::Wait(which) => {
                let (witness, had) = (witness.clone(), witness.had(which));
                tokio::spawn(async move {
                    if witness.documents[which].wait_durable(8 * SECOND).await.is_ok() {
                        witness.check("waited", which, &had);
                    }
                });
            }
            Disaster::Accident(step) => {
                scene
                    .play(&[step], |step| {
                        count += 1;
                        match step {
                            Step::Edit(which) => drop(set(&witness.documents[which], "n", count)),
                            Step::OtherEdit(which) => scene.server.edit(witness.documents[which].id(), count),
                            _ => {}
                        }
                        witness.look(&client);
                    })
                    .await;
            }
        }
        tokio::task::yield_now().await;
        witness.look(&client);
    }
    if client.close(3 * SECOND).await.is_err() {
        scene.repair();
        pass(100_000).await;
        let again = client.close(30 * SECOND).await;
        assert!(again.is_ok(), "seed {seed}: {again:?}");
    }
    witness.check_all("close");
    pass(1000).await;
    assert_eq!(outbox.len(), 0, "seed {seed}");
    let removed = outbox.removed.lock().unwrap();
    assert!(removed.iter().all(|(id, hash)| scene.server.ever_had(*id, *hash)), "seed {seed}");
    watching.abort();
    assert_eq!(*witness.wrong.lock().unwrap(), [""; 0], "seed {seed}");
}

#[test]
fn it_holds_at_every_step_over_accidents_and_servers_that_are_restored_or_replaced() {
    for seed in seeds() {
        run(live_through(seed));
    }
}
