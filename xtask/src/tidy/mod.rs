//! The rules of this repository, as code. Every finding names the place and says what to do about it.

mod dependencies;
mod docs;
mod lexer;
mod ratchet;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{cargo, command, output, root};

/// Something that breaks a rule.
pub(crate) struct Finding {
    place: String,
    problem: String,
    suggestion: String,
}

/// Collects what the rules find.
#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, place: impl Into<String>, problem: impl Into<String>, suggestion: impl Into<String>) {
        self.0.push(Finding { place: place.into(), problem: problem.into(), suggestion: suggestion.into() });
    }

    /// What was found, for the tests of the rules.
    #[cfg(test)]
    fn problems(&self) -> Vec<&str> {
        self.0.iter().map(|finding| finding.problem.as_str()).collect()
    }
}

/// A text file of the repository.
pub(crate) struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

impl File {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = Path::new(&self.path).extension().and_then(|text| text.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

pub(crate) fn tidy(bless: bool) -> Result<()> {
    let files = files()?;
    let mut findings = Findings::default();
    dependencies::check(&metadata()?, &mut findings)?;
    sources::check(&files, &mut findings);
    docs::check(&files, &mut findings);
    ratchet::check(&files, bless, &mut findings)?;
    for Finding { place, problem, suggestion } in &findings.0 {
        println!("{place}: {problem}\n    -> {suggestion}");
    }
    if !findings.0.is_empty() {
        bail!("{} findings", findings.0.len());
    }
    println!("tidy: {} files and their dependencies keep the rules", files.len());
    Ok(())
}

/// All packages that a build may touch, as cargo describes them.
pub(crate) fn metadata() -> Result<Value> {
    let text = output(&mut cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    serde_json::from_str(&text).context("cargo metadata printed something that is not JSON")
}

/// Every text file that is under version control or about to be.
fn files() -> Result<Vec<File>> {
    let list =
        output(&mut command("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths: BTreeSet<&str> = list.split('\0').filter(|path| !path.is_empty()).collect();
    let read = |path: &str| {
        // Not there: removed but not yet committed. Not text: not ours to judge.
        let text = fs::read_to_string(root().join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    };
    Ok(paths.into_iter().filter_map(read).collect())
}
