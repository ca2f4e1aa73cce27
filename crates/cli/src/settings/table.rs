//! The one list of settings.

use std::fmt::Write;

use highwater_server::{AllowedOrigins, CheckChanges};
use tracing_subscriber::EnvFilter;

use super::Settings;
use super::value::{count, duration, origins, show_duration, show_size, size, switch};
use super::webhooks;

/// One setting.
pub(super) struct Setting {
    /// Its name: the flag without its dashes, and the key in the file.
    pub(super) name: &'static str,
    /// What stands for the value in the help.
    pub(super) value_name: &'static str,
    /// What it is for.
    pub(super) help: &'static str,
    /// Reads a value; says what is wrong with it if it makes no sense.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value as [`set`](Self::set) would read it.
    pub(super) get: fn(&Settings) -> String,
}

impl Setting {
    /// The name of the environment variable.
    pub(super) fn variable(&self) -> String {
        format!("HIGHWATER_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// The value if nobody sets another.
    pub(super) fn default(&self) -> String {
        (self.get)(&Settings::default())
    }

    /// Whether it is on or off, so that the flag alone means on.
    pub(super) fn is_switch(&self) -> bool {
        self.value_name == "BOOL"
    }
}

/// Every setting, in the order in which they are shown.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        value_name: "ADDRESS:PORT",
        help: "Where to listen. Port 0 takes a free one",
        set: |s, text| {
            s.config.listen = text
                .parse()
                .map_err(|_| "expected an address such as 127.0.0.1:3030 or [::1]:3030".to_owned())?;
            Ok(())
        },
        get: |s| s.config.listen.to_string(),
    },
    Setting {
        name: "data-dir",
        value_name: "FOLDER",
        help: "The folder with all documents. It is made if it is missing. One server at a time can use it",
        set: |s, text| {
            s.data_dir = text.into();
            Ok(())
        },
        get: |s| s.data_dir.display().to_string(),
    },
    Setting {
        name: "open-to-network",
        value_name: "BOOL",
        help: "Allow an address that other machines can reach, although anyone who reaches it can read and change everything",
        set: |s, text| {
            s.open_to_network = switch(text)?;
            Ok(())
        },
        get: |s| s.open_to_network.to_string(),
    },
    Setting {
        name: "allowed-origins",
        value_name: "ORIGINS",
        help: "The pages that browsers may connect from: * for all, or origins with commas between them, such as https://app.example.com. \
               Pages of the server itself always may. Clients that are not browsers are not kept out by this",
        set: |s, text| {
            s.config.allowed_origins = origins(text)?;
            Ok(())
        },
        get: |s| match &s.config.allowed_origins {
            AllowedOrigins::Any => "*".to_owned(),
            AllowedOrigins::These(these) => these.join(","),
        },
    },
    Setting {
        name: "pages-dir",
        value_name: "FOLDER",
        help: "A folder of static files that are served at / and below. Without one there is a page that says what this is",
        set: |s, text| {
            s.config.pages = (!text.is_empty()).then(|| text.into());
            Ok(())
        },
        get: |s| s.config.pages.as_ref().map(|pages| pages.display().to_string()).unwrap_or_default(),
    },
    Setting {
        name: "demo",
        value_name: "BOOL",
        help: "Let pages end the server without a word, to show what happens then: it comes back after two seconds. Only on an address that other machines cannot reach",
        set: |s, text| {
            s.demo = switch(text)?;
            Ok(())
        },
        get: |s| s.demo.to_string(),
    },
    Setting {
        name: "log",
        value_name: "FILTER",
        help: "What to log on standard error: error, warn, info, debug, trace, or a filter such as highwater_server=debug. \
               Without it RUST_LOG counts",
        set: |s, text| {
            EnvFilter::try_new(text).map_err(|error| error.to_string())?;
            s.log = text.to_owned();
            Ok(())
        },
        get: |s| s.log.clone(),
    },
    Setting {
        name: "check-changes",
        value_name: "HOW",
        help: "How changes are checked before they are stored. index: against an index of the document's operations, in microseconds. \
               full: also by applying them to a copy of the document that is saved and loaded again, which takes time and memory \
               in proportion to the document for every change",
        set: |s, text| {
            s.config.check_changes = match text {
                "index" => CheckChanges::Index,
                "full" => CheckChanges::Full,
                _ => return Err("either index or full".to_owned()),
            };
            Ok(())
        },
        get: |s| match s.config.check_changes {
            CheckChanges::Index => "index".to_owned(),
            CheckChanges::Full => "full".to_owned(),
        },
    },
    Setting {
        name: "webhooks-file",
        value_name: "FILE",
        help: "A TOML file with those who are told what happens to documents: for each a part that begins with [[webhook]] and has name, url (http or https, without a user), and secret \
               (whsec_ and 24 to 64 bytes in base64). Posts are signed as Standard Webhooks has it",
        set: |s, text| {
            let file = (!text.is_empty()).then(|| std::path::PathBuf::from(text));
            s.config.webhooks.hooks = file.as_deref().map_or(Ok(Vec::new()), webhooks::read)?;
            s.webhooks_file = file;
            Ok(())
        },
        get: |s| s.webhooks_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
    },
    Setting {
        name: "webhook-timeout",
        value_name: "DURATION",
        help: "How long a webhook may take to answer a post",
        set: |s, text| {
            s.config.webhooks.timeout = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.webhooks.timeout),
    },
    Setting {
        name: "webhook-retry-after",
        value_name: "DURATION",
        help: "How long after a first failure a webhook is told again. It doubles with each failure, up to an hour, less a random part of up to a half",
        set: |s, text| {
            s.config.webhooks.retry_after = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.webhooks.retry_after),
    },
    Setting {
        name: "webhook-attempts-max",
        value_name: "NUMBER",
        help: "After how many failures in a row a webhook is not told of a document any more, until the document changes or `highwater webhooks retry` says so",
        set: |s, text| {
            let expected = || "expected a number of at least 1".to_owned();
            s.config.webhooks.attempts_max = u32::try_from(count(text)?).map_err(|_| expected())?;
            Ok(())
        },
        get: |s| s.config.webhooks.attempts_max.to_string(),
    },
    Setting {
        name: "drain-deadline",
        value_name: "DURATION",
        help: "How long a shutdown may take to store and acknowledge what was received",
        set: |s, text| {
            s.config.drain_deadline = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.drain_deadline),
    },
    Setting {
        name: "idle-document-after",
        value_name: "DURATION",
        help: "How long a document that nobody has open stays in memory",
        set: |s, text| {
            s.config.idle_document_after = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.idle_document_after),
    },
    Setting {
        name: "idle-documents-bytes-max",
        value_name: "SIZE",
        help: "How much memory the documents may take up that nobody has open. Beyond that those go that were not used for longest",
        set: |s, text| {
            s.config.idle_documents_bytes_max = size(text)?;
            Ok(())
        },
        get: |s| show_size(s.config.idle_documents_bytes_max),
    },
    Setting {
        name: "open-documents-max",
        value_name: "NUMBER",
        help: "How many documents may be in memory. If all of them are in use, the connection is closed that has the most of them open",
        set: |s, text| {
            s.config.open_documents_max = count(text)?;
            Ok(())
        },
        get: |s| s.config.open_documents_max.to_string(),
    },
    Setting {
        name: "copies-bytes-max",
        value_name: "SIZE",
        help: "How much memory the documents may take up that are kept with all their values, for clients that lack a part of a compacted history",
        set: |s, text| {
            s.config.copies_bytes_max = size(text)?;
            Ok(())
        },
        get: |s| show_size(s.config.copies_bytes_max),
    },
    Setting {
        name: "compact-changes-min",
        value_name: "NUMBER",
        help: "How many changes of a document must have come since its last snapshot before it is compacted. At least one in eight of all, too; or 4 MiB of them, \
               and half of what the snapshot takes",
        set: |s, text| {
            s.config.compact_changes_min = count(text)?;
            Ok(())
        },
        get: |s| s.config.compact_changes_min.to_string(),
    },
    Setting {
        name: "compactions-max",
        value_name: "NUMBER",
        help: "How many documents are compacted at once",
        set: |s, text| {
            s.config.compactions_max = count(text)?;
            Ok(())
        },
        get: |s| s.config.compactions_max.to_string(),
    },
    Setting {
        name: "ping-interval",
        value_name: "DURATION",
        help: "How often clients are pinged. One that lets two pings pass without a sign of life is dropped",
        set: |s, text| {
            s.config.ping_interval = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.ping_interval),
    },
    Setting {
        name: "request-timeout",
        value_name: "DURATION",
        help: "How long a client may take to send the head of its HTTP request. Every connection begins with one",
        set: |s, text| {
            s.config.request_timeout = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.request_timeout),
    },
    Setting {
        name: "answer-timeout",
        value_name: "DURATION",
        help: "How long it may take to read the rest of a request, to answer it, and until the answer is read. What flows meanwhile earns time: 32 KiB a second suffice",
        set: |s, text| {
            s.config.answer_timeout = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.answer_timeout),
    },
    Setting {
        name: "join-timeout",
        value_name: "DURATION",
        help: "How long a connection may take until it has joined",
        set: |s, text| {
            s.config.join_timeout = duration(text)?;
            Ok(())
        },
        get: |s| show_duration(s.config.join_timeout),
    },
    Setting {
        name: "connections-max",
        value_name: "NUMBER",
        help: "How many connections are taken at once",
        set: |s, text| {
            s.config.connections_max = count(text)?;
            Ok(())
        },
        get: |s| s.config.connections_max.to_string(),
    },
    Setting {
        name: "http-sockets-max",
        value_name: "NUMBER",
        help: "How many sockets more than that may be open, for health checks and for clients that are being let in or turned away. \
               If all are in use, the one is closed that has been silent longest",
        set: |s, text| {
            s.config.http_sockets_max = count(text)?;
            Ok(())
        },
        get: |s| s.config.http_sockets_max.to_string(),
    },
    Setting {
        name: "send-queue-bytes-max",
        value_name: "SIZE",
        help: "How much may wait to be sent to one client. One that falls behind further is disconnected, and synchronises anew",
        set: |s, text| {
            s.config.send_queue_bytes_max = size(text)?;
            Ok(())
        },
        get: |s| show_size(s.config.send_queue_bytes_max),
    },
    Setting {
        name: "receive-queue-bytes-max",
        value_name: "SIZE",
        help: "How much of what one client sent may wait to be stored before no more is read from it",
        set: |s, text| {
            s.config.receive_queue_bytes_max = size(text)?;
            Ok(())
        },
        get: |s| show_size(s.config.receive_queue_bytes_max),
    },
];

