//! `cargo xtask dist`: an archive with the server and what has to go with it.

use std::fs;

use anyhow::{Context as _, Result};

use crate::run::{command, output, release_binary, root, run, target};
use crate::serve::build_release;
use crate::{tidy, tools};

const BESIDE_THE_BINARY: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

pub(crate) fn dist() -> Result<()> {
    tools::c_compiler()?;
    build_release()?;
    let name = format!("highwater-{}-{}", version()?, host()?);
    let folder = target().join("dist");
    let staged = folder.join(&name);
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(&staged)?;
    let binary = release_binary();
    let file_name = binary.file_name().context("the binary has a name")?;
    fs::copy(&binary, staged.join(file_name)).with_context(|| format!("cannot copy {}", binary.display()))?;
    for file in BESIDE_THE_BINARY {
        fs::copy(root().join(file), staged.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let archive = format!("{name}.tar.gz");
    run(command("tar", &["-czf", &archive, &name]).current_dir(&folder))?;
    let size = fs::metadata(folder.join(&archive))?.len();
    println!("{} ({:.1} MB)", folder.join(&archive).display(), size as f64 / 1e6);
    Ok(())
}

fn version() -> Result<String> {
    let workspace = tidy::metadata()?;
    let packages = workspace["packages"].as_array().context("metadata lists packages")?;
    let server =
        packages.iter().find(|package| package["name"] == "highwater").context("no package highwater")?;
    Ok(server["version"].as_str().context("a package has a version")?.to_owned())
}

fn host() -> Result<String> {
    let text = output(&mut command("rustc", &["-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names the host")?.to_owned())
}
