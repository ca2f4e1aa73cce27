//! The few kinds of frames that a load generator needs, read and written as cheaply as possible.
//!
//! Deliberately not the core's codec: what is measured and checked here should not depend on the code under test,
//! and the envelope of a document's messages, which never changes, is built only once.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use highwater_core::DocumentId;
use minicbor::{Decoder, Encoder};

/// What both ends of a connection call themselves.
pub(crate) struct Names {
    /// Our peer id.
    pub(crate) ours: String,
    /// The server's peer id.
    pub(crate) server: String,
}

impl Names {
    /// The envelope of our messages of this kind (`sync` or `request`) about a document.
    pub(crate) fn envelope(&self, kind: &str, document: DocumentId) -> Envelope {
        Envelope::new(kind, &self.ours, &self.server, &document.to_string())
    }
}

/// All that comes before the payload in every sync message about one document.
#[derive(Clone)]
pub(crate) struct Envelope(Vec<u8>);

impl Envelope {
    fn new(kind: &str, sender: &str, target: &str, document: &str) -> Self {
        let mut e = Encoder::new(Vec::with_capacity(256));
        let fields = [("type", kind), ("senderId", sender), ("targetId", target), ("documentId", document)];
        let written = e.map(fields.len() as u64 + 1).and_then(|e| {
            for (key, value) in fields {
                e.str(key)?.str(value)?;
            }
            e.str("data")
        });
        debug_assert!(written.is_ok(), "a vector takes everything");
        Self(e.into_writer())
    }

    /// The frame that carries `data`.
    pub(crate) fn wrap(&self, data: &[u8]) -> Bytes {
        let mut frame = Vec::with_capacity(self.0.len() + data.len() + 9);
        frame.extend_from_slice(&self.0);
        let mut e = Encoder::new(frame);
        let written = e.bytes(data).map(drop);
        debug_assert!(written.is_ok(), "a vector takes everything");
        e.into_writer().into()
    }
}

/// The `join` message. The peer is ephemeral: the server need not keep anything about it.
pub(crate) fn join(sender: &str) -> Bytes {
    let mut e = Encoder::new(Vec::with_capacity(256));
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.map(4)?.str("type")?.str("join")?.str("senderId")?.str(sender)?;
        e.str("peerMetadata")?.map(1)?.str("isEphemeral")?.bool(true)?;
        e.str("supportedProtocolVersions")?.array(1)?.str("1")?;
        Ok(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "a vector takes everything");
    e.into_writer().into()
}

/// What a received frame says, as far as it concerns a load generator.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// `type`
    pub(crate) kind: Kind,
    /// `senderId`
    pub(crate) sender: String,
    /// `documentId`
    pub(crate) document: String,
    /// `data`: the sync message.
    pub(crate) data: Bytes,
    /// `message`: what an error says.
    pub(crate) message: String,
}

/// The kinds of frames that are told apart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer to `join`.
    Peer,
    /// A sync message.
    Sync,
    /// The server does not have the document.
    Unavailable,
    /// The server complains.
    Error,
    /// All others; they are skipped.
    #[default]
    Other,
}

impl Frame {
    /// Reads a frame.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self> {
        let mut frame = Self::default();
        let mut d = Decoder::new(bytes);
        let entries = d.map().context("the server sent a frame that is no CBOR map")?;
        let mut entry = 0;
        while entries.is_none_or(|entries| entry < entries) {
            if d.datatype()? == minicbor::data::Type::Break {
                break;
            }
            frame.read_entry(&mut d, bytes)?;
            entry += 1;
        }
        Ok(frame)
    }

    fn read_entry(&mut self, d: &mut Decoder<'_>, frame: &Bytes) -> Result<()> {
        match d.str()? {
            "type" => self.kind = Kind::named(d.str()?),
            "senderId" => self.sender = d.str()?.to_owned(),
            "documentId" => self.document = d.str()?.to_owned(),
            "message" => self.message = d.str()?.to_owned(),
            "data" => self.data = frame.slice_ref(d.bytes()?),
            _ => d.skip()?,
        }
        Ok(())
    }

    /// The sync message's payload; an error if the server complains.
    pub(crate) fn sync(self) -> Result<Option<Bytes>> {
        match self.kind {
            Kind::Sync => Ok(Some(self.data)),
            Kind::Error => bail!("the server says: {}", self.message),
            Kind::Unavailable => bail!("the server does not have document {}", self.document),
            Kind::Peer | Kind::Other => Ok(None),
        }
    }
}

impl Kind {
    fn named(name: &str) -> Self {
        match name {
            "peer" => Self::Peer,
            "sync" | "request" => Self::Sync,
            "doc-unavailable" => Self::Unavailable,
            "error" => Self::Error,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::PeerId;
    use highwater_core::wire::{Body, Message};

    use super::*;

    #[test]
    fn the_core_reads_what_is_written_here() {
        let document = DocumentId::from_bytes([7; 16]);
        let frame = Envelope::new("sync", "me", "you", &document.to_string()).wrap(b"payload");
        let message = Message::decode(&frame).unwrap();
        assert_eq!(message.sender, Some(PeerId::new("me").unwrap()));
        assert_eq!(message.target, Some(PeerId::new("you").unwrap()));
        assert_eq!(message.body, Body::Sync { document, data: Bytes::from_static(b"payload") });
        assert!(matches!(Message::decode(&join("me")).unwrap().body, Body::Join { .. }));
    }

    #[test]
    fn frames_of_the_core_are_read() {
        let document = DocumentId::from_bytes([7; 16]);
        let body = Body::Sync { document, data: Bytes::from_static(b"payload") };
        let bytes = Message { sender: Some(PeerId::new("s").unwrap()), target: None, body }.encode();
        let frame = Frame::read(&bytes).unwrap();
        assert_eq!((frame.kind, frame.document), (Kind::Sync, document.to_string()));
        assert_eq!(frame.data, b"payload"[..]);
        assert!(Frame::read(&Bytes::from_static(b"\xff")).is_err());
    }
}
