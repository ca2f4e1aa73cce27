//! `bench documents`: what many documents cost that nobody has open, and what is left when they were visited.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use highwater_core::{DocumentId, Record};
use highwater_storage::{SqliteStore, Store};

use super::connection::{Connection, fresh_document};
use super::fetch::fetch;
use super::folder::Folder;
use super::prepare::{Chain, chain_of_one};
use super::process::{Meter, Sample};
use super::report::Report;
use super::server::Server;
use super::{Context, count};

/// How long the server keeps a document that nobody uses.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// After which its memory is read: time for letting go.
const SETTLE: Duration = Duration::from_secs(4);
/// A server is started so often, and the fastest start counts: others are disturbed by what else goes on.
const STARTS: usize = 5;
/// Documents that are stored at once.
const BATCH: usize = 5_000;
/// How often so many documents are visited.
const ROUNDS: usize = 3;

/// Documents are stored; a server is started on them; they are visited in turn, by a client each.
#[derive(Debug, clap::Args)]
pub(crate) struct DocumentsArgs {
    /// Where to put the data: a folder that is new
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// How many documents there are
    #[arg(long, default_value_t = 100_000, value_parser = count())]
    documents: usize,
    /// How many changes each of them has
    #[arg(long, default_value_t = 10, value_parser = count())]
    history: usize,
    /// How many of them are visited in turn, in each of three rounds
    #[arg(long, default_value_t = 10_000, value_parser = count())]
    visits: usize,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &DocumentsArgs) -> Result<Report> {
    if args.visits * ROUNDS > args.documents {
        bail!("{ROUNDS} rounds of {} visits need {} documents", args.visits, args.visits * ROUNDS);
    }
    let folder = Folder::new(&args.data_dir)?;
    // A server makes the folder that it does not find. That takes longer than opening one.
    drop(Server::start(folder.path(), IDLE_AFTER)?);
    let mut report = Report::new("documents");
    report.count("documents", "documents", args.documents as u64);
    report.count("history", "changes per document", args.history as u64);
    report.count("visits", "visits in each round", args.visits as u64);
    starts(context, &folder, "empty", "an empty folder", &mut report).await?;
    let chain = chain_of_one(1, args.history.saturating_sub(1), &context.progress).await?;
    let ids = folder.with_store(async |store| fill(context, store, &chain, args.documents).await).await?;
    report.count("disk_bytes", "on disk", folder.size()?.used);
    let server = starts(context, &folder, "full", "the full folder", &mut report).await?;
    visit(context, &server, &ids, args.visits, &mut report).await?;
    Ok(report)
}

/// Starts a server several times. Returns the last one.
async fn starts(
    context: &Context,
    folder: &Folder,
    key: &str,
    label: &str,
    report: &mut Report,
) -> Result<Server> {
    context.progress.stage("starting servers", STARTS);
    let mut fastest = Duration::MAX;
    let mut last = None;
    for _ in 0..STARTS {
        drop(last.take());
        let server = Server::start(folder.path(), IDLE_AFTER)?;
        fastest = fastest.min(server.started_in);
        last = Some(server);
        context.progress.step(1);
    }
    let Some(server) = last else { bail!("no server was started") };
    tokio::time::sleep(Duration::from_secs(1)).await;
    report.number(
        &format!("start_{key}_ms"),
        &format!("start on {label}"),
        fastest.as_secs_f64() * 1e3,
        "ms",
    );
    report.memory(
        &format!("memory_{key}"),
        &format!("memory on {label}"),
        Sample::take(server.pid()).as_ref(),
    );
    Ok(server)
}

async fn fill(
    context: &Context,
    store: &SqliteStore,
    chain: &Arc<Chain>,
    documents: usize,
) -> Result<Vec<DocumentId>> {
    context.progress.stage("documents", documents);
    let mut base = automerge::AutoCommit::load(&chain.base)?;
    let first = base.get_changes(&[]).first().map(|change| Bytes::copy_from_slice(change.raw_bytes()));
    let chunks = first.into_iter().chain(chain.edits.iter().map(|edit| edit.bytes.clone()));
    let records: Vec<Record> = chunks.map(|bytes| Record::Change { bytes }).collect();
    let ids = (0..documents).map(|_| fresh_document()).collect::<Result<Vec<_>>>()?;
    for batch in ids.chunks(BATCH) {
        let appends = batch.iter().map(|id| store.append(*id, records.clone()));
        futures::future::try_join_all(appends).await?;
        context.progress.step(batch.len());
    }
    Ok(ids)
}

/// Fresh clients fetch one document after the other.
async fn visit(
    context: &Context,
    server: &Server,
    ids: &[DocumentId],
    visits: usize,
    report: &mut Report,
) -> Result<()> {
    let memory = |report: &mut Report, key: &str, label: &str| {
        report.memory(key, label, Sample::take(server.pid()).as_ref());
    };
    for (round, ids) in ids.chunks(visits).take(ROUNDS).enumerate() {
        context.progress.stage("visits", visits);
        let meter = Meter::start(Some(server.pid()));
        for id in ids {
            let mut connection = Connection::open(&server.url).await?;
            if fetch(&mut connection, *id).await?.unavailable {
                bail!("the server does not have document {id}");
            }
            connection.close().await;
            context.progress.step(1);
        }
        let cpu = meter.stop().server_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6 / visits as f64);
        let round = round + 1;
        report.number(
            &format!("visit_cpu_us_{round}"),
            &format!("server CPU per visit, round {round}"),
            cpu,
            "us",
        );
        memory(report, &format!("memory_visited_{round}"), &format!("memory after round {round}"));
        context.progress.stage("letting the server settle", 0);
        tokio::time::sleep(IDLE_AFTER + SETTLE).await;
        let open = server.metric("highwater_documents_open ")?;
        report.number(
            &format!("open_settled_{round}"),
            &format!("documents in memory then, round {round}"),
            open,
            "",
        );
        memory(report, &format!("memory_settled_{round}"), &format!("memory then, round {round}"));
    }
    Ok(())
}
