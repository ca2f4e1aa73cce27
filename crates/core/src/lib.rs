//! Highwater's core.
pub mod id;
pub mod limits;
mod record;
pub use id::{ActorId, ChangeHash, DocumentId, PeerId, SessionId, StorageId};
pub use record::Record;
