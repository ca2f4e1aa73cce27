//! `highwater`: the sync server and its tools in one binary.

mod api;
mod backup;
mod bench;
mod doc;
mod doctor;
mod durable_batch;
mod durable_file;
mod export;
mod import;
mod metrics;
mod progress;
mod repair;
mod serve;
mod settings;
mod stored;
mod system;
mod webhooks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use settings::{Resolved, SettingFlags, SettingsError};

/// Gives memory back to the system when documents leave it, which the allocators of many systems hardly do. docs/benchmarks.md has the numbers.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was asked for makes no sense, or cannot be looked at.
const EXIT_USAGE: u8 = 2;

/// Highwater, an Automerge sync server: what it acknowledges is on disk.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the server
    #[command(next_line_help = true)]
    Serve(SettingFlags),
    /// Check a data folder; nothing is changed
    Doctor(doctor::DoctorArgs),
    /// Write a copy of a data folder without the changes that keep documents from being served
    Repair(repair::RepairArgs),
    // These bring their own descriptions, with a first line for the list.
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Webhooks(webhooks::WebhooksArgs),
    // This brings its own, too.
    Doc(doc::DocArgs),
    /// Measure a server that speaks the automerge-repo protocol
    Bench(bench::BenchArgs),
    /// Show the settings, and where their values come from
    #[command(next_line_help = true)]
    Settings(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Print the page about all settings, in Markdown
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| {
        eprintln!("highwater: {error:#}");
        ExitCode::from(if error.is::<SettingsError>() { EXIT_USAGE } else { 1 })
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(flags) => {
            let resolved = resolve(&flags)?;
            resolved.settings.check()?;
            serve::run(&resolved).map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor(args) => {
            on_folder(&args.config, &args.data_dir, |data_dir| doctor::run(&args, data_dir))
        }
        Command::Import(args) => {
            on_folder(&args.config, &args.data_dir, |data_dir| import::run(&args, data_dir))
        }
        Command::Export(args) => {
            on_folder(&args.config, &args.data_dir, |data_dir| export::run(&args, data_dir))
        }
        Command::Backup(args) => {
            on_folder(&args.config, &args.data_dir, |data_dir| backup::run(&args, data_dir))
        }
        Command::Restore(args) => {
            on_folder(&args.config, &args.data_dir, |data_dir| backup::restore(&args, data_dir))
        }
        Command::Repair(args) => repair::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Webhooks(args) => Ok(webhooks::run(args)),
        Command::Doc(args) => Ok(doc::run(args)),
        Command::Bench(args) => bench::run(&args).map(passed),
        Command::Settings(args) => {
            show(&args)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn resolve(flags: &SettingFlags) -> Result<Resolved, SettingsError> {
    settings::resolve(flags, |name| std::env::var(name).ok())
}

/// For commands that work on a data folder and may find that not all of it is well. An error means that nothing could be done.
fn on_folder(
    config: &Option<PathBuf>,
    data_dir: &Option<PathBuf>,
    work: impl FnOnce(&Path) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let flags = SettingFlags::data_dir_only(config.clone(), data_dir.clone());
    let data_dir = resolve(&flags)?.settings.data_dir;
    match work(&data_dir) {
        Ok(well) => Ok(passed(well)),
        Err(error) => {
            eprintln!("highwater: {error:#}");
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}

fn show(args: &ShowArgs) -> Result<(), SettingsError> {
    if args.markdown {
        print!("{}", settings::markdown());
    } else {
        print!("{}", resolve(&args.flags)?.describe());
    }
    Ok(())
}

fn passed(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
