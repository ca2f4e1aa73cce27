//! `bench crash`: edits without end, and a record of what was acknowledged, while somebody kills the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::client::Client;
use super::connection::{Lost, Socket, fresh_document};
use super::ledger::Ledger;
use super::prepare::{Chain, chain_of_one};
use super::report::Report;
use super::{Context, count};

/// How long to wait between two attempts to reach a server that is being started again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Writes edits until the server goes away, and records in a file what was acknowledged.
///
/// Kill the server at any moment while this runs, start it again, and run `verify` on the file.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CrashArgs {
    /// Where to write what was acknowledged
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many clients write
    #[arg(long, default_value_t = 16, value_parser = count())]
    clients: usize,
    /// How many edits of a client may wait for their acknowledgement at the same time
    #[arg(long, default_value_t = 4, value_parser = count())]
    in_flight: usize,
    /// How many edits a document gets before the client goes on with a new one
    #[arg(long, default_value_t = 2000, value_parser = count())]
    edits: usize,
    /// How many changes each document has before the first edit
    #[arg(long, default_value_t = 0)]
    history: usize,
    /// How many times to go on, with new documents, after the connections were lost
    #[arg(long, default_value_t = 1, value_parser = count())]
    rounds: usize,
    /// Stop after this many seconds even if the server is still there
    #[arg(long)]
    seconds: Option<u64>,
    /// How many seconds to wait for the server to come back
    #[arg(long, default_value_t = 30)]
    reconnect: u64,
}

/// What the clients have done together.
#[derive(Default)]
struct Tally {
    documents: u64,
    acknowledged: u64,
    unanswered: u64,
}

/// What every client needs.
struct Round {
    context: Context,
    args: CrashArgs,
    chain: Arc<Chain>,
    ledger: Ledger,
    stop_at: Option<Instant>,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &CrashArgs) -> Result<Report> {
    let chain = chain_of_one(args.history, args.edits, &context.progress).await?;
    let started = Instant::now();
    let round = Arc::new(Round {
        context: context.clone(),
        args: args.clone(),
        chain,
        ledger: Ledger::create(&args.out)?,
        stop_at: args.seconds.map(|seconds| started + Duration::from_secs(seconds)),
    });
    context.progress.stage("acknowledged edits", 0);
    let mut total = Tally::default();
    let mut rounds = 0;
    while rounds < args.rounds && !round.is_over() {
        wait_for_server(context, Duration::from_secs(args.reconnect)).await?;
        one_round(&round, &mut total).await?;
        rounds += 1;
    }
    let elapsed = started.elapsed();

    let mut report = Report::new("crash");
    report.count("rounds", "rounds", rounds as u64);
    report.count("clients", "clients", args.clients as u64);
    report.count("documents", "documents", total.documents);
    report.count("acknowledged", "acknowledged changes", total.acknowledged);
    report.count("unanswered", "sent but not acknowledged", total.unanswered);
    report.rate("acknowledged changes", total.acknowledged, elapsed);
    report.text("file", "written to", &args.out.display().to_string());
    Ok(report)
}

async fn one_round(round: &Arc<Round>, total: &mut Tally) -> Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..round.args.clients {
        clients.spawn(write_until_lost(round.clone()));
    }
    while let Some(tally) = clients.join_next().await {
        let tally = tally??;
        total.documents += tally.documents;
        total.acknowledged += tally.acknowledged;
        total.unanswered += tally.unanswered;
    }
    round.ledger.flush()
}

/// One client: document after document, until the connection is lost or the time is over.
async fn write_until_lost(round: Arc<Round>) -> Result<Tally> {
    let mut tally = Tally::default();
    while !round.is_over() {
        let written = write_document(&round, &mut tally).await;
        match written {
            Err(error) if is_loss(&error) => break,
            other => other?,
        }
    }
    Ok(tally)
}

async fn write_document(round: &Round, tally: &mut Tally) -> Result<()> {
    let mut client = Client::upload(&round.context.url, fresh_document()?, &round.chain).await?;
    round.ledger.acknowledged(client.replica.document(), &round.chain.base_head)?;
    tally.documents += 1;
    tally.acknowledged += 1;
    let result = write_edits(round, &mut client, tally).await;
    tally.unanswered += (client.replica.sent() - client.replica.acked()) as u64;
    result?;
    client.close().await;
    Ok(())
}

async fn write_edits(round: &Round, client: &mut Client, tally: &mut Tally) -> Result<()> {
    let edits = &round.chain.edits;
    let mut sending = true;
    while client.replica.acked() < edits.len() && !round.is_over() {
        if sending {
            match send_edits(client, round.args.in_flight).await {
                // Nothing more can be sent; but acknowledgements may still be on their way to us.
                Err(error) if is_loss(&error) => sending = false,
                other => other?,
            }
        }
        let before = client.replica.acked();
        client.receive().await?;
        for edit in &edits[before..client.replica.acked()] {
            round.ledger.acknowledged(client.replica.document(), &edit.hash)?;
            tally.acknowledged += 1;
            round.context.progress.step(1);
        }
    }
    Ok(())
}

/// Sends edits until as many are on their way as allowed.
async fn send_edits(client: &mut Client, in_flight: usize) -> Result<()> {
    while client.replica.sent() - client.replica.acked() < in_flight && client.feed_edit().await? {}
    client.flush().await
}

impl Round {
    fn is_over(&self) -> bool {
        self.stop_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// Losing the server is what this case is about; so is not reaching it any more.
fn is_loss(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Lost>()
            || cause.is::<std::io::Error>()
            || cause.is::<tokio_tungstenite::tungstenite::Error>()
    })
}

async fn wait_for_server(context: &Context, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match Socket::connect(&context.url).await {
            Ok(socket) => {
                socket.close().await;
                return Ok(());
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("no server for {} seconds", patience.as_secs()));
            }
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}
