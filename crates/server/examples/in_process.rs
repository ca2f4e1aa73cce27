//! The program of docs/backends.md: documents in the process, and a router for those who come from outside.

use std::time::Duration;

use highwater_server::{Edit, EditOptions, NewDocument, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let embedded = Server::builder().data_dir("./documents").embed().await?;
    let documents = embedded.documents();

    let content = NewDocument::Edit(Edit::set(br#"{"title": "Tides", "views": {"$counter": 0}}"#)?);
    let made = documents.create(None, content, EditOptions::default()).await?;
    let edit = Edit::json_patch(br#"[{"op": "increment", "path": "/views", "by": 1}]"#)?;
    documents.edit(made.id, edit, EditOptions::default()).await?;
    println!("{}", documents.json(made.id).await?.value);

    // Frontends connect to /documents/v1/sync of the application's own server, and other backends find this API there.
    let _application: axum::Router = axum::Router::new().nest("/documents", embedded.router());

    embedded.drain(Duration::from_secs(5)).await?;
    Ok(())
}
