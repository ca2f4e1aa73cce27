//! `cargo xtask test`: everything that has to hold before a change goes in, from a fresh machine on.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::pages::{CLIENT, DEMO};
use crate::run::{Steps, cargo, output, release_binary, run, target};
use crate::serve::build_release;
use crate::{api, npm, pages, tidy, tools};

const INTEROP: &str = "js/interop";
const E2E: &str = "js/e2e";
/// To compare with.
const NODE_SERVER: &str = "bench/peers/node";
const INTEROP_OLD: &str = "js/interop-old";

pub(crate) fn test(full: bool) -> Result<()> {
    let mut steps = Steps::default();
    let tools = steps.step("tools", || {
        tools::c_compiler()?;
        tools::rust()?;
        tools::node()
    });
    if !tools {
        return steps.finish();
    }
    steps.step("format", || run(&mut cargo(&["fmt", "--all", "--check"])));
    steps.step("tidy", || tidy::tidy(false));
    if output(&mut cargo(&["deny", "--version"])).is_ok() {
        // Advisories need a database from the network; licences and sources do not.
        steps.step("deny", || run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"])));
    }
    steps.step("clippy", || {
        run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))
    });
    steps.step("documentation builds", || {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
        run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
    });
    steps.step("Rust tests", rust_tests);
    if full {
        steps.step("long Rust tests", long_rust_tests);
    }
    if steps.step("release build", build_release) {
        steps.step("npm packages", || npm::install(INTEROP_OLD).and_then(|()| npm::install(INTEROP)));
        steps.step("real clients", || interop(full));
        steps.step("the API as it is described", || api::test(full));
        test_frontends(&mut steps, full);
    }
    steps.finish()
}

/// Also replays the fuzzers' corpus, which is a test like any other.
fn rust_tests() -> Result<()> {
    run(&mut cargo(&["test", "--workspace", "--locked"]))
}

/// The same tests at full length, optimised: what runs for seconds otherwise takes minutes here.
fn long_rust_tests() -> Result<()> {
    let mut tests = cargo(&["test", "--workspace", "--locked", "--release"]);
    run(tests.envs(full_environment(true)))
}

fn interop(full: bool) -> Result<()> {
    npm::script(INTEROP, "test", &environment(full, None))
}

/// The client library, the demo, and both in a real browser.
fn test_frontends(steps: &mut Steps, full: bool) {
    let is_built = steps.step("client library", || {
        pages::build_client()?;
        npm::script(CLIENT, "test", &[])?;
        npm::script(CLIENT, "size", &[])?;
        npm::script(CLIENT, "test:real", &environment(full, None))
    });
    if !is_built {
        return;
    }
    steps.step("docs/backends.md", || {
        npm::install(INTEROP)?;
        let mut environment = environment(full, None);
        // Built with the Rust tests.
        environment.push(("HIGHWATER_EXAMPLES", target().join("debug").join("examples")));
        npm::script(INTEROP, "test:docs", &environment)
    });
    let Some(chromium) = steps.value("Chromium", tools::chromium) else { return };
    steps.step("demo in a browser", || {
        pages::build()?;
        npm::script(DEMO, "test", &environment(full, Some(&chromium)))
    });
    steps.step("closing tabs in a browser", || {
        npm::install(E2E)?;
        if full {
            npm::install(NODE_SERVER)?;
        }
        npm::script(E2E, "build", &[])?;
        npm::script(E2E, "test", &environment(full, Some(&chromium)))
    });
}

fn environment(full: bool, chromium: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let mut environment = vec![("HIGHWATER_BIN", release_binary())];
    environment.extend(chromium.map(|path| ("CHROMIUM", path.to_owned())));
    environment.extend(full_environment(full).map(|(name, value)| (name, PathBuf::from(value))));
    environment
}

fn full_environment(full: bool) -> Option<(&'static str, &'static str)> {
    full.then_some(("HIGHWATER_FULL", "1"))
}
