//! Rules about single lines of source.

use super::lexer::{code_only, without_tests};
use super::{File, Findings};

/// What the core must be handed instead of fetching it.
const NOT_IN_CORE: [(&str, &str); 12] = [
    ("Instant::now", "take the time as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("std::fs", "return an effect and let the driver touch files"),
    ("std::net", "return an effect and let the driver touch sockets"),
    ("std::env", "take the setting as an argument"),
    ("std::thread", "return an effect; the driver decides where work is done"),
    ("std::process", "return an error"),
    ("thread_rng", "take a seed as an argument"),
    ("rand::", "take a seed as an argument"),
    ("getrandom", "take a seed as an argument"),
    ("println!", "return what happened; the driver logs"),
    ("RandomState", "iterate in an order that does not differ from run to run"),
];

const SOURCES: [&str; 8] = ["cjs", "js", "mjs", "rs", "sh", "ts", "tsx", "jsx"];
const TEXTS: [&str; 6] = ["css", "html", "md", "toml", "yaml", "yml"];

pub(crate) fn check(files: &[File], findings: &mut Findings) {
    for file in files {
        if file.has_extension(&SOURCES) || file.has_extension(&TEXTS) {
            leftovers(file, findings);
        }
        if file.has_extension(&["rs"]) {
            let code = code_only(&file.text);
            no_unsafe(file, &code, findings);
            if file.path.starts_with("crates/core/src/") {
                core_is_pure(file, without_tests(&code), findings);
            }
        }
        if is_crate_root(&file.path) {
            explains_itself(file, findings);
        }
        if file.path.starts_with("crates/") && file.path.ends_with("/Cargo.toml") {
            inherits_lints(file, findings);
        }
        if file.path.ends_with("package-lock.json") {
            official_registry(file, findings);
        }
    }
}

fn leftovers(file: &File, findings: &mut Findings) {
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    for (number, line) in file.lines() {
        for note in notes {
            if words(line).any(|word| word == note) {
                findings.add(
                    format!("{}:{number}", file.path),
                    format!("a {note} was left"),
                    "do it now, or file an issue and say in the text what is so today",
                );
            }
        }
    }
}

fn no_unsafe(file: &File, code: &str, findings: &mut Findings) {
    for (index, line) in code.lines().enumerate() {
        if words(line).any(|word| word == "unsafe") {
            findings.add(
                format!("{}:{}", file.path, index + 1),
                "unsafe code",
                "use a safe interface, or a crate that offers one",
            );
        }
    }
}

fn core_is_pure(file: &File, code: &str, findings: &mut Findings) {
    for (index, line) in code.lines().enumerate() {
        for (banned, suggestion) in NOT_IN_CORE {
            if line.contains(banned) {
                let place = format!("{}:{}", file.path, index + 1);
                findings.add(place, format!("the core uses {banned}"), suggestion);
            }
        }
    }
}

fn is_crate_root(path: &str) -> bool {
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    is_root && (path.starts_with("crates/") || path.starts_with("xtask/"))
}

fn explains_itself(file: &File, findings: &mut Findings) {
    if !file.text.trim_start().starts_with("//!") {
        findings.add(
            &file.path,
            "the crate does not say what it is for",
            "begin with a line of //! that says it",
        );
    }
}

fn inherits_lints(file: &File, findings: &mut Findings) {
    let text: String = file.text.split_whitespace().collect();
    if !text.contains("[lints]workspace=true") {
        findings.add(
            &file.path,
            "the crate does not take the workspace's lints, which forbid unsafe code",
            "add [lints] workspace = true",
        );
    }
}

fn official_registry(file: &File, findings: &mut Findings) {
    for (number, line) in file.lines() {
        let line = line.trim();
        // A package of this repository is named by its folder.
        let is_ours = line.starts_with("\"resolved\": \"../");
        if line.starts_with("\"resolved\"") && !is_ours && !line.contains("https://registry.npmjs.org/") {
            findings.add(
                format!("{}:{number}", file.path),
                "the lock file names another registry",
                "run npm install with omit-lockfile-registry-resolved=true, as the package's .npmrc has it",
            );
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        let mut findings = Findings::default();
        check(&[file], &mut findings);
        findings.problems().len()
    }

    #[test]
    fn each_rule_about_sources_finds_its_breach() {
        let note = concat!("// TO", "DO later");
        assert_eq!(problems("crates/x/src/a.rs", note), 1);
        assert_eq!(problems("docs/a.md", concat!("FIX", "ME")), 1);
        assert_eq!(problems("crates/x/src/a.rs", "fn a() { unsafe { b() } }"), 1);
        assert_eq!(problems("crates/core/src/a.rs", "let t = Instant::now();"), 1);
        assert_eq!(problems("crates/core/src/lib.rs", "mod a;"), 1);
        assert_eq!(problems("crates/x/Cargo.toml", "[package]\nname = \"x\""), 1);
        assert_eq!(
            problems("js/a/package-lock.json", "  \"resolved\": \"https://mirror.example/a.tgz\","),
            1
        );
    }

    #[test]
    fn what_is_fine_is_left_alone() {
        assert_eq!(problems("crates/server/src/a.rs", "let t = Instant::now();"), 0);
        assert_eq!(problems("crates/core/src/a.rs", "// no Instant::now here\nlet s = \"unsafe\";"), 0);
        assert_eq!(
            problems("crates/core/src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }"),
            0
        );
        assert_eq!(problems("crates/core/src/lib.rs", "//! The core.\n#![forbid(unsafe_code)]"), 0);
        assert_eq!(problems("crates/x/Cargo.toml", "[lints]\nworkspace = true"), 0);
        assert_eq!(
            problems("js/a/package-lock.json", "\"resolved\": \"https://registry.npmjs.org/a.tgz\","),
            0
        );
    }
}
