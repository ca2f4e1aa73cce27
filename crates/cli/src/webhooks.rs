//! `highwater webhooks`: how the webhooks of a running server stand, and trying again what they could not be told.

use serde_json::Value;

use crate::api::{Api, Ask, DEFAULT_SERVER, Failure, encoded};

/// What to do if the server cannot be reached.
const ADVICE: &str = "Start it with `highwater serve`, or say where it is with --url.";

/// Show how the webhooks of a running server stand, or try again what they could not be told.
///
/// The server does it: it knows what it is telling just now.
#[derive(Debug, clap::Args)]
pub(crate) struct WebhooksArgs {
    #[command(subcommand)]
    command: WebhooksCommand,
}

#[derive(Debug, clap::Subcommand)]
enum WebhooksCommand {
    /// List all webhooks, each with the documents that it could not be told about
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell a webhook now about all documents that failed too often
    Retry {
        /// The webhook's name
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// The server's address
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    url: String,
    /// Print what the server says, as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the server. Returns whether nothing failed too often.
pub(crate) fn run(args: &WebhooksArgs) -> Result<bool, Failure> {
    match &args.command {
        WebhooksCommand::List { server } => {
            let listed = ask(&server.url, Ask::get("/v1/webhooks".to_owned()))?;
            let hooks = listed["webhooks"].as_array().cloned().unwrap_or_default();
            if server.json {
                println!("{listed}");
            } else {
                print!("{}", to_text(&hooks));
            }
            Ok(hooks.iter().all(|hook| hook["dead"].as_array().is_none_or(Vec::is_empty)))
        }
        WebhooksCommand::Retry { name, server } => {
            let path = format!("/v1/webhooks/{}/retry", encoded(name));
            let answer = ask(&server.url, Ask::new("POST", path, Vec::new()))?;
            match answer["documents"].as_u64() {
                _ if server.json => println!("{answer}"),
                Some(count) => println!("{count} documents are tried again"),
                None => println!("they are tried again as soon as the posts that are under way have ended"),
            }
            Ok(true)
        }
    }
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

fn ask(url: &str, ask: Ask) -> Result<Value, Failure> {
    Api::server(url, "--url", ADVICE)?.send(ask)?.json()
}
