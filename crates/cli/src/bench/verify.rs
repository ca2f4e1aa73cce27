//! `bench verify`: is everything there that was acknowledged?

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use highwater_core::{ChangeHash, DocumentId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Context;
use super::connection::Connection;
use super::fetch::{Fetched, fetch};
use super::ledger;
use super::report::Report;

/// How many documents are fetched at the same time.
const FETCHING_MAX: usize = 8;
/// A server that does not hand out what it announces is given up on after this long.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How many lost changes are named in the report.
const NAMED_MAX: usize = 10;

/// Fetches every document that `crash` wrote, as a client that has nothing, and looks for everything that was acknowledged.
///
/// The exit code is 1 if something is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The file that `crash` wrote
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

/// What was found of one document, or of all.
#[derive(Default)]
struct Findings {
    acknowledged: u64,
    /// Changes that are there although nobody was told so.
    beyond: u64,
    lost: Vec<String>,
    lost_count: u64,
    unreadable: u64,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &VerifyArgs) -> Result<Report> {
    let documents = ledger::read(&args.from)?;
    if documents.is_empty() {
        bail!("{} says that nothing was acknowledged, so there is nothing to look for", args.from.display());
    }
    context.progress.stage("documents", documents.len());
    let count = documents.len() as u64;
    let turns = Arc::new(Semaphore::new(FETCHING_MAX));
    let mut tasks = JoinSet::new();
    for (document, hashes) in documents {
        let (context, turns) = (context.clone(), turns.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await?;
            let findings = verify(&context.url, document, hashes).await;
            context.progress.step(1);
            findings
        });
    }
    let mut total = Findings::default();
    while let Some(findings) = tasks.join_next().await {
        total.add(findings??);
    }

    let mut report = Report::new("verify");
    report.count("documents", "documents", count);
    report.count("acknowledged", "acknowledged changes", total.acknowledged);
    report.count("lost", "lost", total.lost_count);
    report.count("beyond", "there without acknowledgement", total.beyond);
    report.count("unreadable", "unreadable documents", total.unreadable);
    for (number, lost) in total.lost.iter().enumerate() {
        report.text(&format!("lost_{}", number + 1), "lost", lost);
    }
    report.passed = total.lost_count == 0 && total.unreadable == 0;
    Ok(report)
}

async fn verify(url: &str, document: DocumentId, hashes: Vec<ChangeHash>) -> Result<Findings> {
    let mut connection = Connection::open_wide(url).await?;
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(&mut connection, document)).await;
    connection.close().await;
    let present = match fetched {
        Ok(fetched) => present(&fetched?),
        Err(_) => Err(anyhow::anyhow!("the server did not hand it out within {FETCH_TIMEOUT:?}")),
    };
    Ok(Findings::of(document, &hashes, present))
}

/// The hashes of all changes in the fetched document.
fn present(fetched: &Fetched) -> Result<HashSet<ChangeHash>> {
    if fetched.unavailable {
        return Ok(HashSet::new());
    }
    let document = fetched.load().context("unreadable")?;
    Ok(document.get_changes(&[]).iter().map(|change| change.hash()).collect())
}

impl Findings {
    fn of(document: DocumentId, hashes: &[ChangeHash], present: Result<HashSet<ChangeHash>>) -> Self {
        let mut findings = Self { acknowledged: hashes.len() as u64, ..Self::default() };
        let present = present.unwrap_or_else(|error| {
            findings.unreadable = 1;
            findings.lost.push(format!("{document}: {error:#}"));
            HashSet::new()
        });
        let lost: Vec<_> = hashes.iter().filter(|hash| !present.contains(hash)).collect();
        findings.lost_count = lost.len() as u64;
        findings.beyond = (present.len() + lost.len()).saturating_sub(hashes.len()) as u64;
        findings.lost.extend(lost.iter().take(NAMED_MAX).map(|hash| format!("{document} {hash}")));
        findings
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.beyond += other.beyond;
        self.lost_count += other.lost_count;
        self.unreadable += other.unreadable;
        self.lost.extend(other.lost);
        self.lost.truncate(NAMED_MAX);
    }
}
