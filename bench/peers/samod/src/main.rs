//! A sync server made of samod's own parts: axum for the sockets, its file storage for the documents.
//!
//! `samod-peer [--port 0] [--data-dir ./samod-data]` prints one line with its ws:// address once it
//! listens, and ends on SIGTERM.

use std::path::PathBuf;

use axum::extract::ws::WebSocketUpgrade;
use axum::{Router, routing::get};
use samod::storage::TokioFilesystemStorage;
use samod::{PeerId, Repo, ShareConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Error = Box<dyn std::error::Error>;

struct Options {
    port: u16,
    data_dir: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = parse(std::env::args().skip(1))?;
    std::fs::create_dir_all(&options.data_dir)?;
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    let address = format!("ws://{}", listener.local_addr()?);

    let repo = Repo::build_tokio()
        .with_peer_id(PeerId::from("samod"))
        .with_storage(TokioFilesystemStorage::new(&options.data_dir))
        // A server announces nothing by itself; it answers whoever asks.
        .with_share_policy(ShareConfig::read_write().with_announce(false))
        .load()
        .await;
    let acceptor = repo.make_acceptor(address.parse()?)?;
    let accept = move |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(|socket| async move {
            if let Err(stopped) = acceptor.accept_axum(socket, None) {
                eprintln!("a connection came after the end: {stopped}");
            }
        })
    };

    println!("samod at {address}, data in {}", options.data_dir.display());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = axum::serve(listener, Router::new().route("/", get(accept))) => ended?,
        _ = terminate.recv() => {}
    }
    repo.stop().await;
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Error> {
    let mut options = Options { port: 0, data_dir: PathBuf::from("./samod-data") };
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--port" => options.port = value.parse()?,
            "--data-dir" => options.data_dir = value.into(),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}
