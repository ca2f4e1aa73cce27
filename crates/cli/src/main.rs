//! `highwater`: the sync server and its tools in one binary.

mod bench;
mod doctor;

mod metrics;
mod repair;
mod serve;
mod settings;
mod system;

use std::process::ExitCode;

use clap::Parser;

use settings::{Resolved, SettingFlags, SettingsError};

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
        Command::Doctor(args) => diagnose(&args),
        Command::Repair(args) => repair::run(&args).map(|()| ExitCode::SUCCESS),
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

fn diagnose(args: &doctor::DoctorArgs) -> anyhow::Result<ExitCode> {
    let flags = SettingFlags::data_dir_only(args.config.clone(), args.data_dir.clone());
    let data_dir = resolve(&flags)?.settings.data_dir;
    match doctor::run(args, &data_dir) {
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
