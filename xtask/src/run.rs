//! Running other programs: where, how, and what to say when they fail.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    // As cargo says it when it runs us: two checkouts that share a target folder share the program too.
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let ours =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&ours).parent().expect("xtask lies in the root").to_owned()
    });
    &ROOT
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The server as `cargo build --release` leaves it.
pub(crate) fn release_binary() -> PathBuf {
    target().join("release").join(format!("highwater{}", std::env::consts::EXE_SUFFIX))
}

/// A command that runs in the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Runs it with its output shown; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}`: {status}");
    }
    Ok(())
}

/// Runs it and returns what it printed on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output =
        command.stderr(Stdio::piped()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}`: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Named steps, timed; a failed one does not keep the next from running.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Result<()>)>,
}

impl Steps {
    /// Runs one step under a header. Returns whether it went well.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        match &result {
            Ok(()) => println!("=== {name}: ok, {:.1} s", took.as_secs_f64()),
            Err(error) => println!("=== {name}: FAILED, {:.1} s\n{error:#}", took.as_secs_f64()),
        }
        let well = result.is_ok();
        self.done.push((name.to_owned(), took, result));
        well
    }

    /// The same for a step that finds something out.
    pub(crate) fn value<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let mut found = None;
        self.step(name, || {
            found = Some(work()?);
            Ok(())
        });
        found
    }

    /// Prints a line for each step and one for all; an error if any step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for (name, took, result) in &self.done {
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{word:>6} {:>7.1} s  {name}", took.as_secs_f64());
        }
        let failed = self.done.iter().filter(|(_, _, result)| result.is_err()).count();
        println!("steps: {} passed, {failed} failed", self.done.len() - failed);
        if failed > 0 {
            bail!("{failed} of the steps failed");
        }
        Ok(())
    }
}
