//! `bench history`: what a long history costs, on disk, in memory, to open and to serve.
//!
//! The history is the editing trace, put into a data folder through the store. Some of it is measured in this process, with the library that the server is made of; the rest from outside, on
//! a server process of our own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use highwater_core::{ChangeHash, DocumentId};
use highwater_storage::{Found, SqliteStore, Store};

use super::client::Client;
use super::connection::{Connection, fresh_document};
use super::fetch::fetch;
use super::folder::{self, Folder};
use super::prepare::{Chain, chain_on};
use super::process::{Meter, Sample};
use super::progress::Progress;
use super::report::{Latencies, Report};
use super::server::Server;
use super::trace::Trace;
use super::{Context, count, edits};

/// How long the server keeps a document that nobody uses.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// After which its memory is read: time for letting go.
const SETTLE: Duration = Duration::from_secs(3);
/// How often a document is opened in this process.
const OPENINGS: usize = 15;
/// Look-ups over HTTP, and in the store.
const LOOK_UPS: usize = 200;
/// Look-ups in an open document in this process.
const WARM_LOOK_UPS: usize = 200_000;

/// The editing trace is typed, stored, compacted, opened, fetched and edited.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The editing trace: a file like automerge-paper.json.gz of josephg's editing-traces
    #[arg(long)]
    trace: PathBuf,
    /// Where to put the data: a folder that is new
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// How many changes the document has
    #[arg(long, default_value_t = 260_000, value_parser = count())]
    changes: usize,
    /// How many clients fetch it
    #[arg(long, default_value_t = 20, value_parser = count())]
    clients: usize,
    /// How many edits are made on top of it
    #[arg(long, default_value_t = 900, value_parser = count())]
    edits: usize,
}

/// The document that all this is about.
struct Subject {
    id: DocumentId,
    /// All its changes.
    chunks: Vec<Bytes>,
    /// Some of them, from all of its history.
    hashes: Vec<ChangeHash>,
    /// An edit for whoever has it.
    chain: Arc<Chain>,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &HistoryArgs) -> Result<Report> {
    let folder = Folder::new(&args.data_dir)?;
    let subject = prepare(args, &context.progress).await?;
    let mut report = Report::new("history");
    report.count("changes", "changes", args.changes as u64);
    fill(context, &folder, &subject, &mut report).await?;
    folder.with_store(async |store| measure_here(context, store, &subject, &mut report).await).await?;
    look_from_outside(context, &folder, &subject, &mut report).await?;
    fetch_from_outside(context, &folder, &subject, args, &mut report).await?;
    edit_from_outside(context, &folder, &subject, args, &mut report).await?;
    Ok(report)
}

async fn prepare(args: &HistoryArgs, progress: &Progress) -> Result<Subject> {
    let id = fresh_document()?;
    let (path, changes, edits, progress) = (args.trace.clone(), args.changes, args.edits, progress.clone());
    tokio::task::spawn_blocking(move || {
        let mut document = Trace::read(&path)?.type_into_document(changes, &progress)?;
        let (mut chunks, mut hashes) = (Vec::with_capacity(changes), Vec::new());
        let step = changes.div_ceil(LOOK_UPS);
        for (place, change) in document.get_changes(&[]).iter().enumerate() {
            chunks.push(Bytes::copy_from_slice(change.raw_bytes()));
            if place % step == 0 {
                hashes.push(ChangeHash(change.hash().0));
            }
        }
        let chain = chain_on(document, edits, &progress)?;
        Ok(Subject { id, chunks, hashes, chain })
    })
    .await?
}

