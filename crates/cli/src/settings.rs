//! What can be set, and where a value comes from: a flag, the environment, a file, or the default, in this order.
//!
//! [`table`] lists every setting once. Flags, environment variables, keys of the file, `--help`, and the page
//! that `highwater settings --markdown` prints all come from it.

mod flags;
mod sources;
mod table;
mod value;
mod webhooks;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use highwater_server::Config;

pub(crate) use flags::SettingFlags;
pub(crate) use sources::{Resolved, resolve};
pub(crate) use table::markdown;

/// All settings with their values.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How the server behaves.
    pub(crate) config: Config,
    /// Where the documents are.
    pub(crate) data_dir: PathBuf,
    /// The operator knows that whoever reaches the address can read and write everything.
    pub(crate) open_to_network: bool,
    /// Pages may end the server.
    pub(crate) demo: bool,
    /// Where the webhooks are listed, if there are any.
    pub(crate) webhooks_file: Option<PathBuf>,
    /// What is logged, in the syntax of `tracing`'s filters.
    pub(crate) log: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::default(),
            data_dir: PathBuf::from("./highwater-data"),
            open_to_network: false,
            demo: false,
            webhooks_file: None,
            log: "info".to_owned(),
        }
    }
}

impl Settings {
    /// Refuses settings that are not safe together.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let address = self.config.listen;
        if address.ip().is_loopback() {
            return Ok(());
        }
        if self.demo {
            return Err(SettingsError::OpenDemo { address });
        }
        if self.open_to_network { Ok(()) } else { Err(SettingsError::OpenToNetwork { address }) }
    }
}

/// Why the settings cannot be used. The fault of whoever set them.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// A file that was asked for cannot be read.
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// An address that other machines can reach.
    OpenToNetwork {
        /// The address.
        address: SocketAddr,
    },
    /// The same, where pages may end the server.
    OpenDemo {
        /// The address.
        address: SocketAddr,
    },
    /// The file is no TOML.
    Syntax {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A key of the file that is no setting.
    UnknownKey {
        /// The path of the file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The setting that was probably meant.
        meant: Option<&'static str>,
    },
    /// A value that makes no sense.
    Value {
        /// Where it stands: a flag, a variable, or a key of a file.
        place: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => {
                write!(f, "cannot read the settings file {}: {error}", path.display())
            }
            Self::OpenDemo { address } => write!(
                f,
                "refusing to listen on {address} with --demo: any page could end the server.\nListen on 127.0.0.1, or leave --demo out."
            ),
            Self::OpenToNetwork { address } => write!(
                f,
                "refusing to listen on {address}: other machines could reach it, and anyone who reaches it can read and \
                 change every document.\nListen on 127.0.0.1, put a proxy that checks who connects in front of it, \
                 or say --open-to-network if this is what you want."
            ),
            Self::Syntax { path, detail } => write!(f, "{} is not valid TOML: {detail}", path.display()),
            Self::UnknownKey { path, key, meant } => {
                write!(f, "{}: there is no setting `{key}`.", path.display())?;
                match meant {
                    Some(meant) => write!(f, " Did you mean `{meant}`?"),
                    None => write!(f, " `highwater settings` lists them all."),
                }
            }
            Self::Value { place, value, detail } => write!(f, "{place}: `{value}` will not do: {detail}"),
        }
    }
}

impl std::error::Error for SettingsError {}
