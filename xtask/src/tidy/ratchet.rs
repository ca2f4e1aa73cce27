//! Sizes: files and functions beyond a limit are listed in a file that only ever gets shorter.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::lexer::{code_only, functions, without_tests};
use super::{File, Findings};
use crate::run::root;

const LIST: &str = "xtask/ratchet.txt";
const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;

const HEADER: &str = "\
# Files over 1000 lines and functions over 70, with the length they had. They may shrink, not grow.
# `cargo xtask tidy --bless` lowers the numbers and drops what is short enough; it never adds a line.
";

pub(crate) fn check(files: &[File], bless: bool, findings: &mut Findings) -> Result<()> {
    let list = root().join(LIST);
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {LIST}"))?;
    let mut listed = parse(&text)?;
    let found = too_long(files);
    if bless {
        listed = shortened(&listed, &found);
        fs::write(&list, print(&listed)).with_context(|| format!("cannot write {LIST}"))?;
    }
    compare(&listed, &found, findings);
    Ok(())
}

type Lengths = BTreeMap<String, usize>;

/// Everything beyond its limit, by `path` or `path::function`.
fn too_long(files: &[File]) -> Lengths {
    let mut found = Lengths::new();
    for file in files.iter().filter(|file| file.has_extension(&["rs", "mjs", "ts", "tsx", "js"])) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.insert(file.path.clone(), lines);
        }
        if file.has_extension(&["rs"]) && !file.path.contains("/tests/") {
            let code = code_only(&file.text);
            for function in functions(without_tests(&code)) {
                if function.length > FUNCTION_LINES_MAX {
                    let length = found.entry(format!("{}::{}", file.path, function.name)).or_default();
                    *length = function.length.max(*length);
                }
            }
        }
    }
    found
}

fn compare(listed: &Lengths, found: &Lengths, findings: &mut Findings) {
    for (name, length) in found {
        match listed.get(name) {
            None => findings.add(name, format!("{length} lines"), limit_advice(name)),
            Some(allowed) if length > allowed => findings.add(
                name,
                format!("grew from {allowed} lines to {length}"),
                "it was too long already: take something out of it",
            ),
            Some(allowed) if length < allowed => {
                findings.add(
                    name,
                    format!("shrank from {allowed} lines to {length}"),
                    "run: cargo xtask tidy --bless",
                );
            }
            Some(_) => {}
        }
    }
    for name in listed.keys().filter(|name| !found.contains_key(*name)) {
        findings.add(
            name,
            format!("is listed in {LIST} and no longer too long"),
            "run: cargo xtask tidy --bless",
        );
    }
}

fn limit_advice(name: &str) -> String {
    match name.contains("::") {
        true => format!("a function has at most {FUNCTION_LINES_MAX}: name a part of it and take it out"),
        false => format!("a file has at most {FILE_LINES_MAX}: split it by what its parts are about"),
    }
}

fn shortened(listed: &Lengths, found: &Lengths) -> Lengths {
    let lower = |(name, allowed): (&String, &usize)| Some((name.clone(), *found.get(name)?.min(allowed)));
    listed.iter().filter_map(lower).collect()
}

fn parse(text: &str) -> Result<Lengths> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let (length, name) =
                line.split_once(' ').with_context(|| format!("{LIST}: `{line}` has no length"))?;
            Ok((name.to_owned(), length.parse().with_context(|| format!("{LIST}: `{line}`"))?))
        })
        .collect()
}

fn print(lengths: &Lengths) -> String {
    let mut text = HEADER.to_owned();
    for (name, length) in lengths {
        let _ = writeln!(text, "{length} {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(items: &[(&str, usize)]) -> Lengths {
        items.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect()
    }

    fn problems(listed: &[(&str, usize)], found: &[(&str, usize)]) -> usize {
        let mut findings = Findings::default();
        compare(&lengths(listed), &lengths(found), &mut findings);
        findings.problems().len()
    }

    #[test]
    fn the_ratchet_lets_nothing_new_in_and_nothing_grow() {
        assert_eq!(problems(&[], &[("a.rs::f", 71)]), 1);
        assert_eq!(problems(&[("a.rs::f", 80)], &[("a.rs::f", 81)]), 1);
        assert_eq!(problems(&[("a.rs::f", 80)], &[("a.rs::f", 80)]), 0);
        assert_eq!(problems(&[("a.rs::f", 80)], &[("a.rs::f", 79)]), 1);
        assert_eq!(problems(&[("a.rs::f", 80)], &[]), 1);
    }

    #[test]
    fn blessing_lowers_and_removes_but_never_adds() {
        let listed = lengths(&[("a", 80), ("b", 90), ("c", 75)]);
        let found = lengths(&[("a", 85), ("b", 88), ("d", 99)]);
        assert_eq!(shortened(&listed, &found), lengths(&[("a", 80), ("b", 88)]));
    }

    #[test]
    fn the_list_is_read_as_it_is_written() {
        let listed = lengths(&[("crates/a.rs", 1200), ("crates/a.rs::f", 80)]);
        assert_eq!(parse(&print(&listed)).expect("it was just written"), listed);
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let body = "    x();\n".repeat(70);
        let text = format!("fn long() {{\n{body}}}\nfn short() {{}}\n");
        let file = |path: &str, text: String| File { path: path.to_owned(), text };
        let found = too_long(&[file("a.rs", text), file("b.mjs", "\n".repeat(1001))]);
        assert_eq!(found, lengths(&[("a.rs::long", 72), ("b.mjs", 1001)]));
    }
}
