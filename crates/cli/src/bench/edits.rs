//! `bench edits`: how fast edits are acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use highwater_core::DocumentId;

use super::client::Client;
use super::connection::fresh_document;
use super::prepare::{Chain, chains};
use super::report::{Latencies, Report};
use super::stage::{self, Stage, Work};
use super::{Context, count};

/// Clients send edits and wait for each to be acknowledged.
///
/// An edit is acknowledged when the heads in a sync message of the server cover it.
#[derive(Debug, clap::Args)]
pub(crate) struct EditsArgs {
    /// How many clients, each with its own connection
    #[arg(long, default_value_t = 64, value_parser = count())]
    clients: usize,
    /// How many edits each client sends
    #[arg(long, default_value_t = 1000, value_parser = count())]
    edits: usize,
    /// How many changes each document has before the first edit; sent to the server beforehand
    #[arg(long, default_value_t = 0)]
    history: usize,
    /// How many edits of a client may wait for their acknowledgement at the same time
    #[arg(long, default_value_t = 1, value_parser = count())]
    in_flight: usize,
    /// All clients edit the same document, and get each other's edits
    #[arg(long)]
    one_document: bool,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &EditsArgs) -> Result<Report> {
    let writers = if args.one_document { args.clients } else { 1 };
    let chains = chains(args.history, args.edits, writers, &context.progress).await?;
    let shared = if args.one_document { Some(fresh_document()?) } else { None };
    if let Some(document) = shared {
        Client::upload(&context.url, document, &chains[0]).await?.close().await;
    }
    let work = Work { name: "acknowledged edits", steps: args.clients * args.edits };
    let (results, elapsed, usage) = stage::run(context, args.clients, work, |number, stage| {
        let chain = chains[number % writers].clone();
        writer(context.clone(), stage, shared, chain, args.in_flight)
    })
    .await?;

    let mut report = Report::new("edits");
    let total = (args.clients * args.edits) as u64;
    report.count("clients", "clients", args.clients as u64);
    report.count("edits", "edits", total);
    report.count("history", "history before", args.history as u64);
    report.count("in_flight", "in flight per client", args.in_flight as u64);
    report.text("documents", "documents", if args.one_document { "one" } else { "one per client" });
    report.rate("edits", total, elapsed);
    let mut latencies = Latencies::default();
    results.into_iter().for_each(|result| latencies.merge(result));
    report.latencies("latency", "latency", &mut latencies);
    report.usage("edit", total, &usage);
    Ok(report)
}

async fn writer(
    context: Context,
    stage: Stage,
    shared: Option<DocumentId>,
    chain: Arc<Chain>,
    in_flight: usize,
) -> Result<Latencies> {
    let turn = stage.turn().await?;
    let mut client = match shared {
        Some(document) => Client::open(&context.url, document, &chain).await?,
        None => Client::upload(&context.url, fresh_document()?, &chain).await?,
    };
    drop(turn);
    stage.ready();
    client.attend(stage.begin()).await?;
    let latencies = write_all(&mut client, chain.edits.len(), in_flight, &context).await?;
    stage.finished();
    client.attend(stage.leave()).await?;
    client.close().await;
    Ok(latencies)
}

/// Sends all edits, keeping as many on their way as allowed.
pub(crate) async fn write_all(
    client: &mut Client,
    edits: usize,
    in_flight: usize,
    context: &Context,
) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut sent_at = VecDeque::with_capacity(in_flight);
    let mut acked = 0;
    while acked < edits {
        let mut fed = false;
        while sent_at.len() < in_flight && client.feed_edit().await? {
            sent_at.push_back(Instant::now());
            fed = true;
        }
        if fed {
            client.flush().await?;
        } else {
            // No edit is due that would carry our heads along, so answer as a reader does.
            client.answer().await?;
        }
        client.receive().await?;
        let newly = client.replica.acked() - acked;
        acked += newly;
        context.progress.step(newly);
        sent_at.drain(..newly).for_each(|sent: Instant| latencies.add(sent.elapsed()));
    }
    Ok(latencies)
}
