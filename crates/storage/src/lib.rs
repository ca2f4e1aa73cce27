//! Where changes become durable.
//!
//! One trait, [`Store`], with what it promises written on it; [`MemoryStore`] for tests, [`SqliteStore`] for servers,
//! and [`FaultyStore`], which fails, stalls and loses power on request. The same [`conformance`] suite runs against all.

mod store;

pub use store::{Identity, QuarantinedChange, Store, StoreError, StoreFuture, StoredDocument};
