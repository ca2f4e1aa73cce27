//! What `GET /metrics` shows.

use std::time::Duration;

use anyhow::Result;
use highwater_server::RenderMetrics;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Bounds of the histograms' buckets, in seconds: from a fast disk's sync to a disk that is stuck.
const BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// How often measured times are sorted into buckets. Until then each takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// From now on everything is counted. Needs a runtime, for the upkeep.
pub(crate) fn install() -> Result<RenderMetrics> {
    let handle = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    tokio::spawn(keep_up(handle.clone()));
    Ok(std::sync::Arc::new(move || handle.render()))
}

async fn keep_up(handle: PrometheusHandle) {
    let mut due = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        due.tick().await;
        handle.run_upkeep();
    }
}
