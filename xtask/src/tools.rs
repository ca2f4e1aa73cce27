//! What has to be on the machine, and what to do when it is not.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, command, output, run};

const NODE_MAJOR_MIN: u32 = 20;

/// SQLite comes as C source and is compiled with the server.
pub(crate) fn c_compiler() -> Result<()> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    // On Windows the build finds Microsoft's compiler by itself.
    if cfg!(windows) {
        return Ok(());
    }
    output(&mut command(&compiler, &["--version"])).with_context(|| {
        format!(
            "no C compiler: `{compiler}` does not run, and SQLite is built from its C source.\n\
             Install one (Debian, Ubuntu: apt-get install build-essential; macOS: xcode-select --install)"
        )
    })?;
    Ok(())
}

/// The cargo parts that `test` needs.
pub(crate) fn rust() -> Result<()> {
    for part in ["fmt", "clippy"] {
        output(&mut cargo(&[part, "--version"])).with_context(|| {
            format!("`cargo {part}` does not run; install it with: rustup component add {}", component(part))
        })?;
    }
    Ok(())
}

fn component(part: &str) -> &str {
    if part == "fmt" { "rustfmt" } else { part }
}

/// Node and npm, for the tests with real clients.
pub(crate) fn node() -> Result<()> {
    let version = output(&mut command("node", &["--version"])).context(
        "no Node.js: install version 20 or later; the tests run real automerge-repo clients on it",
    )?;
    let major =
        version.trim().trim_start_matches('v').split('.').next().and_then(|text| text.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("Node.js {} is too old: version {NODE_MAJOR_MIN} or later is needed", version.trim());
    }
    output(&mut command(NPM, &["--version"])).context("no npm: it usually comes with Node.js")?;
    Ok(())
}

/// Chromium, for the tests in a browser. On a fresh Debian or Ubuntu, where we may, it is installed.
pub(crate) fn chromium() -> Result<PathBuf> {
    let found = || {
        let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
        let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
        named.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.exists())
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    let advice = "no Chromium: install it (Debian: apt-get install chromium), or say where it is with CHROMIUM=/path/to/chrome";
    if output(&mut command("apt-get", &["--version"])).is_err() {
        bail!(advice);
    }
    run(&mut command("apt-get", &["update"])).context(advice)?;
    let mut install = command("apt-get", &["install", "--yes", "--no-install-recommends", "chromium"]);
    run(install.env("DEBIAN_FRONTEND", "noninteractive")).context(advice)?;
    found().context(advice)
}

/// What npm is called here.
pub(crate) const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };
