//! `highwater webhooks`: how the webhooks of a running server stand, and trying again what they could not be told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// A server that takes longer to answer is not well.
const TIMEOUT: Duration = Duration::from_secs(30);
/// An answer of a server is not longer, unless it is none of ours.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

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
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3030")]
    url: String,
    /// Print what the server says, as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the server. Returns whether nothing failed too often.
pub(crate) fn run(args: &WebhooksArgs) -> Result<bool> {
    match &args.command {
        WebhooksCommand::List { server } => {
            let listed = ask(&server.url, "GET", "/v1/webhooks")?;
            let hooks = listed["webhooks"].as_array().cloned().unwrap_or_default();
            if server.json {
                println!("{listed}");
            } else {
                print!("{}", to_text(&hooks));
            }
            Ok(hooks.iter().all(|hook| hook["dead"].as_array().is_none_or(Vec::is_empty)))
        }
        WebhooksCommand::Retry { name, server } => {
            let answer = ask(&server.url, "POST", &format!("/v1/webhooks/{}/retry", escaped(name)))?;
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

/// Asks a server, over plain HTTP. What is no success is an error.
fn ask(url: &str, method: &str, path: &str) -> Result<Value> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
    let rest = rest.ok_or_else(|| anyhow!("{url} does not begin with http://"))?;
    let address = rest.split('/').next().unwrap_or_default();
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let mut stream =
        TcpStream::connect(&address).with_context(|| format!("cannot reach a server at {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).context("the server does not answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("that is no answer of a server")?;
    let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).context("that is no HTTP")?;
    let body: Value = serde_json::from_str(body).unwrap_or(json!({}));
    if !(200..300).contains(&status) {
        bail!(
            "the server says: {} ({status})",
            body["detail"].as_str().unwrap_or("it does not know what that is")
        );
    }
    Ok(body)
}

/// A name as it stands in a path.
fn escaped(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
