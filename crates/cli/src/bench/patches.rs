//! Edits over HTTP: a patch on a long history, and the same on a short one, beside what `automerge` itself takes for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{Automerge, ROOT, ReadDoc};
use bytes::Bytes;
use highwater_core::{DocumentId, Edit, Materialised, Stamp};

use super::connection::fresh_document;
use super::folder::{self, Folder};
use super::prepare::{Chain, chain_on};
use super::process::Meter;
use super::progress::Progress;
use super::report::{Latencies, Report};
use super::server::Server;
use super::trace::Trace;
use super::{Context, count};

/// The short history.
const SHORT: usize = 100;
/// What people type between two patches, where they do.
const TYPED: usize = 10;
/// How long the server keeps a document that nobody uses: longer than this takes.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// The editing trace is stored and patched, by one client, while people type, and by many at once.
#[derive(Debug, clap::Args)]
pub(crate) struct PatchesArgs {
    /// The editing trace: a file like automerge-paper.json.gz of josephg's editing-traces
    #[arg(long)]
    trace: PathBuf,
    /// Where to put the data: a folder that is new
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// How many changes the long history has
    #[arg(long, default_value_t = 260_000, value_parser = count())]
    changes: usize,
    /// How many patches are made of each kind
    #[arg(long, default_value_t = 300, value_parser = count())]
    patches: usize,
    /// How many clients patch at once
    #[arg(long, default_value_t = 16, value_parser = count())]
    clients: usize,
}

/// A document that is patched.
struct Subject {
    name: &'static str,
    id: DocumentId,
    chunks: Vec<Bytes>,
    saved: Vec<u8>,
    /// What people type meanwhile.
    typed: Arc<Chain>,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &PatchesArgs) -> Result<Report> {
    let folder = Folder::new(&args.data_dir)?;
    let mut report = Report::new("patches");
    report.count("changes", "changes of the long history", args.changes as u64);
    let mut subjects = Vec::new();
    for (name, changes) in [("long", args.changes), ("short", SHORT)] {
        subjects.push(prepare(name, changes, args, &context.progress).await?);
    }
    for subject in &subjects {
        context.progress.stage("storing", 0);
        folder.with_store(async |store| folder::append(store, subject.id, &subject.chunks).await).await?;
        folder.with_store(async |store| folder::compact_document(store, subject.id).await).await?;
        context.progress.stage("automerge itself", args.patches);
        by_itself(subject, args, &context.progress, &mut report)?;
        in_the_core(subject, args, &context.progress, &mut report)?;
    }
    folder.settle().await?;
    let server = Server::start(folder.path(), IDLE_AFTER)?;
    for subject in &subjects {
        patch_alone(&server, subject, args, &context.progress, &mut report)?;
        patch_while_people_type(&server, subject, args, &context.progress, &mut report)?;
        patch_at_once(&server, subject, args, &context.progress, &mut report)?;
    }
    Ok(report)
}

async fn prepare(
    name: &'static str,
    changes: usize,
    args: &PatchesArgs,
    progress: &Progress,
) -> Result<Subject> {
    let id = fresh_document()?;
    let (path, typed, progress) = (args.trace.clone(), TYPED * args.patches, progress.clone());
    tokio::task::spawn_blocking(move || {
        let mut document = Trace::read(&path)?.type_into_document(changes, &progress)?;
        let saved = document.save();
        let chunk = |change: &automerge::Change| Bytes::copy_from_slice(change.raw_bytes());
        let chunks = document.get_changes(&[]).iter().map(chunk).collect();
        let typed = chain_on(document, typed, &progress)?;
        Ok(Subject { name, id, chunks, saved, typed })
    })
    .await?
}

/// A transaction, its commit, and the bytes of the change, with nothing around them.
fn by_itself(subject: &Subject, args: &PatchesArgs, progress: &Progress, report: &mut Report) -> Result<()> {
    let mut document = Automerge::load(&subject.saved)?;
    let (_, text) = document.get(ROOT, "text")?.context("a document without text")?;
    let place = document.length(&text) / 2;
    let mut latencies = Latencies::default();
    for _ in 0..args.patches {
        let started = Instant::now();
        let mut transaction = document.transaction();
        transaction.splice_text(&text, place, 0, "x")?;
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(1));
        let change = document.get_change_by_hash(&hash.context("nothing was changed")?);
        std::hint::black_box(change.context("the change is not there")?.raw_bytes());
        latencies.add(started.elapsed());
        progress.step(1);
    }
    report.latencies(
        &format!("{}_automerge", subject.name),
        &label(subject, "automerge itself"),
        &mut latencies,
    );
    Ok(())
}

