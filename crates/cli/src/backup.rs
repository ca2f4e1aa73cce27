//! `highwater backup` and `highwater restore`: a data folder as one file, and back.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use highwater_storage::SqliteStore;
use serde_json::{Map, Value, json};

use crate::doctor::Diagnosis;
use crate::durable_file;
use crate::progress::Bar;

/// Copy a data folder into one file, while its server runs
///
/// The server goes on: the copy is of the moment when it began, and has all that was acknowledged by then. It is checked as `highwater doctor` checks a folder, and has its name only when it is complete and on the disk. Nothing is written over.
///
/// The exit code is 0 if there is a backup, 1 if the folder is damaged, and 2 if nothing could be done.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Keep the backup of a folder in which something is damaged
    #[arg(long)]
    with_damage: bool,
    /// The folder to copy [default: ./highwater-data] [env: HIGHWATER_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Make a data folder from a backup
///
/// The folder must be new or empty. The backup is checked first. Clients take the server of the new folder for another one: what the old server acknowledged after the backup was made is not in it, and must not
/// count as safe.
///
/// The exit code is 0 if the folder is there, 1 if the backup is damaged, and 2 if nothing could be done.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Restore a backup in which something is damaged
    #[arg(long)]
    with_damage: bool,
    /// The folder to make [default: ./highwater-data] [env: HIGHWATER_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Makes a backup. Returns whether there is one.
pub(crate) fn run(args: &BackupArgs, data_dir: &Path) -> Result<bool> {
    let started = Instant::now();
    if args.to.exists() {
        return Err(is_there(&args.to));
    }
    let store = SqliteStore::open_read_only(data_dir)
        .with_context(|| format!("cannot read the data folder {}", data_dir.display()))?;
    let is_live = store.is_live();
    let unfinished = durable_file::unfinished(&args.to);
    remove_if_there(&unfinished)?;
    let made = copy_and_check(&store, &unfinished);
    drop(store);
    let diagnosis = match made {
        Ok(diagnosis) if diagnosis.damage_lines().is_empty() || args.with_damage => diagnosis,
        Ok(diagnosis) => {
            fs::remove_file(&unfinished)?;
            return Ok(refuse(
                &diagnosis,
                &format!(
                    "There is no backup: the data folder {} is damaged. Look at it with `highwater doctor`; \
                 say --with-damage to have a backup of it as it is.",
                    data_dir.display()
                ),
            ));
        }
        Err(error) => {
            // What is left of it is of no use; that it cannot be removed is not the problem.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    let bytes = fs::metadata(&unfinished)?.len();
    durable_file::put_in_place(&unfinished, &args.to).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(&args.to),
        _ => anyhow!("cannot give the backup its name {}: {error}", args.to.display()),
    })?;
    report(
        args.json,
        &diagnosis,
        &[
            ("backup", json!(args.to.display().to_string())),
            ("of", json!(data_dir.display().to_string())),
            ("in use", json!(if is_live { "by a server that runs now" } else { "by nobody" })),
            ("documents", json!(diagnosis.documents)),
            ("changes", json!(diagnosis.changes)),
            ("bytes", json!(bytes)),
            ("seconds", seconds(started)),
        ],
    );
    Ok(true)
}

fn is_there(path: &Path) -> anyhow::Error {
    anyhow!(
        "{} is there already, and nothing is written over. Choose another name with --to.",
        path.display()
    )
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(anyhow!("cannot remove {}, which an interrupted backup left: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn copy_and_check(store: &highwater_storage::ReadOnlyStore, to: &Path) -> Result<Diagnosis> {
    let mut bar = Bar::new("copying", 0);
    store
        .back_up(to, |done, total| bar.set(done, total, String::new))
        .with_context(|| format!("the backup was not made; was writing to {}", to.display()))?;
    drop(bar);
    Ok(Diagnosis::of(&SqliteStore::open_backup(to)?, false))
}

/// Restores. Returns whether the folder is there.
pub(crate) fn restore(args: &RestoreArgs, data_dir: &Path) -> Result<bool> {
    let started = Instant::now();
    let backup = SqliteStore::open_backup(&args.from)
        .with_context(|| format!("cannot read the backup {}", args.from.display()))?;
    let diagnosis = Diagnosis::of(&backup, false);
    drop(backup);
    if !diagnosis.damage_lines().is_empty() && !args.with_damage {
        return Ok(refuse(
            &diagnosis,
            &format!(
                "Nothing was restored: the backup {} is damaged. Take another one, or say --with-damage: what is damaged is not served then.",
                args.from.display()
            ),
        ));
    }
    let mut bar = Bar::new("restoring", 0);
    let restored =
        SqliteStore::restore(&args.from, data_dir, |done, total| bar.set(done, total, String::new));
    drop(bar);
    let identity = match restored {
        Ok(identity) => identity,
        Err(error) => bail!(
            "{error}.\nA backup is restored into a folder that is new or empty, and that no server uses: choose one with --data-dir."
        ),
    };
    report(
        args.json,
        &diagnosis,
        &[
            ("restored", json!(args.from.display().to_string())),
            ("to", json!(data_dir.display().to_string())),
            ("documents", json!(diagnosis.documents)),
            ("changes", json!(diagnosis.changes)),
            ("peer id", json!(identity.peer_id)),
            ("storage id", json!(identity.storage_id)),
            ("seconds", seconds(started)),
        ],
    );
    Ok(true)
}

/// Says what is damaged, and what follows from it.
fn refuse(diagnosis: &Diagnosis, advice: &str) -> bool {
    for line in diagnosis.damage_lines() {
        eprintln!("DAMAGE        {line}");
    }
    eprintln!("highwater: {advice}");
    false
}

fn report(as_json: bool, diagnosis: &Diagnosis, rows: &[(&str, Value)]) {
    let damage = diagnosis.damage_lines();
    if as_json {
        let mut all: Map<String, Value> =
            rows.iter().map(|(key, value)| (key.replace(' ', "_"), value.clone())).collect();
        all.insert("damage".to_owned(), json!(damage));
        println!("{}", Value::Object(all));
        return;
    }
    for (label, value) in rows {
        println!("{label:12}  {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    damage.iter().for_each(|line| println!("DAMAGE        {line}"));
}

/// In tenths.
fn seconds(since: Instant) -> Value {
    json!((since.elapsed().as_secs_f64() * 10.0).round() / 10.0)
}
