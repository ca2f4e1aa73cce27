//! Webhooks of the real binary: a receiver that fails, hangs and is down for a while, and a server that is killed in between. Each change is told at least once, in order per document, and signed.

#![cfg(unix)]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::http::request;
use common::{Server, highwater, run, stderr, stdout};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SECRET: &[u8] = b"a secret of thirty-two bytes, OK";
const DOCUMENTS: usize = 6;
const EDITS: usize = 150;

/// What a receiver does with posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Every other post is answered with an error, after it was read.
    Fails,
    /// Takes posts in and answers none.
    Hangs,
    /// Closes every connection.
    IsDown,
}

/// A post that was answered with success, or was read and not.
#[derive(Debug, Clone)]
struct Post {
    /// In what order the connections came. One of a server that is gone may be read after those of the next.
    number: usize,
    id: String,
    document: String,
    changed: u64,
    kind: String,
    heads: Value,
    was_taken: bool,
}

struct Receiver {
    url: String,
    mood: Mutex<Mood>,
    /// Documents of which posts are answered with an error, whatever the mood.
    refused: Mutex<BTreeSet<String>>,
    posts: Mutex<Vec<Post>>,
    /// Posts of a document under way at the same time as another one of it.
    overlaps: AtomicUsize,
    under_way: Mutex<HashMap<String, usize>>,
}

impl Receiver {
    fn start() -> Arc<Self> {
        Self::start_with("http", |stream| stream)
    }

    /// One that is spoken to over TLS.
    fn start_secure(config: ServerConfig) -> Arc<Self> {
        let config = Arc::new(config);
        Self::start_with("https", move |stream| {
            StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
        })
    }