/// The same edit as the server makes it, without a server: the patch is read, made, and its change taken out.
fn in_the_core(
    subject: &Subject,
    args: &PatchesArgs,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let mut document = Materialised::load(&Bytes::from(subject.saved.clone())).map_err(anyhow::Error::msg)?;
    let stamp = Stamp { actor: [1; 16], message: None, time: 1 };
    let body = splice(subject);
    let mut latencies = Latencies::default();
    for _ in 0..args.patches {
        let started = Instant::now();
        let edit = Edit::json_patch(body.as_bytes())?;
        let (edited, made) = document.edit(&edit, &stamp).map_err(anyhow::Error::msg)?;
        std::hint::black_box(made?.context("nothing was changed")?.chunk);
        latencies.add(started.elapsed());
        document = edited;
        progress.step(1);
    }
    report.latencies(
        &format!("{}_core", subject.name),
        &label(subject, "the edit in the core"),
        &mut latencies,
    );
    Ok(())
}

/// A patch that inserts a character into the middle of the text.
fn splice(subject: &Subject) -> String {
    let place = subject.chunks.len() / 4;
    format!(r#"[{{"op":"splice","path":"/text","index":{place},"insert":"x"}}]"#)
}

fn label(subject: &Subject, what: &str) -> String {
    format!("{} history, {what}", subject.name)
}

fn patch(server: &Server, subject: &Subject) -> Result<Duration> {
    let body = splice(subject);
    let path = format!("/v1/docs/{}", subject.id);
    server.send("PATCH", &path, "application/json-patch+json", body.as_bytes())
}

/// One client, one patch after the other.
fn patch_alone(
    server: &Server,
    subject: &Subject,
    args: &PatchesArgs,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.stage("patches", args.patches);
    let first = patch(server, subject)?;
    let key = format!("{}_first_ms", subject.name);
    report.number(&key, &label(subject, "first patch"), first.as_secs_f64() * 1e3, "ms");
    let (meter, mut taken) = (Meter::start(Some(server.pid())), Vec::new());
    for _ in 0..args.patches {
        taken.push(patch(server, subject)?);
        progress.step(1);
    }
    measured(report, subject, ("warm", "patch"), &taken, meter.stop().server_cpu);
    Ok(())
}

/// The same, while people type between two patches: the copy catches up with them in one go.
fn patch_while_people_type(
    server: &Server,
    subject: &Subject,
    args: &PatchesArgs,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.stage("patches while people type", args.patches);
    let path = format!("/v1/docs/{}/changes", subject.id);
    let (mut taken, mut cpu) = (Vec::new(), Some(Duration::ZERO));
    for typed in subject.typed.edits.chunks(TYPED) {
        let typed: Vec<Bytes> = typed.iter().map(|edit| edit.bytes.clone()).collect();
        server.send("POST", &path, "application/vnd.automerge", &typed.concat())?;
        let meter = Meter::start(Some(server.pid()));
        taken.push(patch(server, subject)?);
        cpu = cpu.zip(meter.stop().server_cpu).map(|(all, one)| all + one);
        progress.step(1);
    }
    measured(report, subject, ("behind", "patch after ten changes of others"), &taken, cpu);
    Ok(())
}

/// Many clients at once.
fn patch_at_once(
    server: &Server,
    subject: &Subject,
    args: &PatchesArgs,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.stage("patches of many", args.patches);
    let meter = Meter::start(Some(server.pid()));
    let started = Instant::now();
    let each = args.patches.div_ceil(args.clients);
    let client = || (0..each).map(|_| patch(server, subject)).collect::<Result<Vec<Duration>>>();
    let all: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..args.clients).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| match client.join() {
                Ok(patches) => patches,
                Err(_) => bail!("a client panicked"),
            })
            .collect::<Result<Vec<_>>>()
    })?
    .concat();
    let elapsed = started.elapsed().as_secs_f64();
    let rate = all.len() as f64 / elapsed;
    report.number(
        &format!("{}_rate_per_s", subject.name),
        &label(subject, "patches of many a second"),
        rate,
        "/s",
    );
    measured(report, subject, ("many", "patch of many"), &all, meter.stop().server_cpu);
    Ok(())
}

/// Adds what patches of one kind took.
fn measured(
    report: &mut Report,
    subject: &Subject,
    (key, what): (&str, &str),
    taken: &[Duration],
    cpu: Option<Duration>,
) {
    let key = format!("{}_{key}", subject.name);
    let mut latencies = Latencies::default();
    taken.iter().for_each(|latency| latencies.add(*latency));
    report.latencies(&key, &label(subject, what), &mut latencies);
    let each = cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6 / taken.len() as f64);
    report.number(&format!("{key}_cpu_us"), &label(subject, &format!("server CPU of a {what}")), each, "us");
}
