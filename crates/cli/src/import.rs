//! `highwater import`: documents of other servers, and saved ones, into a data folder.

mod find;
mod ids;
mod intake;
pub(crate) mod read;
mod report;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use futures::StreamExt;
use highwater_core::DocumentId;
use highwater_storage::{SqliteStore, Store, StoreError};
use tokio::sync::Semaphore;

use crate::progress::Bar;
use find::{Format, Source};
use ids::GivenIds;
use intake::Stopped;
use report::Report;

/// Documents that are under way at a time, so that small ones share commits.
const AT_ONCE: usize = 32;
/// What the documents under way may have together, counted in [`ROOM_UNIT`]s; a larger one goes alone.
const ROOM: u32 = 1_024;
/// Bytes.
const ROOM_UNIT: u64 = 16 << 10;

/// Take documents of automerge-repo, samod or .automerge files into a data folder
///
/// No server may have the data folder open. Every chunk of every file is verified. A file that does not verify is refused by name, and the rest goes in; changes that a server would refuse are refused. What is
/// there already is not added again, so an import that was interrupted is simply run again. The files are not changed.
///
/// The exit code is 0 if all went in, 1 if something was refused, and 2 if nothing could be done.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// What to take in: folders and files
    #[arg(required = true, value_name = "FROM")]
    from: Vec<PathBuf>,
    /// The folder to import into; it is made if it is missing [default: ./highwater-data] [env: HIGHWATER_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How the documents lie there
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Imports, and prints what became of everything. Returns whether all went in.
pub(crate) fn run(args: &ImportArgs, data_dir: &Path) -> Result<bool> {
    // All is looked for before the folder is made.
    let found = args.from.iter().map(|from| find::find(from, args.format)).collect::<Result<Vec<_>>>()?;
    let store = SqliteStore::open(data_dir).map_err(explain)?;
    let mut given = GivenIds::load(data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    let total = found.iter().flat_map(|found| &found.sources).map(Source::bytes).sum();
    let mut bar = Bar::new("importing", total);
    for found in found {
        report.sync_states += found.sync_states;
        report.ignored.extend(found.ignored);
        let named = name_all(found.sources, &mut given, &mut report)?;
        if let Err(Stopped(error)) = runtime.block_on(take_in_all(&store, named, &mut report, &mut bar)) {
            report.stopped = Some(format!("{error:#}"));
            break;
        }
    }
    drop(bar);
    if let Err(error) = runtime.block_on(store.close()) {
        report.stopped.get_or_insert(error.to_string());
    }
    if args.json {
        println!("{}", report.to_json(data_dir));
    } else {
        print!("{}", report.to_text(data_dir));
    }
    Ok(report.is_all_well())
}

fn explain(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Locked(_) => anyhow!(
            "{error}.\nStop the server that has it open and import then, or import into a folder of its own with --data-dir."
        ),
        error => anyhow!(
            "{error}.\nChoose another folder with --data-dir, or see what is wrong with `highwater doctor`."
        ),
    }
}

/// Gives an id to each source that has none, and puts together what is of one document: two of them at a time would get into each other's way.
fn name_all(
    sources: Vec<Source>,
    given: &mut GivenIds,
    report: &mut Report,
) -> Result<Vec<(DocumentId, Source)>> {
    let mut named: Vec<(DocumentId, Source)> = Vec::with_capacity(sources.len());
    let mut places: HashMap<DocumentId, usize> = HashMap::new();
    for source in sources {
        let id = match (source.id, source.files.first()) {
            (Some(id), _) => id,
            (None, None) => continue,
            (None, Some(file)) => match given.id_of(file)? {
                Err(reason) => {
                    report.refuse_file(&file.path, reason);
                    continue;
                }
                Ok(id) => {
                    report.gave(&file.path, id);
                    id
                }
            },
        };
        match places.entry(id) {
            Entry::Occupied(place) => named[*place.get()].1.files.extend(source.files),
            Entry::Vacant(place) => {
                place.insert(named.len());
                named.push((id, source));
            }
        }
    }
    Ok(named)
}

async fn take_in_all(
    store: &SqliteStore,
    sources: Vec<(DocumentId, Source)>,
    report: &mut Report,
    bar: &mut Bar,
) -> Result<(), Stopped> {
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let take_in = |(id, source): (DocumentId, Source)| {
        let (room, bytes) = (room.clone(), source.bytes());
        async move {
            let units = u32::try_from(bytes / ROOM_UNIT + 1).unwrap_or(ROOM).min(ROOM);
            // The semaphore is never closed.
            let _place = room.acquire_many(units).await.ok();
            (id, bytes, intake::take_in(store, id, &source.files).await)
        }
    };
    let mut under_way = futures::stream::iter(sources).map(take_in).buffer_unordered(AT_ONCE);
    let mut stopped = None;
    while let Some((id, bytes, outcome)) = under_way.next().await {
        match outcome {
            Ok(outcome) => report.take(id, outcome),
            // Those that are under way are counted as far as they got.
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
        bar.add(bytes, || format!("{} documents, {} changes", report.documents, report.changes));
    }
    stopped.map_or(Ok(()), Err)
}
