//! Where changes become durable.
//!
//! One trait, [`Store`], with what it promises written on it; [`MemoryStore`] for tests, [`SqliteStore`] for servers,
//! and [`FaultyStore`], which fails, stalls and loses power on request. The same [`conformance`] suite runs against all.

pub mod conformance;
mod faulty;
mod memory;
mod queue;
mod sqlite;
mod store;

pub use faulty::{FaultyStore, Pace};
pub use memory::MemoryStore;
pub use sqlite::{CheckEvent, CheckedDocument, DamagedRow, FILE_NAME, ReadOnlyStore, SqliteStore};
pub use store::{
    ANSWER_KEPT_MS, Deliveries, Delivery, DeliveryState, DocumentEntry, Found, Identity, ListDocuments, Note,
    QuarantinedChange, Store, StoreError, StoreFuture, StoredAnswer, StoredDocument,
};
