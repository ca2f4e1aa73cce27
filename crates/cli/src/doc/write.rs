//! Making documents, and changing them in one go.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use highwater_core::DocumentId;
use serde_json::{Value, json};

use super::path;
use super::show::{Out, short};
use crate::api::{Answer, Api, Ask, Failure, encoded};

/// What the chunks of Automerge begin with.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Make a document, or make it what a file says
///
/// From JSON, what differs from what the document is becomes one change, as small as it can be found to be; a document that does not exist is made. From an .automerge file, or changes one after the other, its changes become part of the document.
#[derive(Debug, clap::Args)]
pub(super) struct PutArgs {
    /// The document; `new` makes one with an id of its own, which is printed
    #[arg(value_name = "DOCUMENT")]
    target: Target,
    /// The file; standard input, if none is named or it is `-`
    file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

impl PutArgs {
    /// Whether the document may be one that does not exist yet.
    pub(super) fn is_for_new(&self) -> bool {
        self.how.if_match.is_none()
    }
}

/// Change a document with a JSON Patch (a list of operations) or a merge patch (an object)
///
/// All of it becomes one change, or nothing. Besides the operations of RFC 6902 there are {"op": "splice", "path", "index", "delete", "insert"} for texts and lists, and {"op": "increment", "path", "by"} for counters.
#[derive(Debug, clap::Args)]
pub(super) struct PatchArgs {
    document: DocumentId,
    /// The patch; standard input, if neither this nor --file is there, or it is `-`
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// What is asked of an edit.
#[derive(Debug, clap::Args)]
struct How {
    /// Only if the document has these heads, with commas between; `*`: only if it exists
    #[arg(long, value_name = "HEADS")]
    if_match: Option<String>,
    /// However often this is run with the same key, it is done once; for a day
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// What the change is about
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

impl How {
    fn ask(&self, ask: Ask) -> Ask {
        let ask = match self.if_match.as_deref().map(str::trim) {
            None => ask,
            Some("*") => ask.with("if-match", "*"),
            Some(heads) => ask.with("if-match", format!("\"{}\"", heads.trim_matches('"'))),
        };
        match &self.idempotency_key {
            Some(key) => ask.with("idempotency-key", key),
            None => ask,
        }
    }

    fn query(&self) -> String {
        self.message.as_deref().map(|text| format!("?message={}", encoded(text))).unwrap_or_default()
    }
}

/// Which document is meant.
#[derive(Debug, Clone, Copy)]
enum Target {
    New,
    Document(DocumentId),
}

impl FromStr for Target {
    type Err = highwater_core::id::InvalidDocumentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "new" { Ok(Self::New) } else { text.parse().map(Self::Document) }
    }
}

pub(super) fn put(api: &Api, args: &PutArgs, out: &mut Out) -> Result<bool, Failure> {
    let body = read(args.file.as_deref())?;
    let is_binary = body.starts_with(&MAGIC);
    let kind = if is_binary { "application/vnd.automerge" } else { "application/json" };
    match args.target {
        Target::New if args.how.if_match.is_some() => {
            Err(Failure::usage("--if-match makes no sense for a document that does not exist"))
        }
        Target::New => {
            let ask = Ask::new("POST", format!("/v1/docs{}", args.how.query()), body);
            let answer = api.send(args.how.ask(ask).with("content-type", kind))?.json()?;
            let id = answer["id"].as_str().unwrap_or_default().to_owned();
            told(out, &id, &answer["hash"], &answer["heads"], true)?;
            Ok(true)
        }
        Target::Document(_) if is_binary && !args.how.is_plain() => Err(Failure::usage(
            "the changes of an .automerge file say themselves what they are: --if-match, --idempotency-key and --message are for JSON",
        )),
        Target::Document(id) if is_binary => {
            taken(out, id, &api.send(Ask::new("POST", format!("{}/changes", path(id)), body))?)
        }
        Target::Document(id) => {
            let ask = Ask::new("PUT", format!("{}{}", path(id), args.how.query()), body);
            edited(out, id, &api.send(args.how.ask(ask).with("content-type", kind))?)
        }
    }
}

impl How {
    fn is_plain(&self) -> bool {
        self.if_match.is_none() && self.idempotency_key.is_none() && self.message.is_none()
    }
}

pub(super) fn patch(api: &Api, args: &PatchArgs, out: &mut Out) -> Result<bool, Failure> {
    let body = match args.patch.as_deref().filter(|patch| *patch != "-") {
        Some(patch) => patch.as_bytes().to_vec(),
        None => read(args.file.as_deref())?,
    };
    let kind = match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => "application/json-patch+json",
        Some(b'{') => "application/merge-patch+json",
        _ => {
            let expected =
                "the patch is neither a list of operations (JSON Patch) nor an object (merge patch)";
            return Err(Failure::usage(expected));
        }
    };
    let ask = Ask::new("PATCH", format!("{}{}", path(args.document), args.how.query()), body);
    edited(out, args.document, &api.send(args.how.ask(ask).with("content-type", kind))?)
}

/// What the file says, or standard input. Something: of a command that failed, there is nothing to read.
fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let file = file.filter(|file| *file != Path::new("-"));
    let body = match file {
        Some(file) => {
            let unreadable = |error| Failure::usage(format!("cannot read {}: {error}", file.display()));
            fs::read(file).map_err(unreadable)?
        }
        None => read_input()?,
    };
    if body.trim_ascii().is_empty() {
        let source = file.map_or("standard input".into(), |file| file.display().to_string());
        return Err(Failure::usage(format!(
            "{source} is empty; nothing was made or changed. An empty document is {{}}"
        )));
    }
    Ok(body)
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("Reading from the terminal, until Ctrl-D.");
    }
    let mut body = Vec::new();
    input.read_to_end(&mut body)?;
    Ok(body)
}

fn edited(out: &mut Out, id: DocumentId, answer: &Answer) -> Result<bool, Failure> {
    let is_new = answer.status == 201;
    let answer = answer.json()?;
    told(out, &id.to_string(), &answer["hash"], &answer["heads"], is_new)?;
    Ok(true)
}

/// Says that an edit is durable.
pub(super) fn told(
    out: &mut Out,
    id: &str,
    hash: &Value,
    heads: &Value,
    is_new: bool,
) -> Result<(), Failure> {
    if out.json {
        return out.line(json!({ "id": id, "hash": hash, "heads": heads, "created": is_new }));
    }
    match (is_new, hash.is_null()) {
        (true, _) => out.line(format_args!("made {id}")),
        (false, true) => out.line(format_args!("nothing to change in {id}")),
        (false, false) => out.line(format_args!("changed {id}: {}", short(hash, 64))),
    }
}

/// Says what became of changes that a document was given.
fn taken(out: &mut Out, id: DocumentId, answer: &Answer) -> Result<bool, Failure> {
    let mut answer = answer.json()?;
    let count = |answer: &Value, kind: &str| answer[kind].as_array().map_or(0, Vec::len);
    let (durable, pending, rejected) =
        (count(&answer, "durable"), count(&answer, "pending"), count(&answer, "rejected"));
    if out.json {
        answer["id"] = id.to_string().into();
        out.line(&answer)?;
    } else {
        out.line(format_args!("{durable} changes are part of {id}"))?;
        if pending > 0 {
            out.line(format_args!("{pending} changes wait for others that they depend on"))?;
        }
        for change in answer["rejected"].as_array().into_iter().flatten() {
            out.line(format_args!(
                "refused {}: {}",
                short(&change["hash"], 64),
                short(&change["reason"], 500)
            ))?;
        }
    }
    Ok(rejected == 0)
}
