//! The settings as flags of the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::table::{SETTINGS, Setting};

/// The settings that were given as flags, as texts. They are read when it is known which of them count.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingFlags {
    /// `--config`
    pub(crate) file: Option<PathBuf>,
    /// By the setting's name.
    pub(super) values: BTreeMap<&'static str, String>,
}

impl SettingFlags {
    /// As if only these had been given: for commands that need one setting and none of the others.
    pub(crate) fn data_dir_only(file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Self {
        let data_dir = data_dir.map(|dir| ("data-dir", dir.display().to_string()));
        Self { file, values: data_dir.into_iter().collect() }
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = format!("{} [default: {}] [env: {}]", setting.help, setting.default(), setting.variable());
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .help(help)
        .action(ArgAction::Set)
        .allow_hyphen_values(true);
    if setting.is_switch() {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").allow_hyphen_values(false)
    } else {
        arg
    }
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(
            "A TOML file with settings, named as the flags are [default: ./highwater.toml, if there is one] [env: HIGHWATER_CONFIG]",
        )
        .value_parser(clap::value_parser!(PathBuf))
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(flag)).arg(config_flag())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for setting in SETTINGS {
            if let Some(value) = matches.get_one::<String>(setting.name) {
                self.values.insert(setting.name, value.clone());
            }
        }
        Ok(())
    }
}
