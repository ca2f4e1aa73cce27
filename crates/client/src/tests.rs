//! The client on a line that can be cut, to a server that can be stopped, under a clock that the test advances.

mod close;
mod connection;
mod deleted;
mod outbox;
mod rejected;
mod repeated;
mod saved;
mod schedule;
mod server;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutomergeError, ROOT, ReadDoc};
use futures::future::BoxFuture;

use crate::engine::Random;
use crate::{
    Builder, ChangeHash, Client, Document, DocumentId, OutboxBatch, OutboxChange, OutboxError, OutboxStore,
};
use server::{FakeServer, Line};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a test under a clock that goes on by itself whenever nobody has anything to do.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    // By that clock, which costs nothing: a test that waits for what never comes fails.
    let test = async { tokio::time::timeout(48 * 3600 * SECOND, test).await.expect("an end") };
    runtime.expect("a runtime").block_on(test)
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A builder for clients on any line.
fn builder() -> Builder {
    Client::builder("ws://server.test")
}

async fn client_on(line: &Line, builder: Builder) -> Client {
    builder.connect_with(Arc::new(line.clone()), Random::new(1)).await.expect("a client")
}

/// A client with this outbox.
async fn client_with(line: &Line, outbox: &MemoryOutbox) -> Client {
    client_on(line, builder().outbox_store(outbox.clone())).await
}

/// A client of this server, on a line of its own.
async fn client(server: &FakeServer) -> (Client, Line) {
    let line = server.line();
    (client_on(&line, builder()).await, line)
}

/// A client with a document, in which `n` is 1, that the server has.
async fn client_with_saved_document(server: &FakeServer) -> (Client, Line, Document) {
    let (client, line) = client(server).await;
    let document = client.create().unwrap();
    set(&document, "n", 1);
    document.wait_durable(SECOND).await.unwrap();
    (client, line, document)
}

fn set(document: &Document, key: &str, value: i64) -> ChangeHash {
    document.change(|tx| tx.put(ROOT, key, value)).expect("a change").expect("an edit")
}

fn get(document: &Document, key: &str) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, key).unwrap().and_then(|(value, _)| value.as_i64())).unwrap()
}

/// A change that the server refuses.
fn set_refused(document: &Document, key: &str) -> ChangeHash {
    let options = CommitOptions::default().with_message(server::REFUSED);
    let (hash, ()) = document.change_with::<_, AutomergeError>(options, |tx| tx.put(ROOT, key, 0)).unwrap();
    hash.unwrap()
}

/// An outbox in memory, which outlives its clients.
#[derive(Clone, Default)]
struct MemoryOutbox {
    kept: Arc<Mutex<Kept>>,
    /// What was ever taken out of it.
    removed: Arc<Mutex<Vec<(DocumentId, ChangeHash)>>>,
    /// The changes of each batch that was put into it.
    batches: Arc<Mutex<Vec<Vec<ChangeHash>>>>,
    how: Arc<Mutex<How>>,
}

/// With the order in which they were put.
type Kept = BTreeMap<(DocumentId, ChangeHash), (u64, OutboxChange)>;

/// How a store behaves.
#[derive(Clone, Copy, Default)]
struct How {
    write_ms: u64,
    fails: bool,
    is_silent: bool,
    hangs: bool,
}

impl MemoryOutbox {
    fn set(&self, change: impl FnOnce(&mut How)) {
        change(&mut self.how.lock().unwrap());
    }

    fn len(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    fn has(&self, document: DocumentId, hash: ChangeHash) -> bool {
        self.kept.lock().unwrap().contains_key(&(document, hash))
    }
}

impl OutboxStore for MemoryOutbox {
    fn load(&self) -> BoxFuture<'static, Result<Vec<OutboxChange>, OutboxError>> {
        let mut kept: Vec<_> = self.kept.lock().unwrap().values().cloned().collect();
        kept.sort_by_key(|(seq, _)| *seq);
        if self.how.lock().unwrap().is_silent {
            return Box::pin(std::future::pending());
        }
        Box::pin(async move { Ok(kept.into_iter().map(|(_, change)| change).collect()) })
    }

    fn write(&self, batch: OutboxBatch) -> BoxFuture<'static, Result<(), OutboxError>> {
        let this = self.clone();
        let How { write_ms, fails, hangs, .. } = *self.how.lock().unwrap();
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            pass(write_ms).await;
            if fails {
                return Err(OutboxError::new("in memory", "the test says so"));
            }
            this.batches.lock().unwrap().push(batch.put.iter().map(|change| change.hash).collect());
            let mut kept = this.kept.lock().unwrap();
            for change in batch.put {
                let seq = kept.values().map(|(seq, _)| seq + 1).max().unwrap_or(0);
                kept.entry((change.document, change.hash)).or_insert((seq, change));
            }
            for key in batch.remove {
                this.removed.lock().unwrap().push(key);
                kept.remove(&key);
            }
            Ok(())
        })
    }
}
