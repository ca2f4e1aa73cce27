//! Everything that is counted, in one place. `docs/metrics.md` has the same table, and a test that compares them.
//!
//! The handles are made once per server and kept: a look-up by name is too slow for what happens with every message. They belong to the
//! recorder that is installed when the server is bound; without one they do nothing.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

const CONNECTIONS_ENDED: &str = "highwater_connections_ended_total";

/// How a connection ended that was not closed by us for a reason of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    /// The client closed it, and was told that all it sent is durable.
    Closed,
    /// The client closed it or left, and was not told so, because it is not so.
    Unanswered,
    /// It broke.
    Broken,
}

/// What becomes of what webhooks are told.
pub(crate) struct WebhookMetrics {
    pub(crate) delivered: Counter,
    pub(crate) failed: Counter,
    pub(crate) dead: Counter,
}

impl WebhookMetrics {
    fn new() -> Self {
        Self {
            delivered: described_counter(
                "highwater_webhook_posts_delivered_total",
                "Posts that arrived at receivers",
            ),
            failed: described_counter(
                "highwater_webhook_posts_failed_total",
                "Posts that did not arrive, or were not taken",
            ),
            dead: described_counter(
                "highwater_webhook_documents_dead_total",
                "Documents of which a receiver could not be told, and is not told again before somebody says so",
            ),
        }
    }
}

/// The handles of one server.
pub(crate) struct Metrics {
    pub(crate) sockets: Gauge,
    pub(crate) sockets_given_up: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_opened: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) frames_ignored: Counter,
    pub(crate) documents_open: Gauge,
    pub(crate) documents_unreadable: Counter,
    pub(crate) documents_deleted: Counter,
    pub(crate) webhooks: WebhookMetrics,
    pub(crate) changes_received: Counter,
    pub(crate) changes_refused: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) store_failures: Counter,
    pub(crate) compaction: CompactionMetrics,
}

/// What is counted about compactions.
pub(crate) struct CompactionMetrics {
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) unfit: Counter,
    pub(crate) seconds: Histogram,
}

impl CompactionMetrics {
    fn new() -> Self {
        Self {
            done: described_counter(
                "highwater_compactions_total",
                "Documents whose changes were put together into a snapshot",
            ),
            failed: described_counter(
                "highwater_compactions_failed_total",
                "Compactions that came to nothing, for want of memory or of a readable store; the documents stay as they were",
            ),
            unfit: described_counter(
                "highwater_compactions_unfit_total",
                "Documents that cannot be compacted because of one of their changes, which `highwater doctor` names",
            ),
            seconds: described_seconds(
                "highwater_compaction_seconds",
                "Time from starting to compact a document until the snapshot was durable",
            ),
        }
    }
}

impl Metrics {
    /// Describes all, and makes the handles.
    pub(crate) fn new() -> Self {
        describe_counter!(
            CONNECTIONS_ENDED,
            Unit::Count,
            "WebSockets that ended, or were turned away, by `reason`"
        );
        let metrics = Self {
            sockets: described_gauge("highwater_sockets", "Sockets that are open, WebSockets among them"),
            sockets_given_up: described_counter(
                "highwater_sockets_given_up_total",
                "Sockets closed because they asked for nothing and were too slow, or silent when others needed the place, or because nothing of a request or an answer got on any more",
            ),
            accept_failures: described_counter(
                "highwater_accept_failures_total",
                "Failed attempts to accept a socket, such as for too many open files",
            ),
            bytes_received: described_bytes(
                "highwater_received_bytes_total",
                "Bytes read from sockets, HTTP among them",
            ),
            bytes_sent: described_bytes(
                "highwater_sent_bytes_total",
                "Bytes written to sockets, HTTP among them",
            ),
            connections: described_gauge("highwater_connections", "WebSockets that are open and were let in"),
            connections_opened: described_counter(
                "highwater_connections_opened_total",
                "WebSockets that were opened, those turned away among them",
            ),
            frames_received: described_counter("highwater_frames_received_total", "Binary frames received"),
            frames_ignored: described_counter(
                "highwater_frames_ignored_total",
                "Binary frames that asked for nothing: of an unknown type, in another peer's name, or about a document that is not open on the connection",
            ),
            documents_open: described_gauge("highwater_documents_open", "Documents in memory"),
            documents_unreadable: described_counter(
                "highwater_documents_unreadable_total",
                "Attempts to open a document that could not be read",
            ),
            webhooks: WebhookMetrics::new(),
            documents_deleted: described_counter(
                "highwater_documents_deleted_total",
                "Documents that were deleted",
            ),
            changes_received: described_counter(
                "highwater_changes_received_total",
                "Changes that were new and went to the store",
            ),
            changes_refused: described_counter(
                "highwater_changes_refused_total",
                "Changes that were refused, each time that they were sent",
            ),
            append_seconds: described_seconds(
                "highwater_append_seconds",
                "Time from handing changes to the store until they were durable",
            ),
            store_failures: described_counter(
                "highwater_store_failures_total",
                "Failures of the store, each of which sent everybody away until it was opened again",
            ),
            compaction: CompactionMetrics::new(),
        };
        // These two are there from the start, so that a rate can be seen from the first one.
        connections_ended(Ended::Closed.reason()).increment(0);
        connections_ended(Ended::Broken.reason()).increment(0);
        metrics
    }

