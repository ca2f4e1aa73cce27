//! `bench idle`: how much memory a connection costs that does nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::Client;
use super::connection::fresh_document;
use super::prepare::{Chain, chain_of_one};
use super::process::{Meter, Sample};
use super::report::Report;
use super::{Context, count};

/// How many clients connect at the same time.
const CONNECTING_MAX: usize = 16;

/// Clients connect, each opens a small document of its own, and then nothing happens.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// How many connections
    #[arg(long, default_value_t = 1000, value_parser = count())]
    connections: usize,
    /// How many changes each document has
    #[arg(long, default_value_t = 10, value_parser = count())]
    history: usize,
    /// How many seconds to wait before the memory is read, and to watch the processor time
    #[arg(long, default_value_t = 6)]
    settle: u64,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &IdleArgs) -> Result<Report> {
    let chain = chain_of_one(args.history, 0, &context.progress).await?;
    // The first connection makes the server allocate what it needs only once.
    Client::upload(&context.url, fresh_document()?, &chain).await?.close().await;
    let sample = || context.pid.and_then(Sample::take);
    let before = sample();
    let mut clients = connect(context, &chain, args.connections).await?;
    context.progress.stage("letting the server settle", 0);
    let meter = Meter::start(context.pid);
    watch(&mut clients, args.settle).await?;
    let usage = meter.stop();
    let during = sample();
    let connections = clients.len();
    clients.shutdown().await;
    tokio::time::sleep(Duration::from_secs(args.settle.min(2))).await;
    let after = sample();

    let mut report = Report::new("idle");
    report.count("connections", "connections", connections as u64);
    report.count("history", "changes per document", args.history as u64);
    let kb = |sample: &Option<Sample>| sample.as_ref().map_or(f64::NAN, |sample| sample.rss as f64 / 1e3);
    let (before, during, after) = (kb(&before), kb(&during), kb(&after));
    report.number("memory_before_kb", "server memory before", before, "kB");
    report.number("memory_during_kb", "server memory connected", during, "kB");
    report.number("memory_after_kb", "server memory after", after, "kB");
    let each = (during - before) / args.connections as f64;
    report.number("memory_per_connection_kb", "memory per connection", each, "kB");
    let cpu = usage.server_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() / args.settle.max(1) as f64 * 100.0);
    report.number("server_cpu_percent", "server CPU while idle", cpu, "%");
    Ok(report)
}

/// Connects all, each with its own document. The tasks of the result answer what the server says.
async fn connect(context: &Context, chain: &Arc<Chain>, count: usize) -> Result<JoinSet<Result<()>>> {
    context.progress.stage("connections", count);
    let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
    let connected = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (context, chain) = (context.clone(), chain.clone());
        let (turns, connected) = (turns.clone(), connected.clone());
        tasks.spawn(async move {
            let turn = turns.acquire().await?;
            let mut client = Client::upload(&context.url, fresh_document()?, &chain).await?;
            drop(turn);
            context.progress.step(1);
            connected.add_permits(1);
            client.attend(std::future::pending::<()>()).await
        });
    }
    let all = connected.acquire_many(u32::try_from(count)?);
    tokio::select! {
        biased;
        failed = first_failure(&mut tasks) => Err(failed),
        all = all => {
            all.context("the case ended")?.forget();
            Ok(tasks)
        }
    }
}

/// Lets the clients be for a while; an error if one loses its connection meanwhile.
async fn watch(clients: &mut JoinSet<Result<()>>, seconds: u64) -> Result<()> {
    tokio::select! {
        failed = first_failure(clients) => Err(failed),
        () = tokio::time::sleep(Duration::from_secs(seconds)) => Ok(()),
    }
}

async fn first_failure(tasks: &mut JoinSet<Result<()>>) -> anyhow::Error {
    match tasks.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => error.into(),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a client ended before its time"),
    }
}
