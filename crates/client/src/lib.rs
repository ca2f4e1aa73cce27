//! The client of Highwater for Rust: it knows which changes the server has on disk, keeps the others until it has, and says so in words
//! that can be shown.
//!
//! ```
//! use std::time::Duration;
//!
//! use automerge::transaction::Transactable;
//! use automerge::{ROOT, ReadDoc};
//! use highwater_client::Client;
//! # use highwater_server::{Config, OpenStore, Server};
//! # use highwater_storage::{MemoryStore, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let store = std::sync::Arc::new(MemoryStore::new());
//! # let open: OpenStore = std::sync::Arc::new(move || Ok(store.clone() as std::sync::Arc<dyn Store>));
//! # let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() };
//! # let server = Server::bind(config, open).await?;
//! # let url = format!("ws://{}", server.local_addr()?);
//! # tokio::spawn(server.run(std::future::pending()));
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("outbox.db");
//! let client = Client::builder(url).outbox(path).connect().await?;
//!
//! let doc = client.create()?;
//! let hash = doc.change(|tx| tx.put(ROOT, "title", "Tides"))?;
//! doc.wait_durable(Duration::from_secs(5)).await?;                // on the server's disk
//!
//! let again = client.open(doc.id()).await?;
//! let title = again.read(|doc| doc.get(ROOT, "title").map(|found| found.map(|(value, _)| value.to_string())))??;
//! assert_eq!(title.as_deref(), Some("\"Tides\""));
//! assert!(again.is_saved(hash.expect("the edit did something")).await?);
//!
//! client.close(Duration::from_secs(5)).await?;                    // all of it is, or an error that lists what is not
//! # Ok(())
//! # }
//! ```
//!
//! **What "saved" means.** A change is saved when the server has named its hash, or one that builds on it, among what is durable. Whether a socket is open, or
//! something was handed to it, counts for nothing. On each connection the server says anew what it has, since it may be another one, or one that was restored
//! from a backup: until then nothing is called saved. [`SaveState`] has the words.
//!
//! **What is refused.** A server may refuse a change for good, or somebody may delete the document there. Nobody waits for that: what waits ends at once, with the
//! changes by hash and the server's reasons. They are kept, also in the outbox, until [`Document::discard_rejected`] takes them back.
//!
//! **What survives what.** With an outbox, a change is written to a file on this device at once, beside being sent, and stays there until the server has
//! called it durable; [`SaveState::SavedOnDevice`] says that it has got there. What is in the file is sent when a client next uses it, without the
//! application opening the document. The connection is made anew whenever it ends, unless the server closed it with a code that makes that pointless.

mod client;
mod document;
mod driver;
mod engine;
mod error;
pub mod limits;
mod line;
mod outbox;
mod status;
mod token;
mod wait;

#[cfg(test)]
mod tests;

pub use automerge;
pub use client::{Builder, Client};
pub use document::{Document, Watch};
pub use error::{
    AskError, ChangeError, ConnectError, OpenError, OutboxError, ReadError, RejectedChange, Stopped,
    UnsavedChanges, UnsavedDocument, UnsavedReason,
};
pub use highwater_core::{ChangeHash, DocumentId};
#[cfg(feature = "sqlite")]
pub use outbox::SqliteOutbox;
pub use outbox::{OutboxBatch, OutboxChange, OutboxStore};
pub use status::{SaveState, SaveStatus};
pub use token::TokenRequest;
