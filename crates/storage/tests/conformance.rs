//! The suite that every store must pass, run on each of ours.

use std::cell::RefCell;
use std::sync::Arc;

use futures::executor::block_on;
use highwater_storage::{FaultyStore, MemoryStore, Pace, SqliteStore, conformance};

#[test]
fn memory() {
    let first = MemoryStore::new();
    block_on(conformance::run(|| Arc::new(first.reopen())));
}

#[test]
fn faulty_without_faults() {
    let last = RefCell::new(FaultyStore::new(Pace::Immediate));
    block_on(conformance::run(|| {
        let next = last.borrow().reopen();
        last.replace(next.clone());
        Arc::new(next)
    }));
}

#[test]
fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    block_on(conformance::run(|| Arc::new(SqliteStore::open(dir.path()).unwrap())));
}

#[tokio::test]
async fn sqlite_in_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(|| Arc::new(SqliteStore::open(&dir.path().join("new/folder")).unwrap())).await;
}
