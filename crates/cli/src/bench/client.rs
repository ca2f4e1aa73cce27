//! A connection with one document on it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use highwater_core::DocumentId;

use super::connection::Connection;
use super::frame::Frame;
use super::prepare::Chain;
use super::replica::{Received, Replica};

/// A client that has one document open.
pub(crate) struct Client {
    connection: Connection,
    /// Its copy of the document.
    pub(crate) replica: Replica,
}

impl Client {
    /// Connects, brings the base of the chain to the server, and waits until the server has it.
    pub(crate) async fn upload(url: &str, document: DocumentId, chain: &Arc<Chain>) -> Result<Self> {
        Self::start(url, document, chain, true).await
    }

    /// Connects with a copy of a document that the server has already.
    pub(crate) async fn open(url: &str, document: DocumentId, chain: &Arc<Chain>) -> Result<Self> {
        Self::start(url, document, chain, false).await
    }

    async fn start(url: &str, document: DocumentId, chain: &Arc<Chain>, upload: bool) -> Result<Self> {
        let connection = Connection::open(url).await?;
        let replica = Replica::of_chain(connection.names(), document, chain.clone());
        let mut client = Self { connection, replica };
        let opening = client.replica.open(upload);
        client.send(opening).await?;
        while !client.replica.is_uploaded() {
            client.step().await?;
        }
        Ok(client)
    }

    /// Puts the next edit into the buffer. False when there are no more.
    pub(crate) async fn feed_edit(&mut self) -> Result<bool> {
        match self.replica.edit() {
            Some(frame) => self.connection.feed(frame).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Sends what is in the buffer.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.connection.flush().await
    }

    /// Takes in one frame without answering. For a writer whose next edit is the answer.
    pub(crate) async fn receive(&mut self) -> Result<Received> {
        let frame = self.connection.next().await?;
        self.take(frame)
    }

    /// Takes in one frame and answers it.
    pub(crate) async fn step(&mut self) -> Result<Received> {
        let received = self.receive().await?;
        self.answer().await?;
        Ok(received)
    }

    /// Answers what was received, as far as there is something to say.
    pub(crate) async fn answer(&mut self) -> Result<()> {
        match self.replica.reply() {
            Some(frame) => self.send(frame).await,
            None => Ok(()),
        }
    }

    /// Takes in and answers frames until `end` resolves.
    pub(crate) async fn attend<T>(&mut self, end: impl Future<Output = T>) -> Result<T> {
        let mut end = pin!(end);
        loop {
            // Only the wait for a frame is raced; a frame that came is taken in and answered whole.
            let frame = tokio::select! {
                biased;
                value = &mut end => return Ok(value),
                frame = self.connection.next() => frame?,
            };
            self.take(frame)?;
            self.answer().await?;
        }
    }

    /// Closes in good order.
    pub(crate) async fn close(self) {
        self.connection.close().await;
    }

    async fn send(&mut self, frame: bytes::Bytes) -> Result<()> {
        self.connection.feed(frame).await?;
        self.connection.flush().await
    }

    fn take(&mut self, frame: Frame) -> Result<Received> {
        if !frame.document.is_empty() && frame.document != self.replica.document() {
            return Ok(Received::default());
        }
        match frame.sync()? {
            Some(data) => self.replica.receive(data),
            None => Ok(Received::default()),
        }
    }
}
