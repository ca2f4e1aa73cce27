//! `highwater webhooks`: how the webhooks of a running server stand, and trying again what they could not be told.

use std::process::ExitCode;

use serde_json::Value;

use crate::api::{Api, Ask, Failure, ServerArgs, encoded, ended};
use crate::doc::Out;

/// What to do if the server cannot be reached.
const ADVICE: &str = "Start it with `highwater serve`, or say where it is with --server.";

/// Show how the webhooks of a running server stand, or try again what they could not be told
///
/// The server does it: it knows what it is telling just now. With --json the output is for programs, and so are errors, on standard error.
///
/// The exit code is 0 if all is well; 1 if the server refuses, or `list` finds documents that failed too often; 2 if what was asked makes no sense; 3 if there is no such webhook; 5 if the server cannot be reached or asks to come back later.
#[derive(Debug, clap::Args)]
pub(crate) struct WebhooksArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: WebhooksCommand,
}

#[derive(Debug, clap::Subcommand)]
enum WebhooksCommand {
    /// List all webhooks, each with the documents that it could not be told about
    List,
    /// Tell a webhook now about all documents that failed too often
    Retry {
        /// The webhook's name
        name: String,
    },
}

/// Asks the server, and says what went wrong.
pub(crate) fn run(args: WebhooksArgs) -> ExitCode {
    let WebhooksArgs { server, command } = args;
    let json = server.json;
    ended(server.open(ADVICE).and_then(|api| command.run(&api, &mut Out { json })), json)
}

impl WebhooksCommand {
    /// Returns whether nothing failed too often.
    fn run(self, api: &Api, out: &mut Out) -> Result<bool, Failure> {
        match self {
            Self::List => list(api, out),
            Self::Retry { name } => retry(api, &name, out),
        }
    }
}

fn list(api: &Api, out: &mut Out) -> Result<bool, Failure> {
    let listed = api.send(Ask::get("/v1/webhooks".to_owned()))?.json()?;
    let hooks = listed["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    match out.json {
        true => out.line(&listed)?,
        false => out.bytes(to_text(hooks).as_bytes())?,
    }
    Ok(hooks.iter().all(|hook| hook["dead"].as_array().is_none_or(Vec::is_empty)))
}

fn retry(api: &Api, name: &str, out: &mut Out) -> Result<bool, Failure> {
    let path = format!("/v1/webhooks/{}/retry", encoded(name));
    let answer = api.send(Ask::new("POST", path, Vec::new()))?.json()?;
    match answer["documents"].as_u64() {
        _ if out.json => out.line(&answer)?,
        Some(count) => out.line(format_args!("{count} documents are tried again"))?,
        None => out.line("they are tried again as soon as the posts that are under way have ended")?,
    }
    Ok(true)
}

fn to_text(hooks: &[Value]) -> String {
    let mut out = String::new();
    for hook in hooks {
        let list = |key: &str| hook[key].as_array().cloned().unwrap_or_default();
        let (waiting, dead) = (list("waiting"), list("dead"));
        let text = |key: &str| hook[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| hook[key].as_u64().unwrap_or_default();
        out.push_str(&format!(
            "{}  {}  told up to {} of {}, {} waiting, {} dead\n",
            text("name"),
            text("url"),
            number("changed"),
            number("last"),
            waiting.len(),
            dead.len()
        ));
        for (label, entries) in [("WAITING", waiting), ("DEAD", dead)] {
            for entry in entries {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                let attempts = entry["attempts"].as_u64().unwrap_or_default();
                out.push_str(&format!(
                    "{label:8}  {}  {attempts} attempts: {}\n",
                    text("document"),
                    text("error")
                ));
            }
        }
    }
    if out.is_empty() { "There are no webhooks. See the setting webhooks-file.\n".to_owned() } else { out }
}
