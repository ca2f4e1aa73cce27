//! Everything that can go wrong, as the application sees it.

use std::fmt;

use automerge::AutomergeError;
use highwater_core::{ChangeHash, DocumentId};

use crate::engine::Unusable;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A change that the server refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedChange {
    /// The change.
    pub hash: ChangeHash,
    /// The server's words.
    pub reason: String,
}

/// The changes of one document that are not on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsavedDocument {
    /// The document.
    pub document: DocumentId,
    /// All changes that the server has not called durable, in causal order. Includes the rejected ones. Empty if the server has only not said yet, on
    /// this connection, that it still has what it had.
    pub hashes: Vec<ChangeHash>,
    /// Those of them that the server has refused, with its words. Those that build on them are as lost.
    pub rejected: Vec<RejectedChange>,
    /// Whether all of them are in the outbox, durably. Without an outbox: never.
    pub in_outbox: bool,
}

/// Why waiting for the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsavedReason {
    /// The server did not confirm them in time.
    Timeout,
    /// The server refused some of them for good.
    Rejected,
    /// Somebody deleted a document on the server: nothing more of it will ever be taken.
    Deleted,
    /// The connection has ended for good.
    Stopped(Stopped),
    /// The client was closed or disconnected meanwhile.
    Closed,
}

/// Waiting ended while these changes were not durable on the server. What was in the outbox still is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsavedChanges {
    /// What ended the wait.
    pub reason: UnsavedReason,
    /// The documents, each with its changes.
    pub documents: Vec<UnsavedDocument>,
}

impl fmt::Display for UnsavedChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.documents.iter().map(|document| document.hashes.len()).sum();
        write!(f, "{count} changes are not saved on the server (")?;
        for (number, unsaved) in self.documents.iter().enumerate() {
            write!(f, "{}{}", if number > 0 { ", " } else { "" }, unsaved.document)?;
        }
        match &self.reason {
            UnsavedReason::Timeout => {
                write!(f, "): it did not confirm them in time; wait longer, or keep the outbox")
            }
            UnsavedReason::Rejected => write!(f, "): it refused some of them for good; show what they are"),
            UnsavedReason::Deleted => {
                write!(f, "): it was deleted there; keep what is here elsewhere, or discard it")
            }
            UnsavedReason::Stopped(stopped) => write!(f, "): {stopped}"),
            UnsavedReason::Closed => write!(f, "): the client was closed"),
        }
    }
}

impl std::error::Error for UnsavedChanges {}

/// The server ended the connection in a way that makes coming back useless. `Client::reconnect` tries again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The WebSocket close code; docs/protocol.md lists them.
    pub code: u16,
    /// What can be done about it.
    pub advice: &'static str,
    /// The server's words; may be empty.
    pub said: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was closed for good ({}): {}", self.code, self.advice)?;
        if self.said.is_empty() { Ok(()) } else { write!(f, "; the server says: {}", self.said) }
    }
}

impl std::error::Error for Stopped {}

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The url is none that can be connected to.
    #[error("cannot connect to `{url}`: {why}")]
    Url {
        /// The url.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system gives no random bytes, so there are no ids that nobody else has.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The outbox cannot be read. Nothing is sent or changed then, so nothing that it holds is overlooked.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// The outbox cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the outbox {place}: {why}")]
pub struct OutboxError {
    /// Where the outbox is.
    pub place: String,
    /// What happened.
    #[source]
    pub why: Cause,
}

impl OutboxError {
    /// An error of the outbox at `place`.
    pub fn new(place: impl Into<String>, why: impl Into<Cause>) -> Self {
        Self { place: place.into(), why: why.into() }
    }
}

/// Why a document was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The server has no such document.
    #[error("the server has no document {0}")]
    Unavailable(DocumentId),
    /// Somebody deleted the document on the server, for good.
    #[error("document {0} was deleted")]
    Deleted(DocumentId),
    /// The server has not sent the document in time.
    #[error("the server has not sent document {0} in time; is it reachable?")]
    Timeout(DocumentId),
    /// The connection has ended for good.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Too many documents are open.
    #[error("more than {max} documents are open; close some")]
    TooManyDocuments {
        /// How many may be.
        max: usize,
    },
    /// What the server sent is nothing that `automerge` can read.
    #[error("the document cannot be used: {0}")]
    Broken(String),
    /// The system gives no random bytes, so there is no id for a new document.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a document was not changed. Nothing of the edit is left in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError<E = AutomergeError> {
    /// The edit's own error.
    #[error("{0}")]
    Edit(E),
    /// Too much waits for the server already.
    #[error("more than {max} bytes of changes are not saved on the server; wait for it")]
    TooMuchUnsaved {
        /// How many may be.
        max: usize,
    },
    /// The change is beyond a limit that every server has, which this names.
    #[error("no server takes so large a change ({0}); make several smaller ones")]
    TooLarge(String),
    /// Somebody deleted the document on the server, for good.
    #[error("the document was deleted on the server")]
    Deleted,
    /// `automerge` failed on the document before.
    #[error("the document cannot be used: {0}")]
    Broken(String),
    /// The document or the client is closed.
    #[error("the document is closed")]
    Closed,
}

impl<E> ChangeError<E> {
    pub(crate) fn unusable(why: Unusable) -> Self {
        match why {
            Unusable::Closed => Self::Closed,
            Unusable::Broken(why) => Self::Broken(why),
        }
    }
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// `automerge` failed on the document before.
    #[error("the document cannot be used: {0}")]
    Broken(String),
    /// The document or the client is closed.
    #[error("the document is closed")]
    Closed,
}

impl From<Unusable> for ReadError {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Closed => Self::Closed,
            Unusable::Broken(why) => Self::Broken(why),
        }
    }
}

/// Why the server did not say whether a change is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is no connection, or it ended before the answer.
    #[error("not connected; ask again when the connection is back")]
    NotConnected,
    /// The server does not know Highwater's extensions.
    #[error("the server cannot be asked about single changes")]
    NotSupported,
    /// The server did not answer.
    #[error("the server did not answer in time")]
    Timeout,
    /// Too many questions wait for an answer.
    #[error("too many questions wait for an answer")]
    TooMany,
}
