//! How long a lone commit takes, and how many rows a second many callers get together.
//!
//! `cargo run --release -p highwater-storage --example throughput [FOLDER]`; without a folder a temporary one is used. What it prints
//! holds for the disk that the folder is on.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use highwater_core::{DocumentId, Record};
use highwater_storage::{SqliteStore, Store, StoreError};

const LONE_COMMITS: usize = 2_000;
const ROWS: u64 = 400_000;
const ROW_BYTES: usize = 120;

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    let temporary = tempfile::tempdir().map_err(|error| StoreError::Open(error.to_string()))?;
    let folder = std::env::args().nth(1);
    let store = SqliteStore::open(folder.as_deref().map_or(temporary.path(), Path::new))?;
    lone(&store).await?;
    for documents in [1, 1_000, 100_000] {
        batched(&store, documents).await?;
        load(&store).await?;
    }
    let start = Instant::now();
    store.close().await?;
    println!("close: {:?}", start.elapsed());
    Ok(())
}

async fn lone(store: &SqliteStore) -> Result<(), StoreError> {
    let mut times = Vec::with_capacity(LONE_COMMITS);
    for number in 0..LONE_COMMITS {
        let start = Instant::now();
        store.append(document(number as u64 % 100), vec![change()]).await?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000];
    println!("lone commit: p50 {:?}, p99 {:?}, max {:?}", at(500), at(990), at(1_000));
    Ok(())
}

async fn batched(store: &SqliteStore, documents: u64) -> Result<(), StoreError> {
    let start = Instant::now();
    let appends = (0..ROWS).map(|number| store.append(document(number % documents), vec![change()]));
    let appends: Vec<_> = appends.collect();
    let queued = start.elapsed();
    try_join_all(appends).await?;
    let per_second = ROWS as f64 / start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    println!("{documents} documents: {per_second:.0} rows/s of {ROW_BYTES} bytes ({queued:?} to queue)");
    Ok(())
}

async fn load(store: &SqliteStore) -> Result<(), StoreError> {
    let start = Instant::now();
    let rows = store.load(document(0)).await?.map_or(0, |stored| stored.changes.len());
    println!("load of {rows} rows: {:?}", start.elapsed());
    Ok(())
}

/// Scattered over the index, as random ids are.
fn document(number: u64) -> DocumentId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    DocumentId::from_bytes(bytes)
}

fn change() -> Record {
    Record::Change { bytes: Bytes::from_static(&[42; ROW_BYTES]) }
}
