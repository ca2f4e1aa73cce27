//! Which crate may depend on what, under which licence, and from where.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Findings;

const CORE: &str = "highwater-core";
const CLIENT: &str = "highwater-client";

/// All that the core may name itself. A new line here is a decision, not a convenience.
/// JSON, and Base64 in it, because documents are read and edited in that form.
const CORE_MAY_USE: [&str; 12] = [
    "automerge",
    "base64",
    "bs58",
    "bytes",
    "flate2",
    "hex",
    "minicbor",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    // Writes and reads times. What time it is the core is told.
    "time",
];

/// Runtimes and sockets: nowhere below the core.
const NEVER_BELOW_CORE: [&str; 9] =
    ["async-io", "async-std", "futures-executor", "mio", "polling", "smol", "socket2", "tokio", "wasi-http"];

/// These crates belong to some of ours alone.
const BELONGS_TO: [(&str, &[&str]); 9] = [
    // The client has its outbox in a file.
    ("rusqlite", &["highwater-storage", "highwater-client"]),
    ("libsqlite3-sys", &["highwater-storage"]),
    ("sqlx", &["highwater-storage"]),
    ("tokio-postgres", &["highwater-storage"]),
    ("axum", &["highwater-server"]),
    ("hyper", &["highwater-server"]),
    ("clap", &["highwater"]),
    ("anyhow", &["highwater"]),
    ("tracing-subscriber", &["highwater"]),
];

/// A client must not bring the server along.
const NEVER_BELOW_CLIENT: [&str; 3] = ["highwater-server", "highwater-storage", "axum"];

const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check(metadata: &Value, findings: &mut Findings) -> Result<()> {
    let graph = Graph::new(metadata)?;
    for package in graph.packages.values() {
        match package.source {
            None => check_ours(package, findings),
            Some(source) => check_foreign(package, source, findings),
        }
    }
    check_below_core(&graph, findings);
    check_below_client(&graph, findings);
    Ok(())
}

struct Package<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    /// None for the crates of this repository.
    source: Option<&'a str>,
    /// Dependencies as written in Cargo.toml, without those for tests.
    direct: BTreeSet<&'a str>,
    has_library: bool,
}

struct Graph<'a> {
    packages: BTreeMap<&'a str, Package<'a>>,
    /// From a package id to the ids that it needs at run time.
    edges: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Result<Self> {
        let packages = list(&metadata["packages"])?;
        let nodes = list(&metadata["resolve"]["nodes"])?;
        Ok(Self {
            packages: packages
                .iter()
                .map(|value| Ok((id(value)?, package(value)?)))
                .collect::<Result<_>>()?,
            edges: nodes
                .iter()
                .map(|value| Ok((id(value)?, run_time_edges(value)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// Every package that ends up in a program which uses this one, with the name of one that needs it.
    fn below(&self, name: &str) -> BTreeMap<&'a str, &'a str> {
        let mut found = BTreeMap::new();
        let mut open: Vec<&str> =
            self.packages.iter().filter(|(_, package)| package.name == name).map(|(id, _)| *id).collect();
        while let Some(id) = open.pop() {
            for needed in self.edges.get(id).into_iter().flatten() {
                if let (Some(package), Some(by)) = (self.packages.get(needed), self.packages.get(id))
                    && !found.contains_key(package.name)
                {
                    found.insert(package.name, by.name);
                    open.push(needed);
                }
            }
        }
        found
    }
}

fn check_ours(package: &Package<'_>, findings: &mut Findings) {
    let place = format!("crate {}", package.name);
    if package.name == CORE {
        for extra in package.direct.iter().filter(|name| !CORE_MAY_USE.contains(name)) {
            findings.add(
                &place,
                format!("the core depends on {extra}"),
                "do it in highwater-server and hand the core the result, or add it to CORE_MAY_USE with a reason",
            );
        }
    }
    if package.name == "xtask" {
        return;
    }
    for (dependency, owners) in BELONGS_TO {
        if package.direct.contains(dependency) && !owners.contains(&package.name) {
            let owner = owners[0];
            findings.add(
                &place,
                format!("depends on {dependency}, which belongs to {} alone", owners.join(" and ")),
                format!("put the code that needs it into {owner} and give it an interface without {dependency} in it"),
            );
        }
    }
    if !package.has_library && package.name.starts_with("highwater-") {
        findings.add(&place, "is no library", "only the highwater command is a program");
    }
}

fn check_foreign(package: &Package<'_>, source: &str, findings: &mut Findings) {
    let place = format!("{} {}", package.name, package.version);
    if source != REGISTRY {
        findings.add(&place, format!("comes from {source}"), "use a release from crates.io");
    }
    if !licence_is_fine(package.licence) {
        findings.add(
            &place,
            format!("has the licence `{}`", package.licence),
            "find a replacement, or add the licence to LICENCES here and in deny.toml if it is compatible with MIT and Apache-2.0",
        );
    }
}

fn check_below_core(graph: &Graph<'_>, findings: &mut Findings) {
    for (name, by) in graph.below(CORE) {
        if NEVER_BELOW_CORE.contains(&name) {
            findings.add(
                format!("crate {CORE}"),
                format!("{name} is in its dependency tree, by way of {by}"),
                format!(
                    "turn off the feature of {by} that brings it: the core knows no runtime and no socket"
                ),
            );
        }
    }
}

fn check_below_client(graph: &Graph<'_>, findings: &mut Findings) {
    for (name, by) in graph.below(CLIENT) {
        if NEVER_BELOW_CLIENT.contains(&name) {
            findings.add(
                format!("crate {CLIENT}"),
                format!("{name} is in its dependency tree, by way of {by}"),
                "put what both need into highwater-core",
            );
        }
    }
}

/// Reads the SPDX expressions that crates use: OR (or the older slash), AND, and brackets.
fn licence_is_fine(expression: &str) -> bool {
    let text =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "_WITH_");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

/// Nothing if the expression makes no sense; so too below.
fn either(words: &mut &[&str]) -> Option<bool> {
    let mut fine = both(words)?;
    while take(words, "OR") {
        fine |= both(words)?;
    }
    Some(fine)
}

fn both(words: &mut &[&str]) -> Option<bool> {
    let mut fine = single(words)?;
    while take(words, "AND") {
        fine &= single(words)?;
    }
    Some(fine)
}

fn single(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let fine = either(words);
        return fine.filter(|_| take(words, ")"));
    }
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(LICENCES.contains(&first.replace("_WITH_", " WITH ").as_str()))
}

fn take(words: &mut &[&str], expected: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == expected => {
            *words = rest;
            true
        }
        _ => false,
    }
}

fn package(value: &Value) -> Result<Package<'_>> {
    let is_run_time = |dependency: &&Value| dependency["kind"] != "dev";
    let names = list(&value["dependencies"])?
        .iter()
        .filter(is_run_time)
        .filter_map(|dependency| dependency["name"].as_str());
    let kinds = list(&value["targets"])?.iter().filter_map(|target| target["kind"][0].as_str());
    Ok(Package {
        name: value["name"].as_str().context("a package has a name")?,
        version: value["version"].as_str().context("a package has a version")?,
        licence: value["license"].as_str().unwrap_or("none given"),
        source: value["source"].as_str(),
        direct: names.collect(),
        has_library: kinds.into_iter().any(|kind| kind == "lib"),
    })
}

fn run_time_edges(node: &Value) -> Result<Vec<&str>> {
    let is_run_time = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array();
        kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    Ok(list(&node["deps"])?
        .iter()
        .filter(is_run_time)
        .filter_map(|dependency| dependency["pkg"].as_str())
        .collect())
}

fn id(value: &Value) -> Result<&str> {
    value["id"].as_str().context("a package has an id")
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo metadata lacks an expected list")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn licence_expressions_are_read_as_meant() {
        for fine in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert!(licence_is_fine(fine), "{fine}");
        }
        for bad in ["", "none given", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT OR", "MIT Apache-2.0"] {
            assert!(!licence_is_fine(bad), "{bad}");
        }
    }

    /// A workspace of the given crates, each with a licence, a source and what it depends on.
    fn workspace(crates: &[(&str, &str, Option<&str>, &[&str])]) -> Value {
        let packages = crates.iter().map(|(name, licence, source, needs)| {
            let dependencies: Vec<_> = needs.iter().map(|need| json!({"name": need, "kind": null})).collect();
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence, "source": source,
                "dependencies": dependencies, "targets": [{"kind": ["lib"]}],
            })
        });
        let nodes = crates.iter().map(|(name, _, _, needs)| {
            let deps: Vec<_> =
                needs.iter().map(|need| json!({"pkg": need, "dep_kinds": [{"kind": null}]})).collect();
            json!({"id": name, "deps": deps})
        });
        json!({"packages": packages.collect::<Vec<_>>(), "resolve": {"nodes": nodes.collect::<Vec<_>>()}})
    }

    fn problems(crates: &[(&str, &str, Option<&str>, &[&str])]) -> Vec<String> {
        let mut findings = Findings::default();
        check(&workspace(crates), &mut findings).expect("the metadata is complete");
        findings.problems().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_runtime_below_the_core_is_found_however_deep() {
        let found = problems(&[
            (CORE, "MIT", None, &["sha2"]),
            ("sha2", "MIT", Some(REGISTRY), &["middle"]),
            ("middle", "MIT", Some(REGISTRY), &["tokio"]),
            ("tokio", "MIT", Some(REGISTRY), &[]),
        ]);
        assert_eq!(found, ["tokio is in its dependency tree, by way of middle"]);
    }

    #[test]
    fn a_server_below_the_client_is_found_and_its_outbox_may_be_a_database() {
        let found = problems(&[
            (CLIENT, "MIT", None, &["highwater-storage", "rusqlite"]),
            ("highwater-storage", "MIT", None, &[]),
            ("rusqlite", "MIT", Some(REGISTRY), &[]),
        ]);
        assert_eq!(found, ["highwater-storage is in its dependency tree, by way of highwater-client"]);
    }

    #[test]
    fn each_rule_about_dependencies_finds_its_breach() {
        let found = problems(&[
            (CORE, "MIT", None, &["rand"]),
            ("highwater-server", "MIT", None, &["rusqlite", "axum"]),
            ("rand", "GPL-3.0", Some(REGISTRY), &[]),
            ("rusqlite", "MIT", Some("git+ssh://elsewhere"), &[]),
            ("axum", "MIT", Some(REGISTRY), &[]),
        ]);
        assert_eq!(found.len(), 4, "{found:?}");
        for expected in
            ["depends on rand", "belongs to highwater-storage", "licence `GPL-3.0`", "comes from git"]
        {
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} in {found:?}");
        }
    }
}
