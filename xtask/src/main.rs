//! The one front door to this repository, for people and for CI: `cargo xtask serve`, `test`, `tidy`, `bench`, `dist`.

mod api;
mod bench;
mod dist;
mod npm;
mod pages;
mod run;
mod serve;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask serve [ARGS]    build what is missing and start `highwater serve ARGS` with the demo as its pages
cargo xtask test [--full]   check, build and test everything, as CI does; --full adds the long runs
cargo xtask ci              the same as test
cargo xtask api [--full]    only the part of test that sends the built server whatever its OpenAPI description allows, and what it forbids
cargo xtask tidy [--bless]  check the rules of this repository; --bless shortens the ratchet's list
cargo xtask bench [PARTS]   measure this server beside others and rewrite the tables of docs/benchmarks.md; parts are compare,
                            history, documents and patches; --quick is a short run that only prints
cargo xtask dist            build a release archive into target/dist
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", args),
    };
    let flag = |name: &str| rest.iter().any(|arg| arg == name);
    match command {
        "serve" => serve::serve(rest),
        "test" | "ci" => test::test(flag("--full")),
        "api" => api::test(flag("--full")),
        "tidy" => tidy::tidy(flag("--bless")),
        "bench" => bench::bench(rest),
        "dist" => dist::dist(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no command `{other}`\n\n{HELP}"),
    }
}
