//! A server inside another program: `embed 127.0.0.1:3030 ./highwater-data`, until Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;

use highwater_server::{Config, OpenStore, Server};
use highwater_storage::{SqliteStore, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:3030".to_owned()).parse()?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "./highwater-data".to_owned()));

    let open_store: OpenStore = Arc::new(move || Ok(Arc::new(SqliteStore::open(&folder)?) as Arc<dyn Store>));
    let server = Server::bind(Config { listen, ..Config::default() }, open_store).await?;
    println!("listening on ws://{}", server.local_addr()?);
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
