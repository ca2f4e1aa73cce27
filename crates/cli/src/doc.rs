//! `highwater doc`: documents from the command line.

mod edit;
mod show;
mod watch;
mod write;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use highwater_core::{ChangeHash, DocumentId};
use serde_json::{Value, json};

use crate::api::{Api, Ask, Failure, ServerArgs, encoded, ended};
pub(crate) use show::Out;
use show::short;

/// What to do if the server cannot be reached.
const ADVICE: &str = "Start a server with `highwater serve`, say where one is with --server, or name a data folder with --data-dir.";
/// Entries that are asked for at once.
const PAGE: usize = 1_000;

/// List, read, change and watch documents, on a running server or in a data folder
///
/// What is said to be changed is durable, and merges with what people do at the same time. A document is named by its id, or by its automerge: url. With --json the output is for programs, and so are errors, on standard error.
///
/// The exit code is 0 if all is well; 1 if the server refuses, or `have` does not find all; 2 if what was asked makes no sense; 3 if there is no such document or change, or the document was deleted; 4 if the document is not as was said, so that it is to be read again; 5 if the server cannot be reached or asks to come back later.
#[derive(Debug, clap::Args)]
pub(crate) struct DocArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// Where the documents are.
#[derive(Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    server: ServerArgs,
    /// A data folder that no server has open, in the place of a server; only `put` makes a store in it
    #[arg(long, global = true, value_name = "FOLDER", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
}

