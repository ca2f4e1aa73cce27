//! The npm packages of this repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::run::{command, root, run};
use crate::tools::NPM;

/// Installs exactly what the lock file says, unless that has been done already.
pub(crate) fn install(package: &str) -> Result<()> {
    let folder = root().join(package);
    let lock = folder.join("package-lock.json");
    let stamp = folder.join("node_modules").join(".installed-lock.json");
    let wanted = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("{package}: already installed");
        return Ok(());
    }
    run(&mut npm(&folder, &["ci", "--prefer-offline", "--no-audit", "--no-fund"]))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Runs a script of a package.
pub(crate) fn script(package: &str, script: &str, environment: &[(&str, PathBuf)]) -> Result<()> {
    let mut command = npm(&root().join(package), &["run", script]);
    run(command.envs(environment.iter().map(|(name, value)| (name, value))))
}

fn npm(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut command = command(NPM, args);
    command.current_dir(folder);
    command
}