/// The page about all settings, in Markdown.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         This page is printed by `highwater settings --markdown`.\n\n\
         `highwater serve` needs none of these: every default is safe. A value is taken from the flag; if there is none, from the environment variable; \
         if there is none, from the file; if there is none, the default holds. An empty environment variable counts as none.\n\n\
         The file is the one named by `--config` or `HIGHWATER_CONFIG`, or else `highwater.toml` in the working directory, if there is one. It is TOML, and its keys \
         are the names in the first column. A key that is no setting is an error.\n\n\
         Durations are written with their unit: `500ms`, `5s`, `2m`, `1h`. Sizes too: `4096B`, `512KiB`, `64MiB`, `1GiB`.\n\n\
         | Setting | Flag | Environment variable | Default | What it does |\n\
         |---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let (name, variable, default) = (setting.name, setting.variable(), setting.default());
        let value = if setting.is_switch() { String::new() } else { format!(" {}", setting.value_name) };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{name}` | `--{name}{value}` | `{variable}` | `{default}` | {}. |",
            setting.help
        );
    }
    out.push_str("\n```toml\n# highwater.toml\nlisten = \"127.0.0.1:3030\"\ndata-dir = \"/var/lib/highwater\"\nidle-document-after = \"2m\"\n```\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_can_be_set() {
        for setting in SETTINGS {
            let mut settings = Settings::default();
            (setting.set)(&mut settings, &setting.default()).unwrap();
            assert_eq!((setting.get)(&settings), setting.default(), "{}", setting.name);
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