    /// A connection ended otherwise than for a reason of ours.
    pub(crate) fn connection_ended(&self, how: Ended) {
        connections_ended(how.reason()).increment(1);
    }

    /// We closed a connection, for the reason with this label.
    pub(crate) fn connection_closed(&self, label: &'static str) {
        connections_ended(label).increment(1);
    }
}

impl Ended {
    fn reason(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unanswered => "unanswered",
            Self::Broken => "broken",
        }
    }
}

/// Looked up each time: there are many reasons, and ends are rare.
fn connections_ended(reason: &'static str) -> Counter {
    counter!(CONNECTIONS_ENDED, "reason" => reason)
}

fn described_counter(name: &'static str, help: &'static str) -> Counter {
    describe_counter!(name, Unit::Count, help);
    counter!(name)
}

fn described_bytes(name: &'static str, help: &'static str) -> Counter {
    describe_counter!(name, Unit::Bytes, help);
    counter!(name)
}

fn described_gauge(name: &'static str, help: &'static str) -> Gauge {
    describe_gauge!(name, Unit::Count, help);
    gauge!(name)
}

fn described_seconds(name: &'static str, help: &'static str) -> Histogram {
    describe_histogram!(name, Unit::Seconds, help);
    histogram!(name)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use highwater_core::CloseReason;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// The rows of the table about metrics, as the page must have them.
    fn rows() -> BTreeSet<String> {
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            metrics.append_seconds.record(1.0);
            metrics.compaction.seconds.record(1.0);
        });
        let text = recorder.handle().render();
        let named = |mark| {
            let lines = text.lines().filter_map(move |line| line.strip_prefix(mark));
            lines.map(|line| line.split_once(' ').unwrap()).collect::<BTreeMap<_, _>>()
        };
        let (help, kind) = (named("# HELP "), named("# TYPE "));
        assert_eq!(help.keys().collect::<Vec<_>>(), kind.keys().collect::<Vec<_>>(), "one is not described");
        help.iter().map(|(name, help)| format!("| `{name}` | {} | {help} |", kind[name])).collect()
    }

    #[test]
    fn the_page_in_docs_has_every_metric_and_no_other() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let Ok(page) = std::fs::read_to_string(page) else { return };
        let written = page.lines().filter(|line| line.starts_with("| `highwater_"));
        let (written, counted) = (written.map(str::to_owned).collect::<BTreeSet<_>>(), rows());
        assert_eq!(written, counted);
        let reasons = [CloseReason::TextFrame, CloseReason::Replaced, CloseReason::ShuttingDown];
        let labels = reasons.iter().map(CloseReason::label);
        let ended = [Ended::Closed, Ended::Unanswered, Ended::Broken].map(Ended::reason);
        for label in labels.chain(ended) {
            assert!(page.contains(&format!("`{label}`")), "{label}");
        }
    }
}
