//! The program of docs/backends.md: edits a document, and knows that the edit is on the server's disk.

use std::time::Duration;

use highwater_client::Client;
use highwater_client::automerge::transaction::Transactable;
use highwater_client::automerge::{ROOT, ReadDoc};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("HIGHWATER")?.replacen("http", "ws", 1);
    let client = Client::builder(url).outbox("outbox.db").connect().await?;
    let document = client.open(std::env::var("ID")?.parse()?).await?;

    document.change(|tx| match tx.get(ROOT, "text")? {
        Some((_, text)) => tx.splice_text(&text, tx.length(&text), 0, " Low water at one."),
        None => Ok(()),
    })?;
    document.wait_durable(PATIENCE).await?;
    println!("on the server's disk");

    // So is everything else after this; or an error lists what is not, and the outbox brings it the next time.
    client.close(PATIENCE).await?;
    Ok(())
}
