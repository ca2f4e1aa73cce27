//! A document in an editor.
//!
//! What is saved is compared with what was read, and the difference becomes a change on the heads that were read: made here, so that it merges with what others did meanwhile as if it had been
//! made by somebody who was offline. Nothing of theirs is overwritten, and there is no conflict to be asked about.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitStatus};

use highwater_core::{DocumentId, Edit, MadeChange, Materialised, Stamp};
use serde_json::Value;

use super::path;
use super::show::{Out, now, pretty, short};
use super::write::told;
use crate::api::{Answer, Api, Ask, Failure};

/// Open a document in $EDITOR, and make what was changed there one change
///
/// What others do meanwhile stays, in the same text too. Nothing happens if nothing was changed. If what was saved cannot be sent, the file is kept.
#[derive(Debug, clap::Args)]
pub(super) struct EditArgs {
    document: DocumentId,
    /// What the change is about
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) fn edit(api: &Api, args: EditArgs, out: &mut Out) -> Result<bool, Failure> {
    let EditArgs { document: id, message } = args;
    let ask = Ask::get(path(id)).with("accept", "application/vnd.automerge");
    let document = Materialised::load(&api.send(ask)?.body).map_err(Failure::refused)?;
    let value = document.to_json(None).map_err(|error| Failure::refused(error.to_string()))?;
    let heads: Vec<String> = document.heads().iter().map(ToString::to_string).collect();
    let heads = heads.join(",");

    let mut file = tempfile::Builder::new().prefix(&format!("{id}-")).suffix(".json").tempfile()?;
    file.write_all(pretty(&value).as_bytes())?;
    file.write_all(b"\n")?;
    // Editors replace files, so that the handle is of no use any more.
    let file = file.into_temp_path();
    let is_kept = |failure: Failure, file: tempfile::TempPath| match file.keep() {
        Ok(kept) => failure.with(&kept_advice(&kept, id, &heads)),
        Err(error) => failure.with(&format!("The file could not be kept: {error}")),
    };
    let saved = match saved(&file) {
        Ok(saved) => saved,
        Err(failure) => return Err(is_kept(failure, file)),
    };
    let made = match make(document, &saved, message) {
        Ok(made) => made,
        Err(failure) => return Err(is_kept(failure, file)),
    };
    let Some(made) = made else {
        told(out, &id.to_string(), &Value::Null, &heads.split(',').collect(), false)?;
        return Ok(true);
    };
    let sent = api.send(Ask::new("POST", format!("{}/changes", path(id)), made.chunk.to_vec()));
    if let Err(failure) = sent.and_then(|answer| is_durable(&answer, &made)) {
        return Err(is_kept(failure, file));
    }
    // The change is durable, whether the server can be asked once more or not.
    let now = api.send(Ask::get(format!("{}/heads", path(id)))).and_then(|answer| answer.json());
    let now = now.map_or(Value::Null, |mut now| now["heads"].take());
    let hash = made.hash.to_string();
    told(out, &id.to_string(), &Value::from(hash.as_str()), &now, false)?;
    if !out.json && !now.is_null() && now != Value::from(vec![hash]) {
        out.line("Others changed it meanwhile: what they did is there, too.")?;
    }
    Ok(true)
}

fn kept_advice(kept: &Path, id: DocumentId, heads: &str) -> String {
    let file = kept.display();
    format!(
        "What you saved is in {file}. To send it if nobody has changed the document since: highwater doc put {id} {file} --if-match {heads}"
    )
}

/// What was saved in the editor: JSON, or the editor is opened again if somebody is there to use it.
fn saved(file: &Path) -> Result<Vec<u8>, Failure> {
    loop {
        let status = open_editor(file)?;
        if !status.success() {
            return Err(Failure::usage(format!("the editor ended with {status}; nothing was changed")));
        }
        let saved = fs::read(file)?;
        let Err(error) = Edit::set(&saved) else { return Ok(saved) };
        let failure = Failure::usage(format!("what was saved is no document: {error}; nothing was changed"));
        if !std::io::stdin().is_terminal() || !asks_again(&error.to_string())? {
            return Err(failure);
        }
    }
}

fn asks_again(error: &str) -> Result<bool, Failure> {
    eprint!("What was saved is no document: {error}. Edit it again? [Y/n] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let is_end = std::io::stdin().read_line(&mut answer)? == 0;
    Ok(!is_end && !matches!(answer.trim(), "n" | "N" | "no"))
}

/// `VISUAL`, or `EDITOR`, which may be commands with arguments; or what every system has.
fn open_editor(file: &Path) -> Result<ExitStatus, Failure> {
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let usual = if cfg!(windows) { "notepad" } else { "vi" };
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| usual.to_owned());
    let failed =
        |error| Failure::usage(format!("cannot start the editor `{editor}`: {error}. Say which in EDITOR"));
    command(&editor, file).status().map_err(failed)
}

#[cfg(unix)]
fn command(editor: &str, file: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$@\"")).arg(editor).arg(file);
    command
}

#[cfg(not(unix))]
fn command(editor: &str, file: &Path) -> Command {
    let mut words = editor.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg(file);
    command
}

/// The change that makes the document what was saved; `None` if it is that.
fn make(
    document: Materialised,
    saved: &[u8],
    message: Option<String>,
) -> Result<Option<MadeChange>, Failure> {
    let invalid = |error: highwater_core::EditError| Failure::usage(error.to_string());
    let edit = Edit::set(saved).map_err(invalid)?;
    let mut actor = [0; 16];
    getrandom::fill(&mut actor).map_err(|error| Failure::usage(format!("no randomness: {error}")))?;
    let stamp = Stamp { actor, message, time: now() };
    let (_, made) = document.edit(&edit, &stamp).map_err(Failure::refused)?;
    made.map_err(invalid)
}

/// Whether the server has it.
fn is_durable(answer: &Answer, made: &MadeChange) -> Result<(), Failure> {
    let answer = answer.json()?;
    let hash = made.hash.to_string();
    if answer["durable"].as_array().is_some_and(|durable| durable.iter().any(|it| *it == hash)) {
        return Ok(());
    }
    let reason = answer["rejected"].as_array().and_then(|rejected| rejected.first());
    let reason = reason.map_or("it is not known why".to_owned(), |change| short(&change["reason"], 500));
    Err(Failure::refused(format!("the server did not take the change: {reason}")))
}
