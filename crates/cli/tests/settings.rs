//! Where settings come from, and which are refused.

mod common;

use std::fs;

use common::{highwater, run, stderr, stdout};
use tempfile::tempdir;

const NAMES: [&str; 27] = [
    "listen",
    "data-dir",
    "open-to-network",
    "allowed-origins",
    "pages-dir",
    "demo",
    "log",
    "check-changes",
    "webhooks-file",
    "webhook-timeout",
    "webhook-retry-after",
    "webhook-attempts-max",
    "drain-deadline",
    "idle-document-after",
    "idle-documents-bytes-max",
    "open-documents-max",
    "copies-bytes-max",
    "compact-changes-min",
    "compactions-max",
    "ping-interval",
    "request-timeout",
    "answer-timeout",
    "join-timeout",
    "connections-max",
    "http-sockets-max",
    "send-queue-bytes-max",
    "receive-queue-bytes-max",
];

/// The line about one setting in the output of `highwater settings`.
fn line(output: &str, name: &str) -> Vec<String> {
    let line = output.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let folder = tempdir().unwrap();
    let file = "listen = \"127.0.0.1:1001\"\ndata-dir = \"from-file\"\nping-interval = \"1s\"\nconnections-max = 7\n";
    fs::write(folder.path().join("highwater.toml"), file).unwrap();
    let output = highwater(folder.path())
        .args(["settings", "--listen", "127.0.0.1:1003"])
        .env("HIGHWATER_LISTEN", "127.0.0.1:1002")
        .env("HIGHWATER_DATA_DIR", "from-environment")
        .env("HIGHWATER_PING_INTERVAL", "")
        .output()
        .unwrap();
    let output = stdout(&output);
    assert_eq!(line(&output, "listen"), ["listen", "127.0.0.1:1003", "--listen"]);
    assert_eq!(line(&output, "data-dir"), ["data-dir", "from-environment", "HIGHWATER_DATA_DIR"]);
    assert_eq!(line(&output, "ping-interval"), ["ping-interval", "1s", "highwater.toml"]);
    assert_eq!(line(&output, "connections-max"), ["connections-max", "7", "highwater.toml"]);
    assert_eq!(line(&output, "join-timeout"), ["join-timeout", "10s", "default"]);
}

#[test]
fn the_named_file_is_read_instead_of_the_usual_one() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("highwater.toml"), "nonsense = 1").unwrap();
    fs::write(folder.path().join("other.toml"), "ping-interval = \"2s\"").unwrap();
    let output = stdout(&run(folder.path(), &["settings", "--config", "other.toml"]));
    assert_eq!(line(&output, "ping-interval"), ["ping-interval", "2s", "other.toml"]);
    let output = highwater(folder.path()).arg("settings").env("HIGHWATER_CONFIG", "other.toml").output();
    assert_eq!(line(&stdout(&output.unwrap()), "ping-interval"), ["ping-interval", "2s", "other.toml"]);
    let output = run(folder.path(), &["settings", "--config", "missing.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("missing.toml"));
}

#[test]
fn an_unknown_key_is_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("highwater.toml"), "listne = \"127.0.0.1:1\"").unwrap();
    let output = run(folder.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("`listne`") && text.contains("`listen`") && text.contains("highwater.toml"),
        "{text}"
    );
}

#[test]
fn a_value_without_meaning_is_refused_with_its_place() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("highwater.toml"), "ping-interval = 5").unwrap();
    let from_file = stderr(&run(folder.path(), &["serve"]));
    assert!(from_file.contains("key `ping-interval`") && from_file.contains("5s"), "{from_file}");
    let from_flag = stderr(&run(folder.path(), &["serve", "--listen", "localhost"]));
    assert!(from_flag.contains("--listen") && from_flag.contains("127.0.0.1:3030"), "{from_flag}");
    let output = highwater(folder.path()).arg("serve").env("HIGHWATER_LOG", "loud=maybe").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("HIGHWATER_LOG"));
}

#[test]
fn an_address_that_others_can_reach_needs_a_word_from_the_operator() {
    let folder = tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:3030"] {
        let output = run(folder.path(), &["serve", "--listen", address]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(stderr(&output).contains("--open-to-network"), "{address}");
        assert!(!folder.path().join("highwater-data").exists(), "{address}");
    }
    // Not an address of this machine, so that the test does not really open anything: it gets past the refusal and fails later.
    let arguments = ["serve", "--listen", "192.0.2.1:3030", "--open-to-network"];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot listen on 192.0.2.1:3030"));
}

#[test]
fn help_and_the_page_tell_of_every_setting() {
    let folder = tempdir().unwrap();
    let help = stdout(&run(folder.path(), &["serve", "--help"]));
    let page = stdout(&run(folder.path(), &["settings", "--markdown"]));
    let shown = stdout(&run(folder.path(), &["settings"]));
    assert_eq!(shown.lines().count(), NAMES.len(), "a setting is missing in this test");
    for name in NAMES {
        let variable = format!("HIGHWATER_{}", name.replace('-', "_").to_uppercase());
        assert!(help.contains(&format!("--{name}")) && help.contains(&variable), "{name}");
        assert!(page.contains(&format!("`{name}`")) && page.contains(&variable), "{name}");
        line(&shown, name);
    }
}

#[test]
fn the_page_in_docs_is_the_one_that_is_printed() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
    let Ok(written) = fs::read_to_string(page) else { return };
    let printed = stdout(&run(tempdir().unwrap().path(), &["settings", "--markdown"]));
    assert_eq!(written, printed, "write it anew: highwater settings --markdown > docs/settings.md");
}
