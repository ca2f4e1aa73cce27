//! Requests to a running server, or to one in this process that has the folder open. The answers are the same.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_server::{Embedded, Server, ServerError};
use highwater_storage::{FILE_NAME, StoreError};
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Where a server listens if nothing is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:3030";
/// How long a server may take until it is there, and until it answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer.
const ANSWER_BYTES_MAX: u64 = 4 << 30;
/// How long the server of a folder may take to go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

const EXIT_REFUSED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_NOT_THERE: u8 = 3;
const EXIT_NOT_SO: u8 = 4;
const EXIT_LATER: u8 = 5;

/// Which server is asked, and for whom it answers.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// The server [default: http://127.0.0.1:3030] [env: HIGHWATER_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ServerArgs {
    /// The server. `advice` is what to do if it cannot be reached.
    pub(crate) fn open(self, advice: &'static str) -> Result<Api, Failure> {
        let set = || std::env::var("HIGHWATER_SERVER").ok().filter(|set| !set.is_empty());
        let server = self.server.or_else(set);
        Api::server(server.as_deref().unwrap_or(DEFAULT_SERVER), advice)
    }
}

/// How a command ends: with yes, with no, or with what went wrong, which is said.
pub(crate) fn ended(done: Result<bool, Failure>, json: bool) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => failure.tell(json),
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    exit: u8,
    /// For people: what is wrong, and what to do.
    text: String,
    /// For programs, in the form of problem details.
    problem: Value,
}

impl Failure {
    fn new(exit: u8, code: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let problem = json!({ "code": code, "detail": text, "retryable": exit == EXIT_LATER });
        Self { exit, text, problem }
    }

    /// What was asked makes no sense, or cannot be done from here.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(EXIT_USAGE, "usage", text)
    }

    /// The server took it, and not as it should.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(EXIT_REFUSED, "refused", text)
    }

    /// The document was deleted.
    pub(crate) fn deleted() -> Self {
        Self::new(EXIT_NOT_THERE, "deleted", "the document was deleted")
    }

    /// Whether it may be otherwise later.
    pub(crate) fn is_passing(&self) -> bool {
        self.exit == EXIT_LATER
    }

    /// With something more to know.
    pub(crate) fn with(mut self, advice: &str) -> Self {
        self.text = format!("{}\n{advice}", self.text);
        self
    }

    /// Says it on standard error.
    fn tell(&self, json: bool) -> ExitCode {
        match json {
            _ if self.text.is_empty() => {}
            true => eprintln!("{}", self.problem),
            false => eprintln!("highwater: {}", self.text),
        }
        ExitCode::from(self.exit)
    }

    /// What the server says, with what can be done about it.
    fn of_answer(status: u16, body: &[u8]) -> Self {
        let Ok(problem) = serde_json::from_slice::<Value>(body)
            .map_err(drop)
            .and_then(|problem| if problem["code"].is_string() { Ok(problem) } else { Err(()) })
        else {
            let text =
                format!("the server answers with status {status}. Is it a Highwater, of this version?");
            return Self::new(if status >= 500 { EXIT_LATER } else { EXIT_REFUSED }, "unexpected", text);
        };
        let code = problem["code"].as_str().unwrap_or_default();
        let (exit, advice) = match code {
            "no_such_document" => (EXIT_NOT_THERE, "`highwater doc list` shows what there is."),
            "no_such_change" => (EXIT_NOT_THERE, "`highwater doc history` shows what there is."),
            "no_such_webhook" => (EXIT_NOT_THERE, "`highwater webhooks list` shows what there is."),
            "deleted" => (EXIT_NOT_THERE, ""),
            "exists" => (EXIT_NOT_SO, "`highwater doc put` changes a document that exists."),
            "precondition_failed" => (
                EXIT_NOT_SO,
                "Read it again with `highwater doc get --json`, which says its heads, and decide anew.",
            ),
            "no_such_path" | "test_failed" | "wrong_type" | "out_of_bounds" => {
                (EXIT_NOT_SO, "Nothing was changed. `highwater doc get` shows the document as it is.")
            }
            "invalid_edit" => (EXIT_USAGE, "Nothing was changed."),
            "idempotency_key_reused" => {
                (EXIT_USAGE, "A key is for one request; choose a new one for a new request.")
            }
            "too_large" => (
                EXIT_REFUSED,
                "Send less at once. `highwater import` takes large documents into a data folder.",
            ),
            "too_deep" => (EXIT_REFUSED, "`highwater doc get --binary` has it all."),
            "no_such_route" | "method_not_allowed" => {
                (EXIT_REFUSED, "Is the server older than this command?")
            }
            "damaged" | "internal" => (EXIT_REFUSED, "Somebody must look at the server; its log says more."),
            "unavailable" => (
                EXIT_LATER,
                "Try again. With --idempotency-key an edit is made once, however often it is sent.",
            ),
            _ if problem["retryable"] == true => (EXIT_LATER, ""),
            _ => (EXIT_REFUSED, ""),
        };
        let detail = problem["detail"].as_str().unwrap_or_default();
        let mut text = format!("{detail} ({code})");
        if !advice.is_empty() {
            text = format!("{text}.\n{advice}");
        }
        Self { exit, text, problem }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Whoever read the output has seen enough.
            std::io::ErrorKind::BrokenPipe => Self::new(0, "", ""),
            _ => Self::usage(error.to_string()),
        }
    }
}