/// Stores the document, raw and compacted.
async fn fill(context: &Context, folder: &Folder, subject: &Subject, report: &mut Report) -> Result<()> {
    context.progress.stage("storing", 0);
    folder.with_store(async |store| folder::append(store, subject.id, &subject.chunks).await).await?;
    let raw = folder.size()?;
    let (opened, raw_open) = {
        let opened = folder.with_store(async |store| folder::open(store, subject.id).await).await?;
        (opened.0.len(), opened.2)
    };
    if opened != subject.chunks.len() {
        bail!("{opened} changes are stored, not {}", subject.chunks.len());
    }
    context.progress.stage("compacting", 0);
    let compacted =
        folder.with_store(async |store| folder::compact_document(store, subject.id).await).await?;
    folder.settle().await?;
    let after = folder.size()?;
    let changes = subject.chunks.len() as f64;
    let chunk_bytes: usize = subject.chunks.iter().map(Bytes::len).sum();
    report.count("change_bytes", "bytes of the changes", chunk_bytes as u64);
    report.count("disk_raw_bytes", "on disk, raw", raw.used);
    report.count("disk_compacted_bytes", "on disk, compacted", after.used);
    report.count("disk_file_bytes", "the file then", after.file);
    report.count("document_bytes", "document chunk", compacted.document_bytes);
    report.count("index_bytes", "index", compacted.index_bytes);
    let each = compacted.index_bytes as f64 / changes;
    report.number("index_bytes_per_change", "index per change", each, "bytes");
    report.number("compaction_s", "making the snapshot", compacted.making.as_secs_f64(), "s");
    report.number("open_raw_ms", "opening, raw", millis(raw_open), "ms");
    Ok(())
}

/// What costs so little that a socket would hide it.
async fn measure_here(
    context: &Context,
    store: &SqliteStore,
    subject: &Subject,
    report: &mut Report,
) -> Result<()> {
    context.progress.stage("opening", OPENINGS);
    let (mut reading, mut opening) = (Latencies::default(), Latencies::default());
    let mut document = None;
    for _ in 0..OPENINGS {
        drop(document.take());
        let (opened, read, all) = folder::open(store, subject.id).await?;
        reading.add(read);
        opening.add(all);
        document = Some(opened);
        context.progress.step(1);
    }
    let document = document.context("never opened")?;
    best_and_median(report, "open", "opening", &mut opening);
    best_and_median(report, "open_read", "of it reading", &mut reading);
    report.count("open_size_bytes", "size of the open document, by its own estimate", document.size() as u64);

    let started = Instant::now();
    let hashes = subject.hashes.iter().cycle().take(WARM_LOOK_UPS);
    let found = hashes.filter(|hash| document.contains(std::hint::black_box(hash))).count();
    let each = started.elapsed().as_secs_f64() * 1e6 / WARM_LOOK_UPS as f64;
    if found != WARM_LOOK_UPS {
        bail!("changes are missing in the open document");
    }
    report.number("find_warm_us", "look-up in the open document", each, "us");
    let mut finding = Latencies::default();
    for hash in &subject.hashes {
        let started = Instant::now();
        if store.find(subject.id, *hash).await? != Found::Yes {
            bail!("change {hash} is not found in the store");
        }
        finding.add(started.elapsed());
    }
    report.latencies("find_cold", "look-up in the store", &mut finding);
    Ok(())
}

/// Look-ups and memory of a server.
async fn look_from_outside(
    context: &Context,
    folder: &Folder,
    subject: &Subject,
    report: &mut Report,
) -> Result<()> {
    context.progress.stage("looking from outside", 0);
    let server = Server::start(folder.path(), IDLE_AFTER)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = rss(&server);
    look_up(&server, subject, "http_cold", "look-up over HTTP, not open", report)?;
    let found = rss(&server);
    let client = Client::open(&server.url, subject.id, &subject.chain).await?;
    tokio::time::sleep(SETTLE).await;
    let open = rss(&server);
    look_up(&server, subject, "http_warm", "look-up over HTTP, open", report)?;
    client.close().await;
    tokio::time::sleep(IDLE_AFTER + SETTLE).await;
    for (key, label, bytes) in [
        ("memory_before_mb", "memory before", before),
        ("memory_found_mb", "memory after look-ups", found),
        ("memory_open_mb", "memory with the document open", open),
        ("memory_idle_mb", "memory when it was let go of", rss(&server)),
    ] {
        report.number(key, label, bytes / 1e6, "MB");
    }
    Ok(())
}