    fn start_with<S: Read + Write>(
        scheme: &str,
        wrap: impl Fn(TcpStream) -> S + Clone + Send + 'static,
    ) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Arc::new(Self {
            url: format!("{scheme}://localhost:{port}"),
            mood: Mutex::new(Mood::Takes),
            refused: Mutex::default(),
            posts: Mutex::default(),
            overlaps: AtomicUsize::new(0),
            under_way: Mutex::default(),
        });
        let this = receiver.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (this, stream, wrap) = (this.clone(), stream.unwrap(), wrap.clone());
                std::thread::spawn(move || this.serve(number, wrap(stream)));
            }
        });
        receiver
    }

    fn serve(&self, number: usize, mut stream: impl Read + Write) {
        let mood = *self.mood.lock().unwrap();
        if mood == Mood::IsDown {
            return;
        }
        let Some((headers, body)) = read(&mut stream) else { return };
        verify(&headers, &body);
        let value: Value = serde_json::from_slice(&body).unwrap();
        let data = &value["data"];
        let document = data["document"].as_str().unwrap().to_owned();
        if self.enter(&document) > 1 {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        let is_taken = match mood {
            _ if self.refused.lock().unwrap().contains(&document) => false,
            Mood::Takes => true,
            Mood::Fails => self.posts.lock().unwrap().len().is_multiple_of(2),
            Mood::Hangs | Mood::IsDown => false,
        };
        self.posts.lock().unwrap().push(Post {
            number,
            id: headers["webhook-id"].clone(),
            document: document.clone(),
            changed: data["changed"].as_u64().unwrap(),
            kind: value["type"].as_str().unwrap().to_owned(),
            heads: data["heads"].clone(),
            was_taken: is_taken,
        });
        if mood == Mood::Hangs {
            // Until the server gives up, or is killed.
            let _ = stream.read(&mut [0]);
        }
        self.leave(&document);
        let status = if is_taken { "204 No Content" } else { "500 Internal Server Error" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.flush();
    }

    fn enter(&self, document: &str) -> usize {
        let mut under_way = self.under_way.lock().unwrap();
        let count = under_way.entry(document.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn leave(&self, document: &str) {
        *self.under_way.lock().unwrap().get_mut(document).unwrap() -= 1;
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn posts(&self) -> Vec<Post> {
        let mut posts = self.posts.lock().unwrap().clone();
        posts.sort_by_key(|post| post.number);
        posts
    }
}

fn read(stream: impl Read) -> Option<(HashMap<String, String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut line) = (HashMap::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}

/// As a receiver does it that knows only the specification.
fn verify(headers: &HashMap<String, String>, body: &[u8]) {
    let (id, time) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 300);
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
    let pad = |byte: u8| -> Vec<u8> {
        (0..64).map(|place| SECRET.get(place).copied().unwrap_or(0) ^ byte).collect()
    };
    let inner = Sha256::digest([pad(0x36), message].concat());
    let mac = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    assert_eq!(headers["webhook-signature"], format!("v1,{}", STANDARD.encode(mac)));
}

fn start(folder: &Path, receiver: &Receiver, more: &[&str]) -> Server {
    Server::spawn(command(folder, receiver, more).args(["--webhook-timeout", "300ms"]))
}

fn command(folder: &Path, receiver: &Receiver, more: &[&str]) -> Command {
    let hook = format!(
        "[[webhook]]\nname = \"search\"\nurl = \"{}/hook\"\nsecret = \"whsec_{}\"\n",
        receiver.url,
        STANDARD.encode(SECRET)
    );
    std::fs::write(folder.join("hooks.toml"), hook).unwrap();
    let mut command = highwater(folder);
    command.args(common::SERVE).args(["--webhooks-file", "hooks.toml"]);
    // Below a flag of the test's own.
    command.env("HIGHWATER_WEBHOOK_RETRY_AFTER", "20ms").args(more);
    command
}

fn make(server: &Server) -> String {
    let (status, made) =
        request(&server.address(), "POST", "/v1/docs", "application/json", r#"{"n":0}"#).unwrap();
    assert_eq!(status, 201);
    made["id"].as_str().unwrap().to_owned()
}

/// An edit that is tried until it is acknowledged. Returns the heads.
fn edit(address: &Mutex<String>, id: &str, n: usize) -> Value {
    loop {
        let path = format!("/v1/docs/{id}");
        let now = address.lock().unwrap().clone();
        let merge = json!({ "n": n }).to_string();
        match request(&now, "PATCH", &path, "application/merge-patch+json", &merge) {
            Some((200, answer)) => return answer["heads"].clone(),
            Some((503, _)) | None => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    wait_at_most(Duration::from_secs(60), what, is_so);
}

fn wait_at_most(most: Duration, what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < most, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_change_is_told_whatever_happens_to_receiver_and_server() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    // So many attempts that nothing is given up meanwhile.
    let more = ["--webhook-attempts-max", "1000"];
    let mut server = start(folder.path(), &receiver, &more);
    let ids: Vec<String> = (0..DOCUMENTS).map(|_| make(&server)).collect();
    let address = Mutex::new(server.address());
    let edits = AtomicUsize::new(0);
    let last: HashMap<String, Value> = std::thread::scope(|scope| {
        let writers: Vec<_> = ids
            .iter()
            .map(|id| {
                let (address, edits) = (&address, &edits);
                scope.spawn(move || {
                    let mut heads = Value::Null;
                    for n in 1..=EDITS {
                        heads = edit(address, id, n);
                        edits.fetch_add(1, Ordering::SeqCst);
                    }
                    (id.clone(), heads)
                })
            })
            .collect();
        // While they write, the receiver is in one mood after the other, and the server is killed in each.
        let moods = [Mood::Fails, Mood::Hangs, Mood::IsDown, Mood::Takes, Mood::Fails];
        for (step, mood) in moods.into_iter().enumerate() {
            receiver.set(mood);
            let until = (step + 1) * DOCUMENTS * EDITS / (moods.len() + 1);
            wait("the writers get on", || edits.load(Ordering::SeqCst) >= until);
            server.kill();
            server = start(folder.path(), &receiver, &more);
            *address.lock().unwrap() = server.address();
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    receiver.set(Mood::Takes);
    let is_told = |id: &String| {
        let posts = receiver.posts();
        posts.iter().any(|post| post.was_taken && post.document == *id && post.heads == last[id])
    };
    wait("the newest heads of every document are told", || ids.iter().all(is_told));
    let deleted = format!("/v1/docs/{}", ids[0]);
    assert_eq!(request(&server.address(), "DELETE", &deleted, "text/plain", "").unwrap().0, 204);
    wait("the deletion is told", || receiver.posts().iter().any(|post| post.kind == "document.deleted"));
    let posts = receiver.posts();
    for id in &ids {
        let numbers: Vec<u64> =
            posts.iter().filter(|post| post.document == *id).map(|post| post.changed).collect();
        assert!(numbers.is_sorted(), "{id}: {numbers:?}");
    }
    // An id stands for one change of one document, so that receivers can tell repetitions.
    let ids_of: BTreeSet<(&str, u64, &str)> =
        posts.iter().map(|post| (&*post.document, post.changed, &*post.id)).collect();
    let distinct: BTreeSet<&str> = ids_of.iter().map(|(_, _, id)| *id).collect();
    assert_eq!(ids_of.len(), distinct.len());
    assert!(posts.iter().any(|post| !post.was_taken), "nothing ever failed");
    let taken = posts.iter().filter(|post| post.was_taken).count();
    println!("{} changes, {} posts, {taken} of them taken", DOCUMENTS * EDITS, posts.len());
}

#[test]
fn a_document_that_is_refused_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let server = start(folder.path(), &receiver, &["--webhook-retry-after", "1h"]);
    let refused = make(&server);
    wait("it is told", || receiver.posts().iter().any(|post| post.document == refused));
    receiver.refused.lock().unwrap().insert(refused.clone());
    edit(&Mutex::new(server.address()), &refused, 1);
    wait("it is refused", || receiver.posts().iter().any(|post| !post.was_taken));
    let other = make(&server);
    // A receiver that is not there is left alone for 15 seconds at least, if the first pause is as long as that.
    let is_told = || receiver.posts().iter().any(|post| post.document == other);
    wait_at_most(Duration::from_secs(10), "the other one is told", is_told);
    // Of the one that is refused, the next attempt is far away, whatever happens to it.
    edit(&Mutex::new(server.address()), &refused, 2);
    let last = make(&server);
    wait("the last one is told", || receiver.posts().iter().any(|post| post.document == last));
    assert_eq!(receiver.posts().iter().filter(|post| post.document == refused).count(), 2);
}

#[test]
fn a_receiver_that_refuses_everything_is_not_asked_on_and_on() {
    const PAGE: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    // From now on it is to be told of everything, and will be later.
    drop(start(folder.path(), &receiver, &[]));
    let server = Server::start(folder.path());
    let ids: Vec<String> = (0..=2 * PAGE).map(|_| make(&server)).collect();
    drop(server);
    receiver.refused.lock().unwrap().extend(ids);
    let server = start(folder.path(), &receiver, &["--webhook-retry-after", "1h"]);
    let waiting = || {
        let (_, listed) = request(&server.address(), "GET", "/v1/webhooks", "text/plain", "").unwrap();
        listed["webhooks"][0]["waiting"].as_array().unwrap().len()
    };
    wait("a page is refused", || waiting() == PAGE);
    make(&server);
    assert_eq!((waiting(), receiver.posts().len()), (PAGE, PAGE));
    // Whoever asks to try again ends the pause.
    let retry = request(&server.address(), "POST", "/v1/webhooks/search/retry", "text/plain", "");
    assert_eq!(retry.unwrap().0, 200);
    wait("another page is refused", || waiting() == 2 * PAGE);
    make(&server);
    assert_eq!((waiting(), receiver.posts().len()), (2 * PAGE, 2 * PAGE));
}

#[test]
fn what_fails_too_often_is_listed_and_told_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    receiver.set(Mood::IsDown);
    let server = start(folder.path(), &receiver, &["--webhook-attempts-max", "2"]);
    let id = make(&server);
    let url = format!("http://{}", server.address());
    let list = || -> Value {
        serde_json::from_str(&stdout(&run(folder.path(), &["webhooks", "list", "--json", "--server", &url])))
            .unwrap()
    };
    wait("it is given up", || !list()["webhooks"][0]["dead"].as_array().unwrap().is_empty());
    let hook = list()["webhooks"][0].clone();
    assert_eq!((&hook["dead"][0]["document"], &hook["dead"][0]["attempts"]), (&json!(id), &json!(2)));
    assert_eq!(hook["changed"], hook["last"]);
    let listed = run(folder.path(), &["webhooks", "list", "--server", &url]);
    assert!(!listed.status.success() && stdout(&listed).contains("DEAD"), "{listed:?}");
    assert!(!stdout(&listed).contains("whsec"));
    receiver.set(Mood::Takes);
    let retried = run(folder.path(), &["webhooks", "retry", "search", "--server", &url]);
    assert_eq!(stdout(&retried), "1 documents are tried again\n");
    wait("it is told", || receiver.posts().iter().any(|post| post.was_taken && post.document == id));
    wait("nothing is dead", || run(folder.path(), &["webhooks", "list", "--server", &url]).status.success());
    let unknown = run(folder.path(), &["webhooks", "retry", "nobody", "--json", "--server", &url]);
    assert_eq!(unknown.status.code(), Some(3));
    let problem: Value = serde_json::from_str(&stderr(&unknown)).unwrap();
    assert_eq!(problem["code"], "no_such_webhook");
    // It begins with what happens from then on: nothing else was told.
    assert!(receiver.posts().iter().all(|post| post.document == id));
    assert_eq!(receiver.overlaps.load(Ordering::SeqCst), 0);
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens at a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let ask = |arguments: &[&str]| {
        let mut command = highwater(folder.path());
        command.arg("webhooks").args(arguments).env("HIGHWATER_SERVER", &url).output().unwrap()
    };
    for arguments in [&["list"][..], &["retry", "search"]] {
        let gone = ask(arguments);
        assert_eq!(gone.status.code(), Some(5), "{gone:?}");
        assert!(stderr(&gone).contains(&url) && stderr(&gone).contains("--server"), "{}", stderr(&gone));
        let gone = ask(&[arguments, &["--json"]].concat());
        let problem: Value = serde_json::from_str(&stderr(&gone)).unwrap();
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!("unreachable"), &json!(true)));
    }
    // The flag goes before the environment.
    let nonsense = ask(&["list", "--server", "nonsense"]);
    assert_eq!(nonsense.status.code(), Some(2), "{nonsense:?}");
}

#[test]
fn over_tls_a_receiver_is_told_whose_certificate_is_trusted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificates = vec![certified.cert.der().clone()];
    let config = config.with_no_client_auth().with_single_cert(certificates, key.into()).unwrap();
    let receiver = Receiver::start_secure(config);
    let trusted = folder.path().join("trusted.pem");
    let spawn =
        |more: &[&str]| Server::spawn(command(folder.path(), &receiver, more).env("SSL_CERT_FILE", &trusted));

    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&trusted, stranger.cert.pem()).unwrap();
    let server = spawn(&["--webhook-attempts-max", "1"]);
    let id = make(&server);
    let url = format!("http://{}", server.address());
    let dead = || -> Value {
        let listed = stdout(&run(folder.path(), &["webhooks", "list", "--json", "--server", &url]));
        serde_json::from_str::<Value>(&listed).unwrap()["webhooks"][0]["dead"][0].clone()
    };
    wait("it is given up", || !dead().is_null());
    assert_eq!(dead()["document"], json!(id));
    assert!(dead()["error"].as_str().unwrap().contains("certificate"), "{}", dead());
    assert!(receiver.posts().is_empty());
    drop(server);

    std::fs::write(&trusted, certified.cert.pem()).unwrap();
    let server = spawn(&[]);
    let id = make(&server);
    wait("it is told", || receiver.posts().iter().any(|post| post.was_taken && post.document == id));
}
