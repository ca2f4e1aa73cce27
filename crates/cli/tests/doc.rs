//! `highwater doc`, on a server that runs and on a folder.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};

use common::{Server, highwater, stderr, stdout};
use serde_json::{Value, json};

const ID: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

/// Where the documents are.
struct Place {
    folder: tempfile::TempDir,
    /// `--server` or `--data-dir`.
    target: [String; 2],
    _server: Option<Server>,
}

impl Place {
    fn server() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        // As it is printed, for clients that sync.
        Self { target: ["--server".to_owned(), server.url()], folder, _server: Some(server) }
    }

    fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { target: ["--data-dir".to_owned(), "data".to_owned()], folder, _server: None }
    }

    /// One of each.
    fn each() -> [Self; 2] {
        [Self::server(), Self::folder()]
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run_with(&self, arguments: &[&str], input: &[u8], environment: &[(&str, &str)]) -> Output {
        let mut command = highwater(self.path());
        command.arg("doc").args(arguments).args(&self.target).envs(environment.iter().copied());
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"", &[])
    }

    /// What it prints if all is well.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[&["--json"], arguments].concat());
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).unwrap()
    }

    /// What it says if something is wrong.
    #[track_caller]
    fn fails(&self, arguments: &[&str], exit: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stderr(&output)
    }

    #[track_caller]
    fn value(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["get", id])).unwrap()
    }
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn documents_are_made_read_changed_and_deleted() {
    for place in Place::each() {
        let made =
            place.run_with(&["put", "new", "--json", "-m", "first & best"], br#"{ "text": "Hello" }"#, &[]);
        let made: Value = serde_json::from_str(&stdout(&made)).unwrap();
        assert_eq!(made["created"], true);
        let id = made["id"].as_str().unwrap();
        let first = made["hash"].as_str().unwrap();

        fs::write(place.path().join("second.json"), r#"{ "text": "Hello, world", "n": { "$counter": 1 } }"#)
            .unwrap();
        let second = place.json(&["put", id, "second.json"]);
        assert_eq!((&second["id"], &second["created"]), (&made["id"], &json!(false)));
        let unchanged = place.ok(&["put", id, "second.json"]);
        assert_eq!(unchanged, format!("nothing to change in {id}\n"));
        let printed = place.ok(&["put", ID, "second.json"]);
        assert_eq!(printed, format!("made {ID}\n"));

        let patch = r#"[{"op":"increment","path":"/n","by":2}]"#;
        let patched = place.json(&["patch", id, patch, "--message", "more", "--idempotency-key", "k"]);
        assert_eq!(place.json(&["patch", id, patch, "--message", "more", "--idempotency-key", "k"]), patched);
        fs::write(place.path().join("merge.json"), r#" { "more": [1] }"#).unwrap();
        place.ok(&["patch", &format!("automerge:{id}"), "--file", "merge.json"]);
        let deleted = place.run_with(&["patch", id, "-"], br#"{ "more": null, "less": 0 }"#, &[]);
        assert!(stdout(&deleted).starts_with(&format!("changed {id}: ")));

        let whole = json!({ "text": "Hello, world", "n": { "$counter": 3 }, "less": 0 });
        assert_eq!(place.value(id), whole);
        let read = place.json(&["get", id]);
        assert_eq!((&read["id"], &read["value"]), (&made["id"], &whole));
        let heads = place.json(&["get", id, "--heads"]);
        assert_eq!((&heads["heads"], &heads["changes"]), (&read["heads"], &json!(5)));
        assert_eq!(place.ok(&["get", id, "--heads"]).trim(), read["heads"][0]);
        let then: Value = serde_json::from_str(&place.ok(&["get", id, "--at", first])).unwrap();
        assert_eq!(then, json!({ "text": "Hello" }));
        let conflicts = place.json(&["get", id, "--conflicts"]);
        assert_eq!((&conflicts["value"], &conflicts["conflicts"]), (&whole, &json!({})));

        let history = lines(&place.ok(&["history", id, "--json"]));
        let messages: Vec<&Value> = history.iter().map(|change| &change["message"]).collect();
        assert_eq!(
            messages,
            [&json!(null), &json!(null), &json!("more"), &json!(null), &json!("first & best")]
        );
        assert_eq!(lines(&place.ok(&["history", id, "--json", "--limit", "2"])), history[..2]);
        assert!(place.ok(&["history", id]).contains("first & best"));

        let nowhere = "0".repeat(64);
        assert_eq!(place.ok(&["have", id, first]), format!("durable  {first}\n"));
        let output = place.run(&["have", id, first, &nowhere, "--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(lines(&stdout(&output)), [json!({ "durable": [first], "missing": [nowhere] })]);

        let listed = lines(&place.ok(&["list", "--json"]));
        assert_eq!(listed.len(), 2);
        let since = listed.iter().map(|entry| entry["changed"].as_u64().unwrap()).min().unwrap().to_string();
        let changed = lines(&place.ok(&["list", "--json", "--changed-since", &since]));
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0]["id"], id);
        assert_eq!(lines(&place.ok(&["list", "--json", "--prefix", &ID[..6]])).len(), 1);
        assert_eq!(place.ok(&["list", "--limit", "1"]).lines().count(), 1);

        assert!(place.fails(&["rm", id], 2).contains("--yes"));
        assert_eq!(place.ok(&["rm", id, "--yes"]), format!("deleted {id}\n"));
        assert!(place.fails(&["get", id], 3).contains("(deleted)"));
        assert!(place.ok(&["list"]).contains("  deleted\n"));
    }
}

#[test]
fn files_are_read_and_written() {
    for place in Place::each() {
        let made = place.run_with(&["put", ID, "--json"], br#"{ "a": 1 }"#, &[]);
        assert!(made.status.success(), "{}", stderr(&made));
        let file = place.run(&["get", ID, "--binary"]).stdout;
        assert!(automerge::AutoCommit::load(&file).is_ok());
        fs::write(place.path().join("a.automerge"), &file).unwrap();
        let id = place.json(&["put", "new", "a.automerge"])["id"].as_str().unwrap().to_owned();
        assert_ne!(id, ID);
        assert_eq!(place.value(&id), json!({ "a": 1 }));
        let merged = place.json(&["put", ID, "a.automerge"]);
        assert_eq!((merged["durable"].as_array().unwrap().len(), &merged["rejected"]), (1, &json!([])));
        assert!(place.fails(&["put", ID, "a.automerge", "-m", "x"], 2).contains("--message"));
        assert_eq!(place.json(&["get", ID, "--heads"])["changes"], 1);
    }
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    for place in Place::each() {
        place.run_with(&["put", "new"], b"{}", &[]);
        assert!(place.fails(&["get", ID], 3).contains("highwater doc list"));
        place.run_with(&["put", ID], br#"{ "a": 1 }"#, &[]);
        let heads = place.ok(&["get", ID, "--heads"]);
        place.ok(&["patch", ID, r#"{"a":2}"#, "--if-match", heads.trim()]);
        let stale = place.fails(&["patch", ID, r#"{"a":3}"#, "--if-match", heads.trim()], 4);
        assert!(stale.contains("(precondition_failed)") && stale.contains("get --json"), "{stale}");
        let output = place.run(&["patch", ID, r#"[{"op":"remove","path":"/b"}]"#, "--json"]);
        assert_eq!(output.status.code(), Some(4));
        let problem = &lines(&stderr(&output))[0];
        assert_eq!((&problem["code"], &problem["pointer"]), (&json!("no_such_path"), &json!("/b")));
        assert!(place.fails(&["patch", ID, "1"], 2).contains("JSON Patch"));
        assert!(place.fails(&["patch", ID, r#"[{"op":"fly"}]"#], 2).contains("(invalid_edit)"));
        assert!(place.fails(&["get", ID, "--at", &"0".repeat(64)], 3).contains("(no_such_change)"));
        assert!(place.fails(&["put", "no id"], 2).contains("not a document id"));
        assert_eq!(place.value(ID), json!({ "a": 2 }));
    }
}

#[test]
fn a_server_that_is_not_there_and_a_folder_that_is_taken() {
    let place = Place::server();
    let taken = common::run(place.path(), &["doc", "list", "--data-dir", "data"]);
    assert_eq!(taken.status.code(), Some(2));
    assert!(stderr(&taken).contains("--server"), "{}", stderr(&taken));
    let missing = common::run(place.path(), &["doc", "list", "--data-dir", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(!place.path().join("nowhere").exists());
    // Nobody listens at a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let gone = highwater(place.path()).args(["doc", "list"]).env("HIGHWATER_SERVER", &url).output().unwrap();
    assert_eq!(gone.status.code(), Some(5));
    assert!(stderr(&gone).contains(&url) && stderr(&gone).contains("highwater serve"), "{}", stderr(&gone));
}

#[test]
fn a_folder_without_a_store_is_refused_and_left_as_it_is_unless_a_document_is_made() {
    let place = Place::folder();
    let folder = place.path().join("data");
    let patch = ["patch", ID, "{}"];
    let put = ["put", ID, "--if-match", "*"];
    for arguments in [&["list"][..], &["get", ID], &["rm", ID, "--yes"], &["edit", ID], &patch, &put] {
        let refused = place.fails(arguments, 2);
        assert!(refused.contains("data") && refused.contains("highwater.db"), "{refused}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{arguments:?}");
    }
    place.run_with(&["put", ID], b"{}", &[]);
    assert!(place.ok(&["list"]).contains(ID));
}

#[test]
fn nothing_is_made_of_nothing() {
    for place in Place::each() {
        place.run_with(&["put", ID], br#"{ "a": 1 }"#, &[]);
        fs::write(place.path().join("empty.json"), "\n").unwrap();
        let attempts = [
            &["put", "new"][..],
            &["put", "new", "-"],
            &["put", "new", "empty.json"],
            &["put", ID],
            &["patch", ID],
            &["patch", ID, "-"],
            &["patch", ID, "--file", "empty.json"],
        ];
        for arguments in attempts {
            let refused = place.fails(arguments, 2);
            assert!(refused.contains("empty") && refused.contains("{}"), "{refused}");
        }
        assert_eq!(lines(&place.ok(&["list", "--json"])).len(), 1);
        assert_eq!(place.value(ID), json!({ "a": 1 }));
        let made = place.run_with(&["put", "new", "--json"], b"{}", &[]);
        let made: Value = serde_json::from_str(&stdout(&made)).unwrap();
        assert_eq!(place.value(made["id"].as_str().unwrap()), json!({}));
    }
}

/// A `watch` that runs.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = highwater(place.path());
        command.args(["doc", "watch", ID, "--json"]).args(arguments).args(&place.target);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    fn ended(self) -> Output {
        self.child.wait_with_output().unwrap()
    }
}

#[test]
fn a_document_is_watched_over_a_restart_until_it_is_deleted() {
    // A port that was just given back, to come back to.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let serve = ["serve", "--listen", &address, "--data-dir", "data"];
        Server::spawn(highwater(folder.path()).args(serve))
    };
    let mut server = start();
    let target = ["--server".to_owned(), format!("http://{address}")];
    let place = Place { target, folder: tempfile::tempdir().unwrap(), _server: None };
    assert!(place.fails(&["watch", ID], 3).contains("(no_such_document)"));
    place.run_with(&["put", ID], br#"{ "text": "a" }"#, &[]);
    let mut watching = Watching::start(&place, &["--limit", "3"]);
    let mut with_patches = Watching::start(&place, &["--patches"]);
    let first = watching.next();
    assert_eq!(
        (&first["event"], &first["heads"]),
        (&json!("heads"), &place.json(&["get", ID, "--heads"])["heads"])
    );
    assert_eq!(with_patches.next()["heads"], first["heads"]);
    let second = place.json(&["patch", ID, r#"{"text":"ab"}"#]);
    assert_eq!(watching.next()["heads"], second["heads"]);
    let patched = with_patches.next();
    assert_eq!((&patched["from"], &patched["heads"]), (&first["heads"], &second["heads"]));
    assert_eq!(patched["patches"], json!([{ "action": "splice", "path": "/text/1", "value": "b" }]));

    server.kill();
    server = start();
    let third = place.json(&["patch", ID, r#"{"text":"abc"}"#]);
    assert_eq!(watching.next()["heads"], third["heads"]);
    assert_eq!(watching.ended().status.code(), Some(0));
    let patched = with_patches.next();
    assert_eq!((&patched["from"], &patched["heads"]), (&second["heads"], &third["heads"]));
    place.ok(&["rm", ID, "--yes"]);
    assert_eq!(with_patches.next()["event"], "deleted");
    let ended = with_patches.ended();
    assert_eq!(ended.status.code(), Some(3), "{}", stderr(&ended));
    drop(server);
    let place = Place::folder();
    place.run_with(&["put", ID], b"{}", &[]);
    assert!(place.fails(&["watch", ID], 2).contains("--server"));
}

#[cfg(unix)]
mod editor {
    use super::*;

    /// An editor that runs these commands of the shell, with the file as `$1`.
    fn editor(place: &Place, commands: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let script = place.path().join("an editor");
        fs::write(&script, format!("#!/bin/sh\n{commands}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        // As a command with arguments.
        format!("'{}' ", script.display())
    }

    fn edit(place: &Place, commands: &str, arguments: &[&str]) -> Output {
        let editor = editor(place, commands);
        place.run_with(
            &[&["edit", ID], arguments].concat(),
            b"",
            &[("EDITOR", &editor), ("TMPDIR", place.path().to_str().unwrap())],
        )
    }

    fn kept(place: &Place) -> Vec<std::path::PathBuf> {
        let files = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|of| of == "json")).collect()
    }

    #[test]
    fn what_is_changed_in_the_editor_is_one_change() {
        for place in Place::each() {
            place.run_with(
                &["put", ID],
                br#"{ "text": "Hello", "list": [1, 2], "n": { "$counter": 1 } }"#,
                &[],
            );
            let edited = edit(
                &place,
                r#"sed -i 's/Hello/Hello, world/; s/"$counter": 1/"$counter": 5/' "$1""#,
                &["-m", "by hand", "--json"],
            );
            assert!(edited.status.success(), "{}", stderr(&edited));
            let whole = json!({ "text": "Hello, world", "list": [1, 2], "n": { "$counter": 5 } });
            assert_eq!(place.value(ID), whole);
            let hash = lines(&stdout(&edited))[0]["hash"].clone();
            let history = lines(&place.ok(&["history", ID, "--json"]));
            assert_eq!((&history[0]["hash"], &history[0]["message"]), (&hash, &json!("by hand")));
            let nothing = edit(&place, "touch \"$1\"", &[]);
            assert_eq!(stdout(&nothing), format!("nothing to change in {ID}\n"));
            assert_eq!(lines(&place.ok(&["history", ID, "--json"])).len(), 2);
            assert_eq!(kept(&place), Vec::<std::path::PathBuf>::new());
        }
    }

    #[test]
    fn what_others_do_meanwhile_stays() {
        let place = Place::server();
        place.run_with(&["put", ID], br#"{ "text": "The fox jumps", "list": ["a", "b", "c"] }"#, &[]);
        let other = r#"[
            {"op":"splice","path":"/text","index":0,"delete":3,"insert":"A quick"},
            {"op":"add","path":"/list/0","value":"first"},
            {"op":"add","path":"/theirs","value":true}]"#;
        fs::write(place.path().join("other"), other).unwrap();
        let commands = format!(
            "'{}' doc patch {ID} --server {} --file other >&2 || exit 1\nsed -i 's/jumps/jumps high/; s/\"c\"/\"c\", \"last\"/' \"$1\"",
            env!("CARGO_BIN_EXE_highwater"),
            place.target[1],
        );
        let edited = edit(&place, &commands, &[]);
        assert!(edited.status.success(), "{}", stderr(&edited));
        assert!(stdout(&edited).contains("Others changed it meanwhile"), "{}", stdout(&edited));
        let both = json!({
            "text": "A quick fox jumps high", "list": ["first", "a", "b", "c", "last"], "theirs": true,
        });
        assert_eq!(place.value(ID), both);
    }

    #[test]
    fn what_cannot_be_sent_is_kept() {
        let place = Place::server();
        place.run_with(&["put", ID], br#"{ "a": 1 }"#, &[]);
        let failed = edit(&place, "sed -i 's/1/2/' \"$1\"; exit 3", &[]);
        assert_eq!(failed.status.code(), Some(2));
        let nonsense = edit(&place, "echo '{' > \"$1\"", &[]);
        assert!(stderr(&nonsense).contains("no document"), "{}", stderr(&nonsense));
        assert_eq!(place.value(ID), json!({ "a": 1 }));
        kept(&place).iter().for_each(|file| fs::remove_file(file).unwrap());
        let commands = format!(
            "sed -i 's/1/2/' \"$1\"; '{}' doc rm {ID} --yes --server {}",
            env!("CARGO_BIN_EXE_highwater"),
            place.target[1],
        );
        let refused = edit(&place, &commands, &[]);
        assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
        let kept = kept(&place);
        assert_eq!(kept.len(), 1);
        assert!(fs::read_to_string(&kept[0]).unwrap().contains("2"));
        assert!(stderr(&refused).contains(kept[0].to_str().unwrap()), "{}", stderr(&refused));
    }
}
