//! What has to be on the machine, and what to do when it is not.

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, command, output};

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

/// What npm is called here.
pub(crate) const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };
