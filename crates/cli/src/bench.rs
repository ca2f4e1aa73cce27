//! `highwater bench`: a load generator for any server that speaks the automerge-repo protocol.
//!
//! Its clients hold prepared changes and keep hashes instead of documents, so that the server is what is measured. It uses little of Highwater's own
//! code (document ids, sync messages), so that it can be held against other servers and against what Highwater claims.

mod chunk;
mod client;
mod cold;
mod connection;
mod crash;
mod documents;
mod echo;
mod edits;
mod fanout;
mod fetch;
mod folder;
mod frame;
mod history;
mod idle;
mod ledger;
mod patches;
mod prepare;
mod process;
mod progress;
mod replica;
mod report;
mod server;
mod stage;
mod trace;
mod verify;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::builder::RangedU64ValueParser;

use progress::Progress;
use report::Report;

/// Measure a server that speaks the automerge-repo protocol: this one or another.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// The address of the server, ws://HOST:PORT
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// The process id of the server; with it, its processor time and memory are measured (on Linux)
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Print the results as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Give up after this many seconds
    #[arg(long, global = true, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// How many threads the load generator uses
    #[arg(long, global = true, default_value_t = 1, value_parser = count())]
    threads: usize,
    #[command(subcommand)]
    case: Case,
}

#[derive(Debug, clap::Subcommand)]
enum Case {
    /// How fast edits are acknowledged
    Edits(edits::EditsArgs),
    /// How fast edits reach those who have the document open
    Fanout(fanout::FanoutArgs),
    /// How fast a client that has nothing gets a document
    Cold(cold::ColdArgs),
    /// How much memory a connection costs that does nothing
    Idle(idle::IdleArgs),
    /// What a long history costs: on disk, in memory, to open, to serve
    History(history::HistoryArgs),
    /// What edits over HTTP cost, on a long history and on a short one
    Patches(patches::PatchesArgs),
    /// What many documents cost that nobody has open
    Documents(documents::DocumentsArgs),
    /// Write, and record what was acknowledged, while the server is killed
    Crash(crash::CrashArgs),
    /// Look for everything that `crash` recorded
    Verify(verify::VerifyArgs),
    /// What this machine can do at best
    Echo(echo::EchoArgs),
    /// The server of `echo`
    #[command(hide = true)]
    EchoServer,
}

/// What every case needs.
#[derive(Clone)]
struct Context {
    url: String,
    pid: Option<u32>,
    progress: Progress,
}

/// Runs a case and prints what it found. Returns whether what it checks holds.
pub(crate) fn run(args: &BenchArgs) -> Result<bool> {
    // The others start a server of their own.
    let has_own_server = matches!(
        args.case,
        Case::Echo(_) | Case::EchoServer | Case::History(_) | Case::Documents(_) | Case::Patches(_)
    );
    let needs_url = !has_own_server;
    if needs_url && args.url.is_none() {
        bail!("which server? Say it with --url ws://HOST:PORT");
    }
    let context =
        Context { url: args.url.clone().unwrap_or_default(), pid: args.pid, progress: Progress::new() };
    crate::system::raise_open_files_limit();
    let runtime = runtime(args.threads)?;
    let result = runtime.block_on(async {
        match &args.case {
            Case::EchoServer => echo::serve().await.map(|()| None),
            case => limited(&context, case, Duration::from_secs(args.timeout)).await.map(Some),
        }
    });
    // Clients of a case that was given up on may still be busy; nobody waits for them.
    runtime.shutdown_background();
    let Some(report) = result? else { return Ok(true) };
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_text());
    }
    Ok(report.passed)
}

/// Runs a case with its progress on the terminal, and gives up in time.
async fn limited(context: &Context, case: &Case, limit: Duration) -> Result<Report> {
    tokio::select! {
        biased;
        report = run_case(context, case) => report,
        () = context.progress.show() => bail!("the progress ended before the case"),
        () = tokio::time::sleep(limit) => {
            bail!("not finished after {} seconds; given up at: {}", limit.as_secs(), context.progress)
        }
    }
}

async fn run_case(context: &Context, case: &Case) -> Result<Report> {
    match case {
        Case::Edits(args) => edits::run(context, args).await,
        Case::Fanout(args) => fanout::run(context, args).await,
        Case::Cold(args) => cold::run(context, args).await,
        Case::Idle(args) => idle::run(context, args).await,
        Case::History(args) => history::run(context, args).await,
        Case::Documents(args) => documents::run(context, args).await,
        Case::Patches(args) => patches::run(context, args).await,
        Case::Crash(args) => crash::run(context, args).await,
        Case::Verify(args) => verify::run(context, args).await,
        Case::Echo(args) => echo::run(context, args).await,
        Case::EchoServer => bail!("the echo server is no case"),
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    // One thread without a scheduler between the tasks costs least, and leaves the most to the server.
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().context("cannot start the runtime")
}

/// The parser of a number that must be at least 1.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
