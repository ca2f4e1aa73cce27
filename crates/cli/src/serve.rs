//! `highwater serve`: the server.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use highwater_server::{OpenStore, Server, ServerError};
use highwater_storage::{SqliteStore, Store, StoreError};
use tracing_subscriber::EnvFilter;

use crate::metrics;
use crate::settings::{Resolved, Settings};
use crate::system::{self, Signals};

/// Serves until a signal comes, then drains.
pub(crate) fn run(resolved: &Resolved) -> Result<()> {
    start_logging(resolved);
    system::raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(&resolved.settings));
    // The store is closed by now. A document that is just being compacted, or looked into, must not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve(settings: &Settings) -> Result<()> {
    let mut signals = Signals::listen()?;
    let data_dir = settings.data_dir.clone();
    let open_store: OpenStore =
        Arc::new(move || SqliteStore::open(&data_dir).map(|store| Arc::new(store) as Arc<dyn Store>));
    let render_metrics = metrics::install()?;
    let bound = Server::bind(settings.config.clone(), open_store).await;
    let mut server = bound.map_err(|error| explain(error, settings))?.with_metrics(render_metrics);
    if settings.demo {
        server = server.with_kill(Arc::new(system::die_and_come_back));
    }
    say_that_it_runs(&server, settings)?;
    let shutdown = async move {
        signals.next().await;
        tokio::spawn(give_up_on(signals));
    };
    server.run(shutdown).await.map_err(|error| explain(error, settings))
}

/// The one line on standard output. Scripts wait for it, so it must not stay in a buffer.
fn say_that_it_runs(server: &Server, settings: &Settings) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let address = server.local_addr()?;
    let said = writeln!(
        out,
        "highwater {} listening on ws://{address} \u{b7} data in {} \u{b7} durable: SQLite, WAL, synchronous=FULL",
        env!("CARGO_PKG_VERSION"),
        settings.data_dir.display(),
    );
    // Whoever started us may not listen; that is no reason not to serve.
    if let Err(error) = said.and_then(|()| out.flush()) {
        tracing::warn!(%error, "cannot write to standard output");
    }
    Ok(())
}

/// A second signal means that nobody wants to wait for the drain.
async fn give_up_on(mut signals: Signals) {
    signals.next().await;
    tracing::warn!("second signal: stopping at once; what was acknowledged is on disk");
    std::process::exit(1);
}

/// The setting counts if somebody set it, or else RUST_LOG, or else the setting's default.
///
/// Unless it names `automerge`, that crate only warns: it opens a span for every change that it reads, and a span that nobody looks
/// at costs as much as the change.
///
/// If standard error is gone, because whoever collected it is, nothing is logged. Complaining about that there would end the task that logs.
fn start_logging(resolved: &Resolved) {
    let from_environment = || std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|_| !resolved.log_is_set());
    let mut filter = from_environment().unwrap_or_else(|| resolved.settings.log.clone());
    if !filter.contains("automerge") {
        filter.push_str(",automerge=warn");
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .init();
}

/// Says what went wrong and what can be done about it.
fn explain(error: ServerError, settings: &Settings) -> anyhow::Error {
    let dir = settings.data_dir.display();
    match error {
        ServerError::Store(error) => explain_store(&error, &dir.to_string()),
        ServerError::Listen { address, error } => {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => {
                    "Another program listens there. Stop it, or choose another port with --listen (port 0 takes a free one)."
                }
                ErrorKind::AddrNotAvailable => {
                    "This machine does not have that address. Choose another with --listen."
                }
                ErrorKind::PermissionDenied => {
                    "Ports below 1024 are reserved. Choose a higher one with --listen."
                }
                _ => "Choose another address with --listen.",
            };
            anyhow!("cannot listen on {address}: {error}.\n{advice}")
        }
        other => other.into(),
    }
}

fn explain_store(error: &StoreError, dir: &str) -> anyhow::Error {
    let advice = match error {
        StoreError::Locked(_) => {
            "Another highwater serves it. Stop that one, or give this one its own folder with --data-dir.".to_owned()
        }
        StoreError::Damaged { .. } | StoreError::Read(_) => {
            format!("Nothing was changed. Run `highwater doctor --data-dir {dir}` to see what is damaged.")
        }
        StoreError::Write(_) => {
            "What was acknowledged before is on disk. Make sure that the disk is not full and is healthy, then start again.".to_owned()
        }
        _ => format!(
            "Nothing was changed. Make sure that {dir} is a folder of Highwater's that this user may write to, or choose another with --data-dir."
        ),
    };
    anyhow!("{error}.\n{advice}")
}
