//! `bench fanout`: how fast, and at what cost, an edit reaches those who have the document open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use highwater_core::DocumentId;
use tokio::sync::Semaphore;

use super::client::Client;
use super::connection::fresh_document;
use super::prepare::{Chain, chain_of_one};
use super::report::{Latencies, Report};
use super::stage::{self, Stage, Work};
use super::{Context, count};

/// One client writes, all others have the same document open and get every edit.
///
/// The next edit leaves when one before it has reached everybody, so that edits are not delivered in batches
/// (unless the server delivers them so by itself).
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutArgs {
    /// How many clients get every edit
    #[arg(long, default_value_t = 100, value_parser = count())]
    readers: usize,
    /// How many edits are made
    #[arg(long, default_value_t = 200, value_parser = count())]
    edits: usize,
    /// How many changes the document has before the first edit
    #[arg(long, default_value_t = 0)]
    history: usize,
    /// How many edits may be on their way to somebody at the same time
    #[arg(long, default_value_t = 1, value_parser = count())]
    in_flight: usize,
}

/// How far every edit is, shared by the writer and the readers.
struct Deliveries {
    readers: usize,
    edits: Vec<Delivery>,
    /// One permit for each edit that may be sent.
    window: Semaphore,
    epoch: Instant,
    /// Sync messages that brought edits.
    messages: AtomicU64,
}

#[derive(Default)]
struct Delivery {
    /// When it was sent, in nanoseconds since the epoch.
    sent: AtomicU64,
    /// How many readers have it.
    reached: AtomicUsize,
}

impl Deliveries {
    fn new(args: &FanoutArgs) -> Self {
        Self {
            readers: args.readers,
            edits: (0..args.edits).map(|_| Delivery::default()).collect(),
            window: Semaphore::new(args.in_flight),
            epoch: Instant::now(),
            messages: AtomicU64::new(0),
        }
    }

    fn sent(&self, place: usize) {
        self.edits[place].sent.store(self.epoch.elapsed().as_nanos() as u64, Relaxed);
    }

    /// A reader has the edit. Returns how long it took.
    fn reached(&self, place: usize) -> Duration {
        let edit = &self.edits[place];
        let latency = self.epoch.elapsed().saturating_sub(Duration::from_nanos(edit.sent.load(Relaxed)));
        if edit.reached.fetch_add(1, Relaxed) + 1 == self.readers {
            self.window.add_permits(1);
        }
        latency
    }
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &FanoutArgs) -> Result<Report> {
    let chain = chain_of_one(args.history, args.edits, &context.progress).await?;
    let document = fresh_document()?;
    Client::upload(&context.url, document, &chain).await?.close().await;
    let deliveries = Arc::new(Deliveries::new(args));
    let work = Work { name: "deliveries", steps: args.readers * args.edits };
    let (results, elapsed, usage) = stage::run(context, args.readers + 1, work, |number, stage| {
        let (context, chain, deliveries) = (context.clone(), chain.clone(), deliveries.clone());
        async move {
            match number {
                0 => writer(context, stage, document, chain, deliveries).await,
                _ => reader(context, stage, document, chain, deliveries).await,
            }
        }
    })
    .await?;

    let mut report = Report::new("fanout");
    let total = (args.readers * args.edits) as u64;
    let messages = deliveries.messages.load(Relaxed).max(1);
    report.count("readers", "readers", args.readers as u64);
    report.count("edits", "edits", args.edits as u64);
    report.count("history", "history before", args.history as u64);
    report.count("deliveries", "deliveries", total);
    report.number("edits_per_message", "edits per message", total as f64 / messages as f64, "");
    report.rate("deliveries", total, elapsed);
    let mut latencies = Latencies::default();
    results.into_iter().for_each(|result| latencies.merge(result));
    report.latencies("latency", "delivery latency", &mut latencies);
    report.usage("delivery", total, &usage);
    Ok(report)
}

async fn writer(
    context: Context,
    stage: Stage,
    document: DocumentId,
    chain: Arc<Chain>,
    deliveries: Arc<Deliveries>,
) -> Result<Latencies> {
    let mut client = begin(&context, &stage, document, &chain).await?;
    for place in 0..chain.edits.len() {
        client.attend(deliveries.window.acquire()).await?.context("the case ended")?.forget();
        deliveries.sent(place);
        client.feed_edit().await?;
        client.flush().await?;
    }
    while client.replica.acked() < chain.edits.len() {
        client.step().await?;
    }
    end(client, &stage).await?;
    // What is measured here is the way to the readers; the writer has no latencies to add.
    Ok(Latencies::default())
}

async fn reader(
    context: Context,
    stage: Stage,
    document: DocumentId,
    chain: Arc<Chain>,
    deliveries: Arc<Deliveries>,
) -> Result<Latencies> {
    let mut client = begin(&context, &stage, document, &chain).await?;
    let mut latencies = Latencies::default();
    let mut reached = 0;
    while reached < chain.edits.len() {
        let fresh = client.receive().await?.fresh;
        for hash in &fresh {
            let place = chain.index.get(hash).context("the server sent a change that nobody made")?;
            latencies.add(deliveries.reached(*place));
        }
        client.answer().await?;
        deliveries.messages.fetch_add(u64::from(!fresh.is_empty()), Relaxed);
        context.progress.step(fresh.len());
        reached += fresh.len();
    }
    end(client, &stage).await?;
    Ok(latencies)
}

async fn begin(context: &Context, stage: &Stage, document: DocumentId, chain: &Arc<Chain>) -> Result<Client> {
    let turn = stage.turn().await?;
    let mut client = Client::open(&context.url, document, chain).await?;
    drop(turn);
    stage.ready();
    client.attend(stage.begin()).await?;
    Ok(client)
}

async fn end(mut client: Client, stage: &Stage) -> Result<()> {
    stage.finished();
    client.attend(stage.leave()).await?;
    client.close().await;
    Ok(())
}
