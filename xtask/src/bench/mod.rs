//! `cargo xtask bench`: measures this server and others, one after the other, and rewrites the tables in `docs/benchmarks.md`.

mod compare;
mod documents;
mod history;
mod load;
mod machine;
mod markers;
mod patches;
mod peers;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::{Steps, root, target};
use crate::serve::build_release;
use crate::{npm, tools};

/// The page with the tables.
const PAGE: &str = "docs/benchmarks.md";
/// No case begins after this.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The same for a short run.
const QUICK_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// A short run, to see that everything works: its numbers say little.
    quick: bool,
    ends: Instant,
    /// What else the machine had to do before.
    load: Option<f64>,
}

impl Plan {
    /// One number for a whole run, another for a short one.
    fn size(&self, whole: usize, quick: usize) -> String {
        if self.quick { quick } else { whole }.to_string()
    }

    /// What is left of the time; an error if nothing is.
    fn left(&self) -> Result<Duration> {
        let left = self.ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the time is up");
        }
        Ok(left)
    }
}

/// Does what the arguments say: `--quick`, and which parts; all of them if none is named.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    let parts: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(other) =
        parts.iter().find(|part| !["compare", "history", "documents", "patches"].contains(part))
    {
        bail!("there is no part `{other}`: compare, history, documents and patches are");
    }
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let quick = args.iter().any(|arg| arg == "--quick");
    let time = if quick { QUICK_TIME_MAX } else { TIME_MAX };
    let load = machine::load();
    let mut steps = Steps::default();
    if !steps.step("release build", || tools::c_compiler().and_then(|()| build_release())) {
        return steps.finish();
    }
    let peers = if wanted("compare") { build_peers(&mut steps) } else { vec![] };
    let plan = Plan { quick, ends: Instant::now() + time, load };
    let folder = Scratch::new()?;
    if wanted("compare") {
        steps.step("comparison", || write("comparison", &compare::measure(&plan, &folder, &peers)?, &plan));
    }
    if wanted("history") {
        steps.step("long histories", || write("history", &history::measure(&plan, &folder)?, &plan));
    }
    if wanted("documents") {
        steps.step("many documents", || write("documents", &documents::measure(&plan, &folder)?, &plan));
    }
    if wanted("patches") {
        steps.step("patches", || write("patches", &patches::measure(&plan, &folder)?, &plan));
    }
    steps.finish()
}

/// The others, as far as they can be built here.
fn build_peers(steps: &mut Steps) -> Vec<peers::Peer> {
    let mut peers = vec![peers::HIGHWATER];
    if steps.step("automerge-repo on Node", || tools::node().and_then(|()| npm::install("bench/peers/node")))
    {
        peers.insert(0, peers::NODE);
    }
    if steps.step("samod", peers::build_samod) {
        peers.insert(peers.len() - 1, peers::SAMOD);
    }
    peers
}

/// Puts a table into the page. That of a short run is only printed.
fn write(name: &str, table: &str, plan: &Plan) -> Result<()> {
    let text = format!("{}\n\n{table}", machine::line(plan.load));
    if plan.quick {
        println!("\n{text}\nA short run: {PAGE} stays as it is.");
        return Ok(());
    }
    let page = root().join(PAGE);
    let old = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let new = markers::replace(&old, name, &text).with_context(|| format!("in {PAGE}"))?;
    fs::write(&page, new).with_context(|| format!("cannot write {PAGE}"))?;
    println!("\n{text}\nwritten to {PAGE}");
    Ok(())
}

/// Where the servers put their data. It goes when this does.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = target().join("bench-data");
        let scratch = Self(path);
        scratch.clear()?;
        Ok(scratch)
    }

    /// A folder that does not exist yet.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(path)
    }

    fn clear(&self) -> Result<()> {
        if self.0.exists() {
            fs::remove_dir_all(&self.0)?;
        }
        Ok(fs::create_dir_all(&self.0)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind lies below the build's own folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
