//! What happens is counted.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use highwater_core::wire::Body;
use highwater_server::Config;
use highwater_storage::MemoryStore;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio_tungstenite::tungstenite::Message as Frame;

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().set_buckets(&[0.1, 1.0]).unwrap().build_recorder()
}

/// A server that counts with `recorder`, which must be this thread's.
async fn server(recorder: &PrometheusRecorder, config: Config) -> TestServer {
    let handle = recorder.handle();
    let open_store = always(Arc::new(MemoryStore::new()));
    TestServer::start_with(config, open_store, |server| {
        server.with_metrics(Arc::new(move || handle.render()))
    })
    .await
}

/// The value in the line that begins with `name`, which may have labels.
async fn value(server: &TestServer, name: &str) -> f64 {
    let page = server.get("/metrics").await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().unwrap()
}

/// Waits until a metric has a value: the last of a connection's tasks may still be on its way out.
async fn reaches(server: &TestServer, name: &str, expected: f64) {
    patiently(async {
        while value(server, name).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn work_is_counted() {
    let recorder = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let server = server(&recorder, config()).await;
    let mut client = Client::open(&server, "a", document(1)).await;
    for n in 0..3 {
        client.edit("n", n);
        client.push().await;
        client.acknowledged().await;
    }
    assert_eq!(value(&server, "highwater_connections").await, 1.0);
    assert_eq!(value(&server, "highwater_documents_open").await, 1.0);
    assert_eq!(value(&server, "highwater_changes_received_total").await, 3.0);
    assert_eq!(value(&server, "highwater_append_seconds_count").await, 3.0);
    assert_eq!(value(&server, "highwater_frames_ignored_total").await, 0.0);
    client.socket.send(message("somebody else", Body::Leave)).await;
    reaches(&server, "highwater_frames_ignored_total", 1.0).await;
    assert!(value(&server, "highwater_frames_received_total").await >= 5.0);
    assert!(value(&server, "highwater_received_bytes_total").await > 500.0);
    assert!(value(&server, "highwater_sent_bytes_total").await > 500.0);
    // The WebSocket, and the one that asks.
    reaches(&server, "highwater_sockets", 2.0).await;
}

#[tokio::test]
async fn ends_are_counted_by_reason() {
    let recorder = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let server = server(&recorder, config()).await;
    let mut closes = server.join("closes").await;
    closes.stream.close(None).await.unwrap();
    closes.closed().await;
    reaches(&server, "highwater_connections_ended_total{reason=\"closed\"}", 1.0).await;
    let mut wrong = server.join("wrong").await;
    futures::SinkExt::send(&mut wrong.stream, Frame::text("hello")).await.unwrap();
    wrong.closed().await;
    drop(wrong);
    reaches(&server, "highwater_connections_ended_total{reason=\"text_frame\"}", 1.0).await;
    drop(server.join("vanishes").await);
    reaches(&server, "highwater_connections_ended_total{reason=\"broken\"}", 1.0).await;
    assert_eq!(value(&server, "highwater_connections_opened_total").await, 3.0);
    reaches(&server, "highwater_connections", 0.0).await;
    reaches(&server, "highwater_sockets", 1.0).await;
}

#[tokio::test]
async fn sockets_that_ask_for_nothing_are_counted() {
    let recorder = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let config = Config { request_timeout: Duration::from_millis(50), ..config() };
    let server = server(&recorder, config).await;
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    reaches(&server, "highwater_sockets_given_up_total", 1.0).await;
}

#[tokio::test]
async fn without_a_recorder_there_is_no_page() {
    let server = TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await;
    assert!(server.get("/metrics").await.starts_with("HTTP/1.1 404"));
}
