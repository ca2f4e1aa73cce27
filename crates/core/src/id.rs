//! Identifiers: documents, peers, storages, and change hashes.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::ID_BYTES_MAX;

mod prefix;

pub use automerge::{ActorId, ChangeHash};

/// The 16 bytes that name a document.
///
/// On the wire and in URLs it is written as base58check without a version byte: the payload followed by the
/// first four bytes of its double SHA-256, about 27 characters (automerge-repo's `DocumentId`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId([u8; 16]);

impl DocumentId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they are stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The ids whose text begins with `prefix`, as ranges in order: a few, because texts of different lengths lie apart. With or without the `automerge:` of URLs.
    pub fn with_prefix(prefix: &str) -> Vec<RangeInclusive<Self>> {
        prefix::ranges(prefix.strip_prefix("automerge:").unwrap_or(prefix))
    }

    /// The next id in order, if this is not the last.
    pub fn next(self) -> Option<Self> {
        u128::from_be_bytes(self.0).checked_add(1).map(|next| Self(next.to_be_bytes()))
    }

    /// The id before in order, if this is not the first.
    pub fn previous(self) -> Option<Self> {
        u128::from_be_bytes(self.0).checked_sub(1).map(|previous| Self(previous.to_be_bytes()))
    }
}

/// A text that is no document id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a document id: expected the base58check form of 16 bytes")]
pub struct InvalidDocumentId;

impl FromStr for DocumentId {
    type Err = InvalidDocumentId;

    /// Reads the base58check form, with or without the `automerge:` prefix that URLs carry.
    fn from_str(text: &str) -> Result<Self, InvalidDocumentId> {
        let text = text.strip_prefix("automerge:").unwrap_or(text);
        if text.len() > 40 {
            return Err(InvalidDocumentId);
        }
        // 16 bytes and a 4-byte checksum; anything longer fails because the buffer has no room for it.
        let mut buffer = [0u8; 20];
        let written = bs58::decode(text).with_check(None).onto(&mut buffer).map_err(|_| InvalidDocumentId)?;
        buffer[..written].try_into().map(Self).map_err(|_| InvalidDocumentId)
    }
}

impl TryFrom<&[u8]> for DocumentId {
    type Error = InvalidDocumentId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidDocumentId> {
        bytes.try_into().map(Self).map_err(|_| InvalidDocumentId)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).with_check().into_string())
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text id chosen by a client: longer than allowed, empty, or with characters that have no place in an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected 1 to {ID_BYTES_MAX} bytes of text without control characters")]
pub struct InvalidId;

fn checked(text: &str) -> Result<Arc<str>, InvalidId> {
    if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(InvalidId);
    }
    Ok(text.into())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the length and the characters of `text`.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                checked(text).map(Self)
            }

            /// The id as it is written on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_id! {
    /// Names one end of a connection: a tab, a process. Chosen by that end; never trusted, never a path.
    PeerId
}
text_id! {
    /// Names the storage behind a peer. Several peers may share one (tabs of one browser).
    StorageId
}
text_id! {
    /// Names one run of a peer's ephemeral messages.
    SessionId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_id_round_trips_and_checks_its_checksum() {
        let id = DocumentId::from_bytes(*b"0123456789abcdef");
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(format!("automerge:{text}").parse(), Ok(id));
        let mut damaged = text.clone().into_bytes();
        damaged[3] = if damaged[3] == b'2' { b'3' } else { b'2' };
        assert_eq!(String::from_utf8(damaged).unwrap().parse::<DocumentId>(), Err(InvalidDocumentId));
    }

    #[test]
    fn texts_that_are_no_document_id_are_refused() {
        for text in ["", "automerge:", "0OIl", "../../etc/passwd", &"2".repeat(27), &"z".repeat(4000)] {
            assert_eq!(text.parse::<DocumentId>(), Err(InvalidDocumentId), "{text}");
        }
    }

    #[test]
    fn text_ids_are_bounded() {
        assert!(PeerId::new("peer-1").is_ok());
        assert_eq!(PeerId::new(""), Err(InvalidId));
        assert_eq!(PeerId::new("a\nb"), Err(InvalidId));
        assert_eq!(PeerId::new(&"x".repeat(ID_BYTES_MAX + 1)), Err(InvalidId));
    }
}
