//! What moves the machine: a task per client.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::{ABNORMAL, Incoming, Machine, Millis, Order, Shared};
use crate::limits::{GOODBYE_MAX, INLINE_BYTES_MAX};
use crate::line::{Closed, Dial, Event, Line, Out};
use crate::token::{Token, TokenRequest};

/// What a driver needs.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) machine: Machine,
    pub(crate) url: String,
    pub(crate) token: Token,
    pub(crate) dial: Arc<dyn Dial>,
}

/// A socket that is being opened.
type Dialing = BoxFuture<'static, Result<Line, Closed>>;

enum Happened {
    Timeout,
    Event(Option<Event>),
    Dialed(Result<Line, Closed>),
    Writable,
    Wish,
}

impl Driver {
    /// Runs until the client is closed.
    pub(crate) async fn run(mut self) {
        let start = Instant::now();
        let mut line: Option<Line> = None;
        let mut dialing: Option<Dialing> = None;
        loop {
            let now = millis_since(start);
            self.machine.handle_wishes(now);
            if self.machine.is_over() {
                break;
            }
            while let Some(order) = self.machine.poll_order() {
                self.carry_out(order, &mut line, &mut dialing);
            }
            let has_frames = self.machine.has_frames(now);
            let deadline = self.machine.poll_timeout(now);
            let outgoing = line.as_ref().map(|line| line.outgoing.clone()).filter(|_| has_frames);
            let happened = tokio::select! {
                biased;
                () = until(start, deadline) => Happened::Timeout,
                event = next(&mut line) => Happened::Event(event),
                dialed = finish(&mut dialing) => Happened::Dialed(dialed),
                () = writable(outgoing.as_ref()) => Happened::Writable,
                () = self.shared.driver.notified() => Happened::Wish,
            };
            let now = millis_since(start);
            match happened {
                Happened::Timeout => self.machine.handle_timeout(now),
                Happened::Event(event) => self.handle_event(now, event, &mut line, start).await,
                Happened::Dialed(dialed) => {
                    dialing = None;
                    match dialed {
                        Ok(opened) => {
                            line = Some(opened);
                            self.machine.handle_open();
                        }
                        Err(Closed { code, reason }) => self.machine.handle_closed(now, code, &reason),
                    }
                }
                Happened::Writable => self.write(now, &line),
                Happened::Wish => {}
            }
        }
        self.machine.end();
        say_goodbye(line).await;
    }

    fn carry_out(&self, order: Order, line: &mut Option<Line>, dialing: &mut Option<Dialing>) {
        match order {
            Order::Connect { token_expired } => {
                *line = None;
                *dialing = Some(self.dial(token_expired));
            }
            Order::Drop => {
                *line = None;
                *dialing = None;
            }
            Order::Ping => {
                if let Some(line) = line {
                    // If something is being written already, that will do, or nothing will.
                    let _ = line.outgoing.try_send(Out::Ping);
                }
            }
        }
    }

    fn dial(&self, expired: bool) -> Dialing {
        let (url, token, dial) = (self.url.clone(), self.token.clone(), self.dial.clone());
        Box::pin(async move {
            // The application's own function may panic. That is an attempt that failed, not the end of all.
            let asked = AssertUnwindSafe(token.url(&url, TokenRequest { expired })).catch_unwind().await;
            let failed = match asked {
                Ok(Ok(url)) => return dial.dial(url).await,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the function that gets it panicked".to_owned(),
            };
            tracing::warn!(error = failed, "cannot get a token, will try again");
            Err(Closed { code: ABNORMAL, reason: failed })
        })
    }

    async fn handle_event(
        &mut self,
        now: Millis,
        event: Option<Event>,
        line: &mut Option<Line>,
        start: Instant,
    ) {
        match event {
            Some(Event::Frame(frame)) => {
                if let Some(incoming) = self.machine.handle_frame(now, &frame) {
                    self.take_in(incoming, start).await;
                }
            }
            Some(Event::Alive) => self.machine.handle_alive(now),
            Some(Event::Closed(Closed { code, reason })) => {
                *line = None;
                self.machine.handle_closed(now, code, &reason);
            }
            None => {
                *line = None;
                self.machine.handle_closed(now, ABNORMAL, "");
            }
        }
    }

    async fn take_in(&mut self, incoming: Incoming, start: Instant) {
        let (shared, at) = (self.shared.clone(), unix_millis());
        let taken_in = if incoming.data.len() <= INLINE_BYTES_MAX {
            incoming.take_in(&shared, at)
        } else {
            let taken_in = tokio::task::spawn_blocking(move || incoming.take_in(&shared, at)).await;
            taken_in.unwrap_or_else(|error| Err(error.to_string()))
        };
        let now = millis_since(start);
        match taken_in {
            Ok(document) => self.machine.handle_taken_in(now, document),
            Err(why) => self.machine.handle_unreadable(now, &why),
        }
    }

    fn write(&mut self, now: Millis, line: &Option<Line>) {
        let Some(line) = line else { return };
        // Only this task writes, so there is room still. If the socket has ended, that is found out by reading.
        if let Ok(permit) = line.outgoing.try_reserve()
            && let Some(frame) = self.machine.poll_frame(now)
        {
            permit.send(Out::Frame(frame));
        }
    }
}

/// Milliseconds since 1970, by the system's clock.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn millis_since(start: Instant) -> Millis {
    Millis::try_from(start.elapsed().as_millis()).unwrap_or(Millis::MAX)
}

async fn until(start: Instant, deadline: Option<Millis>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(start + Duration::from_millis(deadline)).await,
        None => std::future::pending().await,
    }
}

async fn next(line: &mut Option<Line>) -> Option<Event> {
    match line {
        Some(line) => line.incoming.recv().await,
        None => std::future::pending().await,
    }
}

async fn finish(dialing: &mut Option<Dialing>) -> Result<Line, Closed> {
    match dialing {
        Some(dialing) => dialing.await,
        None => std::future::pending().await,
    }
}

/// Resolves when a frame can be handed over. Never for a socket that has ended.
async fn writable(outgoing: Option<&mpsc::Sender<Out>>) {
    let has_room = match outgoing {
        Some(outgoing) => outgoing.reserve().await.is_ok(),
        None => false,
    };
    if !has_room {
        std::future::pending().await
    }
}

/// Closes the socket after what was handed over before; the server takes its time in vain.
async fn say_goodbye(line: Option<Line>) {
    let Some(mut line) = line else { return };
    let goodbye = async {
        if line.outgoing.send(Out::Close).await.is_ok() {
            while let Some(event) = line.incoming.recv().await {
                if matches!(event, Event::Closed(_)) {
                    break;
                }
            }
        }
    };
    // All is said and acknowledged; nothing depends on a polite end.
    let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
}
