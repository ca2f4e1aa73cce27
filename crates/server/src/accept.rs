//! From the listening socket to the first request. Anybody can open a socket without saying a word, so what a socket may take before it
//! has become a WebSocket is bounded: how many there are, how long each lives, and what it may send.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response, StatusCode};
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::activity::{Activity, CountingStream};
use crate::hub::{Hub, draining};
use crate::limits::{ACCEPT_RETRY_AFTER, CLOSE_TIMEOUT, RATE_MIN, REQUEST_HEAD_BYTES_MAX, STREAM_TIMEOUT};

struct Door {
    hub: Arc<Hub>,
    router: Router,
    sockets: Arc<Semaphore>,
    /// Those who have not asked for anything wait here, in the order in which they came. One that is woken goes.
    silent: Notify,
}

/// Accepts sockets and serves what they ask for, until the server drains.
pub(crate) async fn run(hub: Arc<Hub>, listener: TcpListener, router: Router) {
    let config = hub.config();
    let sockets_max = config.connections_max.saturating_add(config.http_sockets_max);
    let sockets = Arc::new(Semaphore::new(sockets_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut phase = hub.phase();
    let door = Arc::new(Door { hub, router, sockets, silent: Notify::new() });
    loop {
        let stream = tokio::select! {
            () = draining(&mut phase) => return,
            stream = door.next(&listener) => stream,
        };
        tokio::spawn(door.clone().serve(stream));
    }
}

impl Door {
    /// The next socket, once there is room for it.
    async fn next(&self, listener: &TcpListener) -> CountingStream {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => self.after_failed_accept(&error).await,
            }
        };
        // Acknowledgements are small, and waiting to fill a packet would delay each.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        self.admit(stream).await
    }

    /// Waits until less than the maximum is open. Whoever has been silent longest makes room, so that silence cannot keep those out
    /// who have something to ask, such as whether the server is well.
    async fn admit(&self, stream: TcpStream) -> CountingStream {
        if let Ok(place) = self.sockets.clone().try_acquire_owned() {
            return CountingStream::new(stream, Some(place), self.hub.metrics().clone());
        }
        self.silent.notify_one();
        // The semaphore is never closed; without a place there would only be one more.
        let place: Option<OwnedSemaphorePermit> = self.sockets.clone().acquire_owned().await.ok();
        // If nobody was silent, the wish is still there. It must not hit one who comes later.
        let _ = self.silent.notified().now_or_never();
        CountingStream::new(stream, place, self.hub.metrics().clone())
    }

    /// A client that is gone again is no reason to wait. Too many open files, or too little memory, pass.
    async fn after_failed_accept(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            self.hub.metrics().accept_failures.increment(1);
            tracing::error!(%error, retry_in = ?ACCEPT_RETRY_AFTER, "cannot accept connections");
            sleep(ACCEPT_RETRY_AFTER).await;
        }
    }

    /// Serves one request, or hands the socket over to a WebSocket's task.
    async fn serve(self: Arc<Self>, stream: CountingStream) {
        let (asking, asked) = oneshot::channel();
        let asking = Cell::new(Some(asking));
        let activity = stream.activity();
        let shown = activity.clone();
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(asking) = asking.take() {
                // Fails only if the socket is being closed.
                let _ = asking.send(());
            }
            request.extensions_mut().insert(shown.clone());
            router.call(request).map(|answered| answered.map(last_answer))
        });
        let http = http1::Builder::new()
            .max_buf_size(REQUEST_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut http = pin!(http.with_upgrades());
        let mut phase = self.hub.phase();
        let is_given_up = tokio::select! {
            // In this order: who has just asked is served.
            biased;
            _ = &mut http => return,
            _ = asked => false,
            () = sleep(self.hub.config().request_timeout) => true,
            () = self.silent.notified() => true,
            () = draining(&mut phase) => return,
        };
        if is_given_up {
            return self.hub.metrics().sockets_given_up.increment(1);
        }
        let _under_way = self.hub.under_way();
        let mut patience = Patience::new(activity, self.hub.config().answer_timeout);
        let mut is_draining = false;
        loop {
            tokio::select! {
                // What is wrong with a socket is of interest to nobody here.
                _ = &mut http => return,
                () = sleep_until(patience.until) => {
                    if !patience.lasts() {
                        return self.hub.metrics().sockets_given_up.increment(1);
                    }
                }
                () = draining(&mut phase), if !is_draining => {
                    is_draining = true;
                    if patience.activity.is_stream() {
                        // It ends by itself, unless its reader does not read.
                        let _ = timeout(CLOSE_TIMEOUT, &mut http).await;
                        return;
                    }
                }
            }
        }
    }
}

/// How long a socket is waited for that has asked for something. What flows earns it time, so that a large body on a slow path arrives, and one of whom nothing comes does not stay.
struct Patience {
    activity: Activity,
    timeout: Duration,
    asked: Instant,
    /// What had passed when it asked.
    before: u64,
    /// What had been written of a stream when that was last looked at.
    written: u64,
    until: Instant,
}

impl Patience {
    fn new(activity: Activity, timeout: Duration) -> Self {
        let asked = Instant::now();
        let before = activity.read() + activity.written();
        let written = activity.written();
        Self { activity, timeout, asked, before, written, until: asked + timeout }
    }

    /// Whether it goes on when the time is over, and until when.
    fn lasts(&mut self) -> bool {
        let now = Instant::now();
        if self.activity.is_stream() {
            // It has no end, but says something now and then.
            let before = std::mem::replace(&mut self.written, self.activity.written());
            self.until = now + STREAM_TIMEOUT;
            return self.written != before;
        }
        let passed = self.activity.read() + self.activity.written() - self.before;
        let earned = Duration::from_millis(passed.saturating_mul(1_000) / RATE_MIN);
        self.until = self.asked + self.timeout + earned;
        self.until > now
    }
}

/// One request per socket: then nothing is idle between two, and nobody who looks in keeps a place.
fn last_answer(mut answer: Response<Body>) -> Response<Body> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_flows_earns_time() {
        let activity = Activity::default();
        activity.pass(500, 0);
        let mut patience = Patience::new(activity.clone(), Duration::from_secs(30));
        advance(Duration::from_secs(29)).await;
        activity.pass(RATE_MIN, 2 * RATE_MIN);
        advance(Duration::from_secs(1)).await;
        assert!(patience.lasts());
        assert_eq!(patience.until - Instant::now(), Duration::from_secs(3));
        advance(Duration::from_secs(3)).await;
        assert!(!patience.lasts());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_lasts_as_long_as_something_of_it_is_read() {
        let activity = Activity::default();
        activity.be_stream();
        let mut patience = Patience::new(activity.clone(), Duration::from_secs(30));
        for _ in 0..100 {
            activity.pass(0, 1);
            assert!(patience.lasts());
            advance(STREAM_TIMEOUT).await;
        }
        activity.pass(10, 0);
        assert!(!patience.lasts());
    }
}
