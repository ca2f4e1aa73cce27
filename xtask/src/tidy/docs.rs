//! Rules about the documents: links lead somewhere, and no path is that of one machine.

use std::collections::BTreeSet;

use super::{File, Findings};
use crate::run::root;

/// Folders that exist on the machine of whoever wrote the line, and nowhere else.
const MACHINE_PATHS: [&str; 5] = ["/work/", "/home/", "/Users/", "/root/", "/tmp/"];

pub(crate) fn check(files: &[File], findings: &mut Findings) {
    for file in files.iter().filter(|file| file.has_extension(&["md"])) {
        no_machine_paths(file, findings);
        for (line, target) in links(&file.text) {
            if let Some(problem) = broken(file, &target, files) {
                findings.add(format!("{}:{line}", file.path), problem, "correct the link, or remove it");
            }
        }
    }
    for file in files.iter().filter(|file| file.has_extension(&["json", "toml", "yaml", "yml"])) {
        no_machine_paths(file, findings);
    }
}

fn no_machine_paths(file: &File, findings: &mut Findings) {
    for (number, line) in file.lines() {
        for path in MACHINE_PATHS {
            let starts_there =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~".contains(c));
            if line.match_indices(path).any(|(at, _)| starts_there(at)) {
                findings.add(
                    format!("{}:{number}", file.path),
                    format!("an absolute path below {path}"),
                    "write it relative to the repository, or with a name that the reader fills in",
                );
            }
        }
    }
}

/// The targets of all links in the running text, each with its line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    found
}

/// The lines outside of code, with code inside of lines taken out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let outside = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        (!fenced).then_some((index + 1, outside))
    })
}

fn broken(file: &File, target: &str, files: &[File]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let place = if path.is_empty() { file.path.clone() } else { resolve(&file.path, path) };
    let is_known = files.iter().any(|other| other.path == place);
    if !is_known && !root().join(&place).exists() {
        return Some(format!("a link to {target}, which is not there"));
    }
    let linked = files.iter().find(|other| other.path == place && other.has_extension(&["md"]))?;
    let missing = !anchor.is_empty() && !anchors(&linked.text).contains(anchor);
    missing.then(|| format!("a link to {target}, but {place} has no such heading"))
}

fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The names that headings get when the text is shown.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    for heading in headings {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        let base = kept.replace(' ', "-");
        let again = (1..).map(|n| format!("{base}-{n}"));
        let name = std::iter::once(base.clone()).chain(again).find(|name| !found.contains(name));
        found.extend(name);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let file = File { path: "docs/a.md".to_owned(), text: text.to_owned() };
        let mut findings = Findings::default();
        check(&[file], &mut findings);
        findings.problems().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn broken_links_and_machine_paths_are_found() {
        assert_eq!(problems("see [it](../nowhere.md)").len(), 1);
        assert_eq!(problems("# One\nsee [it](#two)").len(), 1);
        assert_eq!(problems(concat!("cd /wo", "rk/main")).len(), 1);
    }

    #[test]
    fn what_is_fine_is_left_alone() {
        assert_eq!(
            problems("see [it](../Cargo.toml) and [that](https://example.org/x)"),
            Vec::<String>::new()
        );
        assert_eq!(problems("# One: two!\n# One: two!\n[a](#one-two) [b](#one-two-1)"), Vec::<String>::new());
        assert_eq!(
            problems("```\n[x](nowhere)\n```\nand `[y](nowhere)`, https://example.org/home/x"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn links_are_resolved_from_the_file_that_has_them() {
        assert_eq!(resolve("docs/a/b.md", "../c.md"), "docs/c.md");
        assert_eq!(resolve("README.md", "./docs/c.md"), "docs/c.md");
    }
}
