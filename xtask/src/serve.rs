//! `cargo xtask serve`: from a fresh checkout to a running server.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{cargo, release_binary, root, run};
use crate::{pages, tools};

pub(crate) fn serve(args: &[String]) -> Result<()> {
    tools::c_compiler()?;
    tools::node()?;
    let pages = pages::build()?;
    build_release()?;
    let mut server = Command::new(release_binary());
    server.arg("serve");
    if !args.iter().any(|arg| arg.starts_with("--pages-dir")) {
        server.arg("--pages-dir").arg(pages);
    }
    // Whoever chooses an address may choose one that others can reach, and those must not kill the server.
    let is_usual = !args.iter().any(|arg| arg.starts_with("--listen") || arg.starts_with("--config"));
    if is_usual && std::env::var_os("HIGHWATER_LISTEN").is_none() {
        server.arg("--demo");
    }
    server.args(args).current_dir(std::env::current_dir().unwrap_or_else(|_| root().to_owned()));
    replace_with(server)
}

/// Builds the server as it is shipped.
pub(crate) fn build_release() -> Result<()> {
    run(&mut cargo(&["build", "--release", "--locked", "--package", "highwater"]))
}

/// The server takes our place, so that signals reach it and nothing stands between.
#[cfg(unix)]
fn replace_with(mut server: Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = server.exec();
    Err(error).with_context(|| format!("cannot start {}", release_binary().display()))
}

#[cfg(not(unix))]
fn replace_with(mut server: Command) -> Result<()> {
    let status = server.status().with_context(|| format!("cannot start {}", release_binary().display()))?;
    std::process::exit(status.code().unwrap_or(1));
}