impl Target {
    fn open(self, is_for_new: bool) -> Result<Api, Failure> {
        match self.data_dir {
            Some(folder) => Api::folder(&folder, is_for_new),
            None => self.server.open(ADVICE),
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List documents, deleted ones among them
    List(ListArgs),
    /// Print a document as JSON, its heads, or the whole of it as a file
    Get(GetArgs),
    Put(write::PutArgs),
    Patch(write::PatchArgs),
    Edit(edit::EditArgs),
    /// Print who changed a document when, the newest change first
    History(HistoryArgs),
    /// Tell whether changes are durable: the exit code is 0 if all are, 1 if not
    Have(HaveArgs),
    Watch(watch::WatchArgs),
    /// Delete documents for good: whoever still has one is told, and what they send for it is refused
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only documents whose ids begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only documents that changed after this number, in the order in which they last did; 0 is before all
    #[arg(long, value_name = "NUMBER", conflicts_with = "prefix")]
    changed_since: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    document: DocumentId,
    /// The document as it was at these heads, with commas between
    #[arg(long, value_name = "HEADS", value_delimiter = ',')]
    at: Vec<ChangeHash>,
    /// Print the heads only, one a line
    #[arg(long, conflicts_with_all = ["binary", "conflicts", "at"])]
    heads: bool,
    /// Print the document as Automerge saves it, with all its history
    #[arg(long, conflicts_with_all = ["conflicts", "json"])]
    binary: bool,
    /// With all values of places that hold more than one
    #[arg(long)]
    conflicts: bool,
}

#[derive(Debug, clap::Args)]
struct HistoryArgs {
    document: DocumentId,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct HaveArgs {
    document: DocumentId,
    /// Hashes of changes
    #[arg(required = true, value_name = "HASH")]
    hashes: Vec<ChangeHash>,
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    #[arg(required = true, value_name = "DOCUMENT")]
    documents: Vec<DocumentId>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Does what was asked, and says what went wrong.
pub(crate) fn run(args: DocArgs) -> ExitCode {
    let DocArgs { target, command } = args;
    let json = target.server.json;
    let done = target.open(command.is_for_new()).and_then(|api| {
        let done = command.run(&api, &mut Out { json });
        done.and_then(|well| api.close().map(|()| well))
    });
    ended(done, json)
}

impl Command {
    /// Whether it may make a document.
    fn is_for_new(&self) -> bool {
        matches!(self, Self::Put(args) if args.is_for_new())
    }

    /// Returns whether the answer is yes.
    fn run(self, api: &Api, out: &mut Out) -> Result<bool, Failure> {
        match self {
            Self::List(args) => list(api, &args, out),
            Self::Get(args) => get(api, &args, out),
            Self::Put(args) => write::put(api, &args, out),
            Self::Patch(args) => write::patch(api, &args, out),
            Self::Edit(args) => edit::edit(api, args, out),
            Self::History(args) => history(api, &args, out),
            Self::Have(args) => have(api, args, out),
            Self::Watch(args) => watch::watch(api, &args, out),
            Self::Rm(args) => rm(api, &args, out),
        }
    }
}

fn path(id: DocumentId) -> String {
    format!("/v1/docs/{id}")
}

fn list(api: &Api, args: &ListArgs, out: &mut Out) -> Result<bool, Failure> {
    let first = match (&args.changed_since, &args.prefix) {
        (Some(since), _) => format!("&changed-since={since}"),
        (None, Some(prefix)) => format!("&prefix={}", encoded(prefix)),
        (None, None) => String::new(),
    };
    out.row("id                            changed               made")?;
    pages(api, "/v1/docs", &first, "documents", args.limit, |entry| match out.json {
        true => out.line(entry),
        false => out.line(format_args!(
            "{:28}  {}  {}{}",
            short(&entry["id"], 40),
            show::time(entry["changed_ms"].as_i64().unwrap_or_default() / 1_000),
            show::time(entry["created_ms"].as_i64().unwrap_or_default() / 1_000),
            if entry["deleted"] == true { "  deleted" } else { "" },
        )),
    })
}

/// Asks for one page after the other.
fn pages(
    api: &Api,
    path: &str,
    query: &str,
    of: &str,
    limit: Option<usize>,
    mut show: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut next = Some(format!("{path}?limit={}{query}", left.clamp(1, PAGE)));
    while let Some(path) = next.take().filter(|_| left > 0) {
        let page = api.send(Ask::get(path))?.json()?;
        for entry in page[of].as_array().into_iter().flatten().take(left) {
            left -= 1;
            show(entry)?;
        }
        next = page["next"].as_str().map(|next| api.relative(next));
    }
    Ok(true)
}

fn get(api: &Api, args: &GetArgs, out: &mut Out) -> Result<bool, Failure> {
    let id = args.document;
    if args.heads {
        let mut state = api.send(Ask::get(format!("{}/heads", path(id))))?.json()?;
        if out.json {
            state["id"] = id.to_string().into();
            out.line(state)?;
            return Ok(true);
        }
        for head in state["heads"].as_array().into_iter().flatten() {
            out.line(short(head, 64))?;
        }
        return Ok(true);
    }
    let mut query = format!("?conflicts={}", args.conflicts);
    if !args.at.is_empty() {
        let heads: Vec<String> = args.at.iter().map(ChangeHash::to_string).collect();
        query += &format!("&heads={}", heads.join(","));
    }
    let ask = Ask::get(format!("{}{query}", path(id)));
    if args.binary {
        if std::io::stdout().is_terminal() {
            let advice =
                "a document's bytes would upset the terminal; say where they are to go: > file.automerge";
            return Err(Failure::usage(advice));
        }
        let body = api.send(ask.with("accept", "application/vnd.automerge"))?.body;
        out.bytes(&body)?;
        return Ok(true);
    }
    let answer = api.send(ask.with("accept", "application/json"))?;
    let value = answer.json()?;
    if !out.json {
        out.line(show::pretty(&value))?;
        return Ok(true);
    }
    let mut whole = json!({ "id": id.to_string(), "heads": answer.heads() });
    if args.conflicts {
        whole["value"] = value["value"].clone();
        whole["conflicts"] = value["conflicts"].clone();
    } else {
        whole["value"] = value;
    }
    out.line(whole)?;
    Ok(true)
}

fn history(api: &Api, args: &HistoryArgs, out: &mut Out) -> Result<bool, Failure> {
    out.row("time                  actor     change    operations     bytes  message")?;
    pages(api, &format!("{}/history", path(args.document)), "", "changes", args.limit, |change| {
        match out.json {
            true => out.line(change),
            false => out.line(format_args!(
                "{}  {:8}  {:8}  {:>10}  {:>8}  {}",
                show::time(change["time"].as_i64().unwrap_or_default()),
                short(&change["actor"], 8),
                short(&change["hash"], 8),
                change["ops"],
                change["bytes"],
                short(&change["message"], 200),
            )),
        }
    })
}

fn have(api: &Api, args: HaveArgs, out: &mut Out) -> Result<bool, Failure> {
    let hashes: Vec<String> = args.hashes.iter().map(ChangeHash::to_string).collect();
    let body = json!({ "hashes": hashes }).to_string().into_bytes();
    let ask = Ask::new("POST", format!("{}/have", path(args.document)), body);
    let answer = api.send(ask.with("content-type", "application/json"))?.json()?;
    let missing = answer["missing"].as_array().map_or(0, Vec::len);
    if out.json {
        out.line(&answer)?;
    } else {
        for (kind, hashes) in ["durable", "missing"].into_iter().map(|kind| (kind, &answer[kind])) {
            for hash in hashes.as_array().into_iter().flatten() {
                out.line(format_args!("{kind}  {}", short(hash, 64)))?;
            }
        }
    }
    Ok(missing == 0)
}

fn rm(api: &Api, args: &RmArgs, out: &mut Out) -> Result<bool, Failure> {
    if !args.yes && !is_sure(args.documents.len())? {
        return Err(Failure::usage("nothing was deleted"));
    }
    for id in &args.documents {
        api.send(Ask::new("DELETE", path(*id), Vec::new()))?;
        match out.json {
            true => out.line(json!({ "id": id.to_string(), "deleted": true }))?,
            false => out.line(format_args!("deleted {id}"))?,
        }
    }
    Ok(true)
}

fn is_sure(documents: usize) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked; say --yes to delete without a question"));
    }
    let what = if documents == 1 { "it".to_owned() } else { format!("these {documents}") };
    eprint!("Delete {what} for good? Nobody can bring back what is deleted. [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
