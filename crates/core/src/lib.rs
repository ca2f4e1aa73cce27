//! Highwater's core: the protocol, the history graph and the sync state machine of an Automerge sync server, without any I/O.
//!
//! Nothing here reads a clock, a file, a socket, the environment or a random source. Whoever drives it passes in what was received
//! and what became durable (`handle_*`), and carries out what it asks for (`poll_*`).

pub mod change;
pub mod document;
pub mod edit;
mod history;
pub mod id;
mod json;
pub mod limits;
mod materialised;
pub mod read;
mod record;
mod session;
pub mod snapshot;
pub mod sync;
pub mod wire;

pub use document::Document;
pub use edit::{Edit, EditError, EditReason, MadeChange, Stamp};
pub use id::{ActorId, ChangeHash, DocumentId, PeerId, SessionId, StorageId};
pub use materialised::{Materialised, Saved, first_unfit};
pub use read::{ChangeMeta, PatchJson, ReadError};
pub use record::Record;
pub use session::{CloseReason, Input, Session};
pub use snapshot::{Snapshot, SnapshotIndex, SnapshotInfo};
