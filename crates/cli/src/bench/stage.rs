//! Keeps the clients of a case in step: all begin together, and none leaves before the last has finished.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Context;
use super::process::{Meter, Usage};
use super::progress::Progress;

/// How many clients connect at the same time.
const CONNECTING_MAX: usize = 16;

/// One client's tickets: to connect, to begin, to report that it has finished, to leave.
#[derive(Clone)]
pub(crate) struct Stage {
    connecting: Arc<Semaphore>,
    ready: Arc<watch::Sender<usize>>,
    finished: Arc<watch::Sender<usize>>,
    begin: watch::Receiver<bool>,
    leave: watch::Receiver<bool>,
    progress: Progress,
}

/// What the clients do between the beginning and the end, for the progress line.
pub(crate) struct Work {
    /// In words.
    pub(crate) name: &'static str,
    /// How many steps it has.
    pub(crate) steps: usize,
}

impl Stage {
    /// Waits for a turn to connect; the turn ends when the result is dropped.
    pub(crate) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.connecting.acquire().await.context("the case ended")
    }

    /// Reports that this client is ready.
    pub(crate) fn ready(&self) {
        self.progress.step(1);
        self.ready.send_modify(|count| *count += 1);
    }

    /// Resolves when all are ready.
    pub(crate) fn begin(&self) -> impl Future<Output = ()> + use<> {
        turned_on(self.begin.clone())
    }

    /// Reports that this client has done its part.
    pub(crate) fn finished(&self) {
        self.finished.send_modify(|count| *count += 1);
    }

    /// Resolves when all have done their part and the measurement is over.
    pub(crate) fn leave(&self) -> impl Future<Output = ()> + use<> {
        turned_on(self.leave.clone())
    }
}

/// If the other end is gone, the case is over, which also ends the wait.
async fn turned_on(mut switch: watch::Receiver<bool>) {
    let _ = switch.wait_for(|on| *on).await;
}

/// Runs `count` clients through a stage. Returns their results, and the time and the processor time between the moment when all were ready and
/// the moment when all had finished. The first error ends the case.
pub(crate) async fn run<T, F>(
    context: &Context,
    count: usize,
    work: Work,
    mut client: impl FnMut(usize, Stage) -> F,
) -> Result<(Vec<T>, Duration, Usage)>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (ready, finished) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(0)));
    let (begin, leave) = (watch::Sender::new(false), watch::Sender::new(false));
    let mut tasks = JoinSet::new();
    context.progress.stage("connecting clients", count);
    let stage = Stage {
        connecting: Arc::new(Semaphore::new(CONNECTING_MAX)),
        ready: ready.clone(),
        finished: finished.clone(),
        begin: begin.subscribe(),
        leave: leave.subscribe(),
        progress: context.progress.clone(),
    };
    for number in 0..count {
        tasks.spawn(client(number, stage.clone()));
    }
    all(&mut tasks, &ready, count).await?;
    context.progress.stage(work.name, work.steps);
    let meter = Meter::start(context.pid);
    let started = Instant::now();
    begin.send_replace(true);
    all(&mut tasks, &finished, count).await?;
    let elapsed = started.elapsed();
    let usage = meter.stop();
    leave.send_replace(true);
    let mut results = Vec::with_capacity(count);
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok((results, elapsed, usage))
}

/// Waits until the counter has reached `count`. A client that ends before that has failed.
async fn all<T: 'static>(
    tasks: &mut JoinSet<Result<T>>,
    counter: &watch::Sender<usize>,
    count: usize,
) -> Result<()> {
    let mut counter = counter.subscribe();
    tokio::select! {
        biased;
        Some(ended) = tasks.join_next() => {
            ended??;
            anyhow::bail!("a client ended before its time")
        }
        reached = counter.wait_for(|reached| *reached >= count) => {
            reached.context("the clients are gone")?;
            Ok(())
        }
    }
}
