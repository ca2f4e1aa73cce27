//! What can be set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use highwater_core::limits::COMPACT_CHANGES_MIN;

use crate::webhooks::WebhookConfig;

/// How a server behaves. All defaults are safe; none needs to be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How often clients are pinged. One that lets two pings pass without a sign of life is dropped.
    pub ping_interval: Duration,
    /// How long a client may take to send the head of its HTTP request. Every connection begins with one.
    pub request_timeout: Duration,
    /// How long it may take to read the rest of a request, to answer it, and until the answer is read. What flows meanwhile earns time: 32 KiB a second suffice.
    pub answer_timeout: Duration,
    /// How long a connection may take until it has joined.
    pub join_timeout: Duration,
    /// How long a document that nobody has open stays in memory.
    pub idle_document_after: Duration,
    /// How many bytes the documents may take up that nobody has open and that are still in memory; beyond that, those go that were not
    /// used for longest.
    pub idle_documents_bytes_max: usize,
    /// How many documents may be in memory. If nobody's document can go, the connection is closed that has most of them open.
    pub open_documents_max: usize,
    /// How many bytes the documents may take up that are kept with all their values, for what needs these.
    pub copies_bytes_max: usize,
    /// How many changes of a document must have come since its last snapshot before it is compacted. At least one in eight of all, too.
    pub compact_changes_min: usize,
    /// How many documents are compacted at once.
    pub compactions_max: usize,
    /// How long a shutdown may take.
    pub drain_deadline: Duration,
    /// How many connections are taken at once.
    pub connections_max: usize,
    /// How many sockets may be open beyond that many: for health checks, for clients that are being let in, and for those that are
    /// turned away. If all are in use, the one goes that has been silent longest; if none is silent, newcomers wait.
    pub http_sockets_max: usize,
    /// How many bytes may wait to be sent to one client. One that falls behind further is disconnected, and synchronises anew.
    pub send_queue_bytes_max: usize,
    /// How many bytes received from one client may wait to be stored before no more is read from it.
    pub receive_queue_bytes_max: usize,
    /// A folder of static files that are served at `/` and below; without, there is a page that says what this is.
    pub pages: Option<PathBuf>,
    /// The pages that browsers may connect from.
    pub allowed_origins: AllowedOrigins,
    /// How changes are checked before they are stored.
    pub check_changes: CheckChanges,
    /// Who is told what happens to documents.
    pub webhooks: WebhookConfig,
}

/// Pages that may use the server. Only browsers say which page asks; whoever is not a browser is not kept out by this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// All of them.
    #[default]
    Any,
    /// Those of these origins, such as `https://app.example.com`, and the server's own.
    These(Vec<String>),
}

/// How changes are checked before they are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckChanges {
    /// From the graph and an index of operations, in microseconds.
    #[default]
    Index,
    /// Also by applying them to a copy of the document, which is saved and loaded again: takes time and memory linear in the document.
    Full,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3030)),
            ping_interval: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            join_timeout: Duration::from_secs(10),
            idle_document_after: Duration::from_secs(30),
            idle_documents_bytes_max: 256 << 20,
            open_documents_max: 200_000,
            copies_bytes_max: 256 << 20,
            compact_changes_min: COMPACT_CHANGES_MIN,
            compactions_max: 1,
            drain_deadline: Duration::from_secs(20),
            connections_max: 50_000,
            http_sockets_max: 1_024,
            send_queue_bytes_max: 64 << 20,
            receive_queue_bytes_max: 16 << 20,
            pages: None,
            allowed_origins: AllowedOrigins::Any,
            check_changes: CheckChanges::Index,
            webhooks: WebhookConfig::default(),
        }
    }
}