/// A request.
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &'static str, path: String, body: Vec<u8>) -> Self {
        Self { method, path, headers: Vec::new(), body }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new("GET", path, Vec::new())
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An answer that is not an error.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        let unexpected = |error| {
            let text =
                format!("the server's answer cannot be read: {error}. Is it a Highwater, of this version?");
            Failure::new(EXIT_REFUSED, "unexpected", text)
        };
        serde_json::from_slice(&self.body).map_err(unexpected)
    }

    /// The heads that the answer is about; null if they are too many to be said.
    pub(crate) fn heads(&self) -> Value {
        let tag = self.headers.get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let heads = tag.trim_matches('"');
        if heads.is_empty() || heads.starts_with("sha256:") {
            return Value::Null;
        }
        heads.split(',').collect()
    }
}

/// Where requests go.
pub(crate) struct Api(To);

enum To {
    Server {
        agent: ureq::Agent,
        /// Scheme and authority.
        origin: String,
        /// What stands before the path, without a slash at the end.
        base: String,
        /// What to do if it cannot be reached.
        advice: &'static str,
    },
    Folder {
        runtime: tokio::runtime::Runtime,
        embedded: Embedded,
    },
}

impl Api {
    /// A running server. `advice` is what to do if it cannot be reached.
    fn server(url: &str, advice: &'static str) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/');
        // What `serve` prints is for clients that sync.
        let url = match url.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(("http" | "https", _)) => url.to_owned(),
            _ => return Err(Failure::usage(format!("--server {url}: expected http://… or https://…"))),
        };
        let authority = url.find("://").map_or(0, |place| place + 3);
        let end = url[authority..].find('/').map_or(url.len(), |place| authority + place);
        let (origin, base) = url.split_at(end);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT));
        let config = if url.starts_with("https:") { config.tls_config(tls()) } else { config };
        let agent = config.build().new_agent();
        Ok(Self(To::Server { agent, origin: origin.to_owned(), base: base.to_owned(), advice }))
    }

    /// A data folder that nobody else has open. Only for a document that is made may it be one without a store, which is made, too.
    pub(crate) fn folder(folder: &Path, is_for_new: bool) -> Result<Self, Failure> {
        if !folder.is_dir() {
            return Err(Failure::usage(format!("there is no folder {}", folder.display())));
        }
        // A mistyped one must not look like one without documents.
        if !is_for_new && !folder.join(FILE_NAME).exists() {
            return Err(Failure::usage(format!(
                "{} is no data folder: it has no file {FILE_NAME}, which would hold the documents.\n`highwater doc put` makes a document there, and the file.",
                folder.display()
            )));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let opened = runtime.block_on(Server::builder().data_dir(folder).embed());
        let embedded = opened.map_err(|error| match error {
            ServerError::Store(StoreError::Locked(_)) => {
                let advice =
                    "A server has it open: leave --data-dir out, and say where the server is with --server.";
                Failure::usage(format!("{error}.\n{advice}"))
            }
            error => Failure::usage(format!("cannot open {}: {error}", folder.display())),
        })?;
        Ok(Self(To::Folder { runtime, embedded }))
    }

    /// The path below the server that an address in an answer stands for.
    pub(crate) fn relative(&self, address: &str) -> String {
        match &self.0 {
            To::Server { base, .. } => address.strip_prefix(&**base).unwrap_or(address).to_owned(),
            To::Folder { .. } => address.to_owned(),
        }
    }

    /// Asks, and returns the answer if it is not an error.
    pub(crate) fn send(&self, ask: Ask) -> Result<Answer, Failure> {
        let (status, headers, body) = match &self.0 {
            To::Server { agent, origin, base, advice } => {
                let server = format!("{origin}{base}");
                let request = request(&ask, &server)?;
                let unreachable = |error: ureq::Error| unreachable(&server, &error, advice);
                let (head, mut body) = agent.run(request).map_err(unreachable)?.into_parts();
                let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
                (head.status, head.headers, Bytes::from(body))
            }
            To::Folder { runtime, embedded } => {
                let request = request(&ask, "")?.map(Bytes::from);
                let (head, body) = runtime.block_on(embedded.request(request))?.into_parts();
                (head.status, head.headers, body)
            }
        };
        if status.is_success() {
            Ok(Answer { status: status.as_u16(), headers, body })
        } else {
            Err(Failure::of_answer(status.as_u16(), &body))
        }
    }

    /// Asks for an answer without an end, and reads it.
    pub(crate) fn stream(&self, ask: &Ask) -> Result<impl Read + Send + 'static + use<>, Failure> {
        let To::Server { agent, origin, base, advice } = &self.0 else {
            let text =
                "nobody else has the folder open, so nothing happens there; follow a server, with --server";
            return Err(Failure::usage(text));
        };
        let server = format!("{origin}{base}");
        let request = request(ask, &server)?;
        let unreachable = |error: ureq::Error| unreachable(&server, &error, advice);
        let (head, mut body) = agent.run(request).map_err(unreachable)?.into_parts();
        if head.status.is_success() {
            return Ok(body.into_reader());
        }
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
        Err(Failure::of_answer(head.status.as_u16(), &body))
    }

    /// Lets go of the folder.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let To::Folder { runtime, embedded } = self.0 else { return Ok(()) };
        let closed = runtime.block_on(embedded.drain(CLOSE_TIMEOUT));
        runtime.shutdown_background();
        closed.map_err(|error| Failure::refused(error.to_string()))
    }
}

fn request(ask: &Ask, server: &str) -> Result<Request<Vec<u8>>, Failure> {
    let mut request = Request::builder().method(ask.method).uri(format!("{server}{}", ask.path));
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    request.body(ask.body.clone()).map_err(|error| Failure::usage(error.to_string()))
}

fn unreachable(server: &str, error: &ureq::Error, advice: &str) -> Failure {
    Failure::new(EXIT_LATER, "unreachable", format!("cannot reach {server}: {error}.\n{advice}"))
}

/// Trusts whom the system trusts.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let certificates: Vec<Certificate<'static>> =
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .build()
}

/// A text as a part of an address.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
