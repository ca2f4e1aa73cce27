//! Where values come from.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::flags::SettingFlags;
use super::table::{SETTINGS, Setting};
use super::{Settings, SettingsError};

/// The file that is read if it is there and no other was named.
const DEFAULT_FILE: &str = "highwater.toml";
const FILE_VARIABLE: &str = "HIGHWATER_CONFIG";

/// The settings, and for each where its value came from.
pub(crate) struct Resolved {
    /// The values.
    pub(crate) settings: Settings,
    /// In the order of the table.
    sources: Vec<Source>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Flag,
    Environment,
    File(PathBuf),
    Default,
}

impl Resolved {
    /// Whether somebody set the log filter, rather than leaving it at its default.
    pub(crate) fn log_is_set(&self) -> bool {
        let place = SETTINGS.iter().position(|setting| setting.name == "log");
        place.is_some_and(|place| self.sources[place] != Source::Default)
    }

    /// All settings with their values and where they came from, as aligned text.
    pub(crate) fn describe(&self) -> String {
        let rows: Vec<_> = SETTINGS
            .iter()
            .zip(&self.sources)
            .map(|(setting, source)| (setting.name, (setting.get)(&self.settings), setting.describe(source)))
            .collect();
        let names = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
        let values = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0);
        rows.iter().fold(String::new(), |mut out, (name, value, source)| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name:names$}  {value:values$}  {source}");
            out
        })
    }
}

impl Setting {
    fn describe(&self, source: &Source) -> String {
        match source {
            Source::Flag => format!("--{}", self.name),
            Source::Environment => self.variable(),
            Source::File(path) => path.display().to_string(),
            Source::Default => "default".to_owned(),
        }
    }

    /// How an error names the place of a value.
    fn place(&self, source: &Source) -> String {
        match source {
            Source::File(path) => format!("{}, key `{}`", path.display(), self.name),
            other => self.describe(other),
        }
    }
}

/// Finds the value of every setting. `variable` reads the environment.
pub(crate) fn resolve(
    flags: &SettingFlags,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Resolved, SettingsError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let file = read_file(flags.file.clone().or_else(|| variable(FILE_VARIABLE).map(PathBuf::from)))?;
    let mut settings = Settings::default();
    let mut sources = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let from_flag = || flags.values.get(setting.name).map(|value| (value.clone(), Source::Flag));
        let from_environment = || variable(&setting.variable()).map(|value| (value, Source::Environment));
        let from_file = || file.as_ref().and_then(|file| file.get(setting));
        let source = match from_flag().or_else(from_environment).or_else(from_file) {
            Some((value, source)) => {
                (setting.set)(&mut settings, &value).map_err(|detail| SettingsError::Value {
                    place: setting.place(&source),
                    value,
                    detail,
                })?;
                source
            }
            None => Source::Default,
        };
        sources.push(source);
    }
    Ok(Resolved { settings, sources })
}

/// A file of settings that holds nothing but settings.
struct SettingsFile {
    path: PathBuf,
    table: Table,
}

impl SettingsFile {
    fn get(&self, setting: &Setting) -> Option<(String, Source)> {
        let value = match self.table.get(setting.name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((value, Source::File(self.path.clone())))
    }
}

fn read_file(named: Option<PathBuf>) -> Result<Option<SettingsFile>, SettingsError> {
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).is_file() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(None),
    };
    let text =
        fs::read_to_string(&path).map_err(|error| SettingsError::File { path: path.clone(), error })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
        path: path.clone(),
        detail: error.to_string(),
    })?;
    match table.keys().find(|key| SETTINGS.iter().all(|setting| setting.name != **key)) {
        None => Ok(Some(SettingsFile { path, table })),
        Some(key) => Err(SettingsError::UnknownKey { path, meant: meant(key), key: key.clone() }),
    }
}

/// The setting that a key was probably meant to be: the same letters, or at most two of them different.
fn meant(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace('_', "-");
    let distances = SETTINGS.iter().map(|setting| (distance(&key, setting.name), setting.name));
    distances.min().filter(|(distance, _)| *distance <= 2).map(|(_, name)| name)
}

/// How many letters must be put in, left out or changed to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised() {
        assert_eq!(meant("lisen"), Some("listen"));
        assert_eq!(meant("data_dir"), Some("data-dir"));
        assert_eq!(meant("Ping-Interval"), Some("ping-interval"));
        assert_eq!(meant("colour"), None);
    }

    #[test]
    fn an_empty_variable_counts_as_none() {
        let resolved = resolve(&SettingFlags::default(), |_| Some(String::new())).unwrap();
        assert_eq!(resolved.settings.data_dir, Settings::default().data_dir);
        assert!(!resolved.log_is_set());
    }
}
