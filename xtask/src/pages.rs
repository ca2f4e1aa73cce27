//! The client library and the demo, as the server serves it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::npm;
use crate::run::root;

/// The client library.
pub(crate) const CLIENT: &str = "js/client";
/// The demo, which uses it.
pub(crate) const DEMO: &str = "js/demo";

/// Builds the client library and the demo, unless nothing has changed since. Returns the folder with the pages.
pub(crate) fn build() -> Result<PathBuf> {
    build_client()?;
    npm::install(DEMO)?;
    let dist = root().join(DEMO).join("dist");
    let sources = [root().join(DEMO), root().join(CLIENT).join("dist")];
    if is_newer(&dist.join("index.html"), &sources)? {
        println!("{DEMO}: already built");
    } else {
        npm::script(DEMO, "build", &[])?;
    }
    Ok(dist)
}

/// Builds the client library, unless nothing has changed since.
pub(crate) fn build_client() -> Result<()> {
    npm::install(CLIENT)?;
    let client = root().join(CLIENT);
    if is_newer(&client.join("dist/index.js"), &[client])? {
        println!("{CLIENT}: already built");
        return Ok(());
    }
    npm::script(CLIENT, "build", &[])
}

/// Whether what was built is newer than all that it was built from.
fn is_newer(built: &Path, sources: &[PathBuf]) -> Result<bool> {
    let Ok(built) = fs::metadata(built).and_then(|about| about.modified()) else { return Ok(false) };
    for folder in sources {
        if newest(folder)? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When anything below a folder was changed last, apart from what is built or installed.
fn newest(folder: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if ["node_modules", "dist", "tests"].iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let about = entry.metadata()?;
        let changed = if about.is_dir() { self::newest(&entry.path())? } else { about.modified()? };
        newest = newest.max(changed);
    }
    Ok(newest)
}
