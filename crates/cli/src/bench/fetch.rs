//! A fresh client that wants a document and has nothing of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use automerge::{Automerge, LoadOptions, OnPartialLoad};
use bytes::Bytes;
use highwater_core::sync::Message;
use highwater_core::{ChangeHash, DocumentId};

use super::connection::Connection;
use super::frame::Kind;
use super::replica::Replica;

/// A document as it was fetched.
pub(crate) struct Fetched {
    /// The chunks, in the order in which they came. Empty if the server has none.
    pub(crate) blobs: Vec<Bytes>,
    /// What the server said its heads were.
    pub(crate) heads: Vec<ChangeHash>,
    /// From the request to the moment when the last of it arrived.
    pub(crate) latency: Duration,
    /// The server said that it does not have the document.
    pub(crate) unavailable: bool,
}

impl Fetched {
    /// Loads what came with `automerge`, and checks that it is what the server said it was.
    pub(crate) fn load(&self) -> Result<Automerge> {
        let mut document = Automerge::new();
        let bytes = self.blobs.concat();
        if !bytes.is_empty() {
            let options = LoadOptions::new().on_partial_load(OnPartialLoad::Error);
            document = Automerge::load_with_options(&bytes, options)
                .context("the document that the server sent cannot be loaded")?;
        }
        if document.get_heads() != self.heads {
            bail!("the document that the server sent does not have the heads that it announced");
        }
        Ok(document)
    }

    /// How many bytes came, apart from the envelopes.
    pub(crate) fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.len() as u64).sum()
    }
}

/// Asks for a document and waits until all that the server has of it is there.
pub(crate) async fn fetch(connection: &mut Connection, document: DocumentId) -> Result<Fetched> {
    let mut replica = Replica::new(connection.names(), document);
    let started = Instant::now();
    connection.feed(replica.fetch()).await?;
    connection.flush().await?;
    let mut blobs = Vec::new();
    loop {
        let frame = connection.next().await?;
        // The clock stops when the last frame has come; what we then do with it is our own affair.
        let latency = started.elapsed();
        if frame.document != replica.document() && !frame.document.is_empty() {
            continue;
        }
        if frame.kind == Kind::Unavailable {
            return Ok(Fetched { blobs, heads: vec![], latency, unavailable: true });
        }
        let Some(data) = frame.sync()? else { continue };
        let message = Message::decode(data.clone())?;
        blobs.extend(message.chunks);
        let received = replica.receive(data)?;
        // A server without the document also says that it has no heads; what counts then is that it says "unavailable".
        let done = received.complete && !message.heads.is_empty();
        if let Some(reply) = replica.reply() {
            connection.feed(reply).await?;
            connection.flush().await?;
        }
        if done {
            return Ok(Fetched { blobs, heads: message.heads, latency, unavailable: false });
        }
    }
}
