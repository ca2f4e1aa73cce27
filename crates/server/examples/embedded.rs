//! A web application with documents in it: `embedded 127.0.0.1:8080 ./highwater-data`, until Ctrl-C.
//!
//! Clients of automerge-repo connect to `ws://127.0.0.1:8080/documents/v1/sync`, and backends find the HTTP API at `/documents/v1/api`. `POST /visits/{id}` is a route of the application's
//! own, which edits a document in the process: everybody who has it open sees the counter go up.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use highwater_server::{
    DocumentError, DocumentId, Documents, Edit, EditOptions, Embedded, NewDocument, Server,
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned()).parse()?;
    let folder = arguments.next().unwrap_or_else(|| "./highwater-data".to_owned());

    let embedded = Server::builder().data_dir(folder).embed().await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let serving = tokio::spawn(axum::serve(listener, application(&embedded)).into_future());
    tokio::signal::ctrl_c().await?;
    // What clients sent is made durable and acknowledged before they are sent away.
    embedded.drain(Duration::from_secs(20)).await?;
    serving.abort();
    Ok(())
}

fn application(embedded: &Embedded) -> Router {
    Router::new()
        .route("/", get(async || "An application with documents in it.\n"))
        .route("/visits/{id}", post(visit))
        .with_state(embedded.documents())
        // Whoever may not use the documents is to be turned away by a layer around this.
        .nest("/documents", embedded.router())
}

/// Counts a visit. The answer comes when it is on disk.
async fn visit(
    State(documents): State<Documents>,
    Path(id): Path<String>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let id = id.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}")))?;
    match count(&documents, id).await {
        Ok(value) => Ok(Json(value)),
        Err(error) if error.is_retryable() => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn count(documents: &Documents, id: DocumentId) -> Result<Value, DocumentError> {
    let first = NewDocument::Edit(Edit::set(br#"{ "visits": { "$counter": 0 } }"#)?);
    match documents.create(Some(id), first, EditOptions::default()).await {
        // It exists: as good.
        Ok(_) | Err(DocumentError::Exists) => {}
        Err(error) => return Err(error),
    }
    let one_more = json!([{ "op": "increment", "path": "/visits", "by": 1 }]).to_string();
    let options = EditOptions { message: Some("a visit".to_owned()), ..EditOptions::default() };
    documents.edit(id, Edit::json_patch(one_more.as_bytes())?, options).await?;
    Ok(documents.json(id).await?.value)
}
