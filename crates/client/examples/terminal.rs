//! A terminal program: a note that several people write. Each line that is typed is added to it, and what the others add appears. Works offline; what is not
//! on the server is in the outbox.
//!
//! `cargo run -p highwater-client --example terminal -- ws://127.0.0.1:3030 [document] [outbox]`, against `highwater serve`. An empty line or the end of the input ends it.

use std::error::Error;
use std::time::Duration;

use highwater_client::automerge::transaction::Transactable;
use highwater_client::automerge::{Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc};
use highwater_client::{Client, Document, DocumentId, OpenError, SaveStatus};
use tokio::io::{AsyncBufReadExt, BufReader};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:3030".to_owned());
    let id = arguments.next().filter(|id| !id.is_empty());
    let outbox = arguments.next().unwrap_or_else(|| "note-outbox.db".to_owned());
    let client = Client::builder(url).outbox(outbox).open_timeout(PATIENCE).connect().await?;
    let written = take_part(&client, id).await;
    if let Err(unsaved) = client.close(PATIENCE).await {
        // It is in the outbox, and sent the next time.
        println!("{unsaved}");
        client.disconnect().await;
    }
    written
}

async fn take_part(client: &Client, id: Option<String>) -> Result<(), Box<dyn Error>> {
    let document = match id {
        Some(id) => open(client, id.parse()?).await?,
        None => create(client)?,
    };
    println!("{}", document.url());
    write(&document).await
}

/// Without a connection it is empty, or what the outbox has of it, until there is one.
async fn open(client: &Client, id: DocumentId) -> Result<Document, OpenError> {
    match client.open(id).await {
        Err(OpenError::Timeout(_)) => client.document(id),
        opened => opened,
    }
}

fn create(client: &Client) -> Result<Document, Box<dyn Error>> {
    let document = client.create()?;
    document.change(|tx| tx.put_object(ROOT, "text", ObjType::Text))?;
    Ok(document)
}

/// Adds what is typed, and shows what others add and where our changes are.
async fn write(document: &Document) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut watch = document.watch();
    let mut status = document.save_status();
    let mut shown = Vec::new();
    loop {
        show(document, &mut shown)?;
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) if !line.is_empty() => add(document, &line)?,
                _ => return Ok(()),
            },
            heads = watch.changed() => if heads.is_none() { return Ok(()) },
            now = document.save_status_changed(&status) => {
                status = now;
                say(&status);
            }
        }
    }
}

fn add(document: &Document, line: &str) -> Result<(), Box<dyn Error>> {
    document.change(|tx| {
        let note = match note(tx)? {
            Some(note) => note,
            None => tx.put_object(ROOT, "text", ObjType::Text)?,
        };
        tx.splice_text(&note, tx.length(&note), 0, &format!("{line}\n"))
    })?;
    Ok(())
}

/// Shows the lines from the first on that is another one than was shown.
fn show(document: &Document, shown: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let text = document.read(text)??;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let same = lines.iter().zip(&*shown).take_while(|(now, before)| now == before).count();
    for line in &lines[same..] {
        println!("| {line}");
    }
    *shown = lines;
    Ok(())
}

fn say(status: &SaveStatus) {
    match status.unsaved_changes {
        0 => println!("({})", status.state),
        count => println!("({}: {count} changes, {:?} old)", status.state, status.oldest_unsaved_age()),
    }
}

fn note(doc: &impl ReadDoc) -> Result<Option<ObjId>, AutomergeError> {
    let found = doc.get(ROOT, "text")?;
    Ok(found.filter(|(value, _)| value.is_object()).map(|(_, object)| object))
}

fn text(doc: &Automerge) -> Result<String, AutomergeError> {
    note(doc)?.map_or(Ok(String::new()), |note| doc.text(&note))
}
