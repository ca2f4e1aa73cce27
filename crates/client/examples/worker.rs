//! A backend worker: follows a document and edits it. It keeps the number of words in `text` in `words`, beside the people who write.
//!
//! `cargo run -p highwater-client --example worker -- ws://127.0.0.1:3030 [document] [outbox]`, against `highwater serve`; without a document it makes one. Ctrl-C ends it, when all is saved.

use std::error::Error;
use std::time::Duration;

use highwater_client::automerge::transaction::Transactable;
use highwater_client::automerge::{Automerge, AutomergeError, ObjType, ROOT, ReadDoc};
use highwater_client::{Client, Document, UnsavedReason};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:3030".to_owned());
    let id = arguments.next().filter(|id| !id.is_empty());
    let mut builder = Client::builder(url);
    if let Some(path) = arguments.next() {
        builder = builder.outbox(path);
    }
    let client = builder.connect().await?;
    let worked = work(&client, id).await;
    // However that ended: everything is on the server's disk after this, or an error says what is not.
    if let Err(unsaved) = client.close(PATIENCE).await {
        // With an outbox it is sent the next time.
        client.disconnect().await;
        worked?;
        return Err(unsaved.into());
    }
    worked
}

async fn work(client: &Client, id: Option<String>) -> Result<(), Box<dyn Error>> {
    let document = match id {
        Some(id) => client.open(id.parse()?).await?,
        None => create(client)?,
    };
    println!("following {}", document.url());
    tokio::select! {
        followed = follow(&document) => followed,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

fn create(client: &Client) -> Result<Document, Box<dyn Error>> {
    let document = client.create()?;
    document.change(|tx| tx.put_object(ROOT, "text", ObjType::Text))?;
    Ok(document)
}

async fn follow(document: &Document) -> Result<(), Box<dyn Error>> {
    let mut watch = document.watch();
    loop {
        let (words, noted) = document.read(count)??;
        if noted != Some(words) {
            let hash = document.change(|tx| tx.put(ROOT, "words", words))?;
            let hash = hash.map(|hash| hash.to_string()).unwrap_or_default();
            match document.wait_durable(PATIENCE).await {
                Ok(()) => println!("{words} words, saved as {hash}"),
                // An outage ends; the client goes on trying.
                Err(unsaved) if unsaved.reason == UnsavedReason::Timeout => eprintln!("{unsaved}"),
                Err(unsaved) => return Err(unsaved.into()),
            }
        }
        // However much is typed meanwhile, it is told as one.
        if watch.changed().await.is_none() {
            return Ok(());
        }
    }
}

/// The number of words there is, and the one that was noted.
fn count(doc: &Automerge) -> Result<(i64, Option<i64>), AutomergeError> {
    let text = match doc.get(ROOT, "text")? {
        Some((value, object)) if value.is_object() => doc.text(object)?,
        Some((value, _)) => value.into_string().unwrap_or_default(),
        None => String::new(),
    };
    let noted = doc.get(ROOT, "words")?.and_then(|(value, _)| value.as_i64());
    Ok((text.split_whitespace().count() as i64, noted))
}