fn look_up(server: &Server, subject: &Subject, key: &str, label: &str, report: &mut Report) -> Result<()> {
    let meter = Meter::start(Some(server.pid()));
    let mut latencies = Latencies::default();
    for hash in &subject.hashes {
        let (status, took) = server.time(&format!("/v1/docs/{}/changes/{hash}", subject.id))?;
        if status != 200 {
            bail!("the server answers {status} for change {hash}");
        }
        latencies.add(took);
    }
    report.latencies(key, label, &mut latencies);
    let cpu = meter.stop().server_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6);
    report.number(&format!("{key}_cpu_us"), "server CPU for one", cpu / subject.hashes.len() as f64, "us");
    Ok(())
}

/// Clients that have nothing.
async fn fetch_from_outside(
    context: &Context,
    folder: &Folder,
    subject: &Subject,
    args: &HistoryArgs,
    report: &mut Report,
) -> Result<()> {
    context.progress.stage("fetches", args.clients);
    let server = Server::start(folder.path(), Duration::from_secs(30))?;
    let one = async || {
        let mut connection = Connection::open_wide(&server.url).await?;
        let fetched = fetch(&mut connection, subject.id).await?;
        connection.close().await;
        context.progress.step(1);
        anyhow::Ok(fetched)
    };
    let first = one().await?;
    let mut latencies = Latencies::default();
    let meter = Meter::start(Some(server.pid()));
    for _ in 0..args.clients {
        latencies.add(one().await?.latency);
    }
    let usage = meter.stop();
    context.progress.stage("checking what was fetched", 0);
    let bytes = first.bytes();
    let latency = first.latency;
    let changes = tokio::task::spawn_blocking(move || first.load()).await??.get_changes_meta(&[]).len();
    if changes != subject.chunks.len() {
        bail!("a fetched document has {changes} changes and not {}", subject.chunks.len());
    }
    report.count("fetch_bytes", "bytes per fetch", bytes);
    report.number("fetch_first_ms", "first fetch after a restart", millis(latency), "ms");
    report.latencies("fetch", "fetch", &mut latencies);
    let cpu = usage.server_cpu.map_or(f64::NAN, millis);
    report.number("fetch_cpu_ms", "server CPU per fetch", cpu / args.clients as f64, "ms");
    Ok(())
}

/// One writer.
async fn edit_from_outside(
    context: &Context,
    folder: &Folder,
    subject: &Subject,
    args: &HistoryArgs,
    report: &mut Report,
) -> Result<()> {
    context.progress.stage("edits", args.edits);
    let server = Server::start(folder.path(), Duration::from_secs(30))?;
    let mut client = Client::open(&server.url, subject.id, &subject.chain).await?;
    let meter = Meter::start(Some(server.pid()));
    let mut latencies = edits::write_all(&mut client, args.edits, 1, context).await?;
    let usage = meter.stop();
    client.close().await;
    report.latencies("edit", "edit", &mut latencies);
    report.usage("edit", args.edits as u64, &usage);
    Ok(())
}

fn best_and_median(report: &mut Report, key: &str, label: &str, latencies: &mut Latencies) {
    for (name, share) in [("best", 0.0), ("median", 0.5)] {
        let time = latencies.quantile(share).map_or(f64::NAN, millis);
        report.number(&format!("{key}_{name}_ms"), &format!("{label}, {name}"), time, "ms");
    }
}

/// Resident memory, in bytes.
fn rss(server: &Server) -> f64 {
    Sample::take(server.pid()).map_or(f64::NAN, |sample| sample.rss as f64)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
