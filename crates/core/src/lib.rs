//! Highwater's core: the protocol, the history graph and the sync state machine of an Automerge sync server, without any I/O.
//!
//! Nothing here reads a clock, a file, a socket, the environment or a random source. Whoever drives it passes in what was received
//! and what became durable (`handle_*`), and carries out what it asks for (`poll_*`).

pub mod change;
pub mod document;
mod history;
pub mod id;
pub mod limits;
mod materialised;
mod record;
mod session;
pub mod snapshot;
pub mod sync;
pub mod wire;

pub use document::Document;
pub use id::{ActorId, ChangeHash, DocumentId, PeerId, SessionId, StorageId};
pub use materialised::{Materialised, Saved, first_unfit};
pub use record::Record;
pub use session::{CloseReason, Input, Session};
pub use snapshot::{Snapshot, SnapshotIndex, SnapshotInfo};
