//! Following a document.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use highwater_core::DocumentId;
use serde_json::{Value, json};

use super::path;
use super::show::{self, Out, short};
use crate::api::{Api, Ask, Failure};

/// A server that has said nothing for so long, not even that there is nothing to say, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long nothing is asked of a server that went away.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Lines that were read and not looked at.
const LINES_MAX: usize = 1_024;

/// Print the heads of a document, and those that it has whenever it changes, until it is deleted
///
/// What is printed is durable. Of changes that follow each other fast, some heads are left out, never the last ones. If the server goes away, it is asked again until it is back, and nothing is missed.
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    document: DocumentId,
    /// Also what changed, as patches
    #[arg(long)]
    patches: bool,
    /// End after so many times
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

pub(super) fn watch(api: &Api, args: &WatchArgs, out: &mut Out) -> Result<bool, Failure> {
    let mut watch = Watch { args, left: args.limit.unwrap_or(usize::MAX), last: None, is_known: false };
    while watch.left > 0 {
        match watch.follow(api, out) {
            // Over: by the server, which is asked again.
            Ok(()) => {}
            Err(failure) if watch.is_known && failure.is_passing() => {}
            Err(failure) => return Err(failure),
        }
        if watch.left > 0 {
            thread::sleep(RETRY_AFTER);
        }
    }
    Ok(true)
}

struct Watch<'a> {
    args: &'a WatchArgs,
    left: usize,
    /// The id of the last event.
    last: Option<String>,
    /// The server answered once, so it is the right one.
    is_known: bool,
}

/// An event as it is being read.
#[derive(Default)]
struct Event {
    name: String,
    data: String,
    id: Option<String>,
}

impl Watch<'_> {
    fn follow(&mut self, api: &Api, out: &mut Out) -> Result<(), Failure> {
        let WatchArgs { document, patches, .. } = *self.args;
        let mut ask = Ask::get(format!("{}/events?patches={patches}", path(document)));
        ask = ask.with("accept", "text/event-stream");
        if let Some(last) = &self.last {
            ask = ask.with("last-event-id", last);
        }
        let lines = lines(api.stream(&ask)?);
        self.is_known = true;
        let mut event = Event::default();
        while let Some(line) = next(&lines) {
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = value.to_owned(),
                "data" => event.data += value,
                "id" => event.id = Some(value.to_owned()),
                "" if line.is_empty() => self.tell(std::mem::take(&mut event), out)?,
                _ => {}
            }
            if self.left == 0 {
                break;
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: Event, out: &mut Out) -> Result<(), Failure> {
        if event.data.is_empty() {
            return Ok(());
        }
        let unreadable = |error| Failure::refused(format!("an event cannot be read: {error}"));
        let mut data: Value = serde_json::from_str(&event.data).map_err(unreadable)?;
        match (out.json, &*event.name) {
            (true, name) => {
                data["event"] = json!(name);
                out.line(&data)?;
            }
            (false, "heads") => print(&data, out)?,
            (false, _) => {}
        }
        if event.name == "deleted" {
            return Err(Failure::deleted());
        }
        // Only now, so that what was not printed is told again.
        self.last = event.id.or(self.last.take());
        self.left -= 1;
        Ok(())
    }
}

fn print(data: &Value, out: &mut Out) -> Result<(), Failure> {
    let heads = data["heads"].as_array().into_iter().flatten();
    let heads: Vec<String> = heads.map(|head| short(head, 64)).collect();
    out.line(format_args!("{}  {}", show::time(show::now()), heads.join(",")))?;
    for patch in data["patches"].as_array().into_iter().flatten() {
        out.line(format_args!("  {patch}"))?;
    }
    if data.get("patches").is_some_and(Value::is_null) {
        out.line("  too much changed to be shown: see `highwater doc get`")?;
    }
    Ok(())
}

/// Reads lines where that may take as long as it likes. Ends when nobody wants them any more.
fn lines(body: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(body).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The next line; `None` if the server is gone, or must be.
fn next(lines: &Receiver<String>) -> Option<String> {
    lines.recv_timeout(SILENCE_MAX).ok()
}
