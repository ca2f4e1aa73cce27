//! `bench echo`: what this machine can do at best, with a server that only sends back what it gets.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};

use super::connection::Socket;
use super::report::{Latencies, Report};
use super::stage::{self, Stage, Work};
use super::{Context, count};

/// Frames are sent to a server that sends them back, and nothing else. Without `--url` a server of our own is started.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoArgs {
    /// How many clients
    #[arg(long, default_value_t = 64, value_parser = count())]
    clients: usize,
    /// How many frames each client sends
    #[arg(long, default_value_t = 2000, value_parser = count())]
    messages: usize,
    /// How many bytes a frame has; that of an edit has about 400
    #[arg(long, default_value_t = 400)]
    bytes: usize,
    /// How many frames of a client may be on their way at the same time
    #[arg(long, default_value_t = 1, value_parser = count())]
    in_flight: usize,
}

/// Runs the case.
pub(crate) async fn run(context: &Context, args: &EchoArgs) -> Result<Report> {
    let mut context = context.clone();
    let _server = if context.url.is_empty() {
        let server = EchoServer::start()?;
        context.url.clone_from(&server.url);
        context.pid = Some(server.child.id());
        Some(server)
    } else {
        None
    };
    let work = Work { name: "frames", steps: args.clients * args.messages };
    let (messages, bytes, in_flight) = (args.messages, args.bytes, args.in_flight);
    let (results, elapsed, usage) = stage::run(&context, args.clients, work, |_, stage| {
        client(context.clone(), stage, messages, bytes, in_flight)
    })
    .await?;

    let mut report = Report::new("echo");
    let total = (args.clients * args.messages) as u64;
    report.count("clients", "clients", args.clients as u64);
    report.count("messages", "frames", total);
    report.count("bytes", "bytes per frame", args.bytes as u64);
    report.count("in_flight", "in flight per client", args.in_flight as u64);
    report.rate("frames", total, elapsed);
    let mut latencies = Latencies::default();
    results.into_iter().for_each(|result| latencies.merge(result));
    report.latencies("latency", "latency", &mut latencies);
    report.usage("frame", total, &usage);
    Ok(report)
}

async fn client(
    context: Context,
    stage: Stage,
    messages: usize,
    bytes: usize,
    in_flight: usize,
) -> Result<Latencies> {
    let turn = stage.turn().await?;
    let mut socket = Socket::connect(&context.url).await?;
    drop(turn);
    stage.ready();
    stage.begin().await;
    let frame = Bytes::from(vec![0x5a; bytes]);
    let mut latencies = Latencies::default();
    let mut sent_at = VecDeque::with_capacity(in_flight);
    for done in 0..messages {
        while sent_at.len() < in_flight && done + sent_at.len() < messages {
            socket.feed(frame.clone()).await?;
            sent_at.push_back(Instant::now());
        }
        socket.flush().await?;
        socket.next().await?;
        let sent: Instant = sent_at.pop_front().context("an answer to nothing")?;
        latencies.add(sent.elapsed());
        context.progress.step(1);
    }
    stage.finished();
    stage.leave().await;
    socket.close().await;
    Ok(latencies)
}

/// A process of our own that runs [`serve`], so that its processor time can be told from ours.
struct EchoServer {
    child: Child,
    url: String,
}

impl EchoServer {
    fn start() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find our own program")?;
        let mut child = Command::new(program)
            .args(["bench", "echo-server"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the echo server")?;
        let stdout = child.stdout.take().context("the echo server has no output")?;
        let mut server = Self { child, url: String::new() };
        BufReader::new(stdout).read_line(&mut server.url)?;
        server.url.truncate(server.url.trim_end().len());
        Ok(server)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // It may be gone already, and then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back every frame, until killed. Prints its address first.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ws://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) {
    // Failures end this connection; the client notices and reports them.
    let _ = stream.set_nodelay(true);
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            return;
        }
    }
}
