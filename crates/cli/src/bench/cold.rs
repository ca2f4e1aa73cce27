//! `bench cold`: what it costs to give a document to somebody who has nothing of it.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use highwater_core::DocumentId;

use super::client::Client;
use super::connection::{Connection, fresh_document};
use super::fetch::{Fetched, fetch};
use super::prepare::chain_of_one;
use super::process::Meter;
use super::report::{Latencies, Report};
use super::{Context, count};

/// Fresh clients fetch a document, one after the other.
#[derive(Debug, clap::Args)]
pub(crate) struct ColdArgs {
    /// How many changes the document has
    #[arg(long, default_value_t = 20_000, value_parser = count())]
    history: usize,
    /// How many clients fetch it
    #[arg(long, default_value_t = 20, value_parser = count())]
    clients: usize,
    /// Fetch this document, which is on the server already, instead of bringing one
    #[arg(long)]
    document: Option<DocumentId>,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &ColdArgs) -> Result<Report> {
    let document = match args.document {
        Some(document) => document,
        None => upload(context, args.history).await?,
    };
    context.progress.stage("fetches", args.clients);
    let (mut latencies, mut with_connecting) = (Latencies::default(), Latencies::default());
    let mut last = None;
    let meter = Meter::start(context.pid);
    let started = Instant::now();
    for _ in 0..args.clients {
        let begin = Instant::now();
        let mut connection = Connection::open_wide(&context.url).await?;
        let fetched = fetch(&mut connection, document).await?;
        with_connecting.add(begin.elapsed());
        latencies.add(fetched.latency);
        connection.close().await;
        context.progress.step(1);
        last = Some(fetched);
    }
    let (elapsed, usage) = (started.elapsed(), meter.stop());
    let fetched = last.context("nothing was fetched")?;
    let changes = check(&fetched, document)?;

    let mut report = Report::new("cold");
    report.text("document", "document", &document.to_string());
    report.count("changes", "changes", changes);
    report.count("clients", "clients", args.clients as u64);
    report.count("bytes", "bytes per fetch", fetched.bytes());
    report.rate("fetches", args.clients as u64, elapsed);
    report.latencies("latency", "latency", &mut latencies);
    report.latencies("latency_with_connecting", "with connecting", &mut with_connecting);
    report.usage("fetch", args.clients as u64, &usage);
    Ok(report)
}

async fn upload(context: &Context, history: usize) -> Result<DocumentId> {
    let chain = chain_of_one(history, 0, &context.progress).await?;
    let document = fresh_document()?;
    context.progress.stage("uploading", 0);
    Client::upload(&context.url, document, &chain).await?.close().await;
    Ok(document)
}

/// What came must be a whole document, or the numbers say nothing. Returns how many changes it has.
fn check(fetched: &Fetched, document: DocumentId) -> Result<u64> {
    if fetched.unavailable {
        bail!("the server does not have document {document}");
    }
    Ok(fetched.load()?.get_changes(&[]).len() as u64)
}
