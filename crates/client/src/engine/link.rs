//! One connection that is made anew whenever it ends, until that is pointless.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::Backoff;
use super::close::{ABNORMAL, AfterClose, after_close};
use super::{Millis, Random};
use crate::error::Stopped;
use crate::limits::{HANGING_AFTER, HASTE_AFTER, SUCCESS_AFTER, TEXT_BYTES_MAX};

/// How a connection is made and watched.
#[derive(Debug, Clone)]
pub(crate) struct LinkOptions {
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// After so much silence the server is asked for a sign of life.
    pub(crate) heartbeat_interval: Duration,
    /// A server that stays silent for so long after that is given up.
    pub(crate) heartbeat_timeout: Duration,
    /// A connection that is not ready after so long is given up.
    pub(crate) connect_timeout: Duration,
    /// Whether a refused token can be replaced.
    pub(crate) can_refresh_token: bool,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(10),
            heartbeat_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(20),
            can_refresh_token: false,
        }
    }
}

/// What the driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Let go of what there is and connect; with a new token if the server refused the last one.
    Connect { token_expired: bool },
    /// Send a ping.
    Ping,
    /// Let go of the socket.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    Open,
    Waiting,
    Stopped,
}

#[derive(Debug, Clone, Copy)]
enum Due {
    GiveUp,
    Probe,
    Connect,
}

/// The connection's state.
#[derive(Debug)]
pub(crate) struct Link {
    options: LinkOptions,
    random: Random,
    backoff: Backoff,
    state: State,
    timer: Option<(Millis, Due)>,
    attempted_at: Millis,
    ready_at: Option<Millis>,
    is_probing: bool,
    token_expired: bool,
    server_said: String,
    stopped: Option<Stopped>,
    orders: VecDeque<Order>,
}

impl Link {
    pub(crate) fn new(options: LinkOptions, random: Random) -> Self {
        let backoff = Backoff::new(millis(options.backoff_min), millis(options.backoff_max));
        Self {
            options,
            random,
            backoff,
            state: State::Idle,
            timer: None,
            attempted_at: 0,
            ready_at: None,
            is_probing: false,
            token_expired: false,
            server_said: String::new(),
            stopped: None,
            orders: VecDeque::new(),
        }
    }

    /// Messages flow.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// A socket is being opened, or is open and the server has not answered yet.
    pub(crate) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// Why there will be no other connection.
    pub(crate) fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// What to do next.
    pub(crate) fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When to call [`timeout`](Self::timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.timer.map(|(at, _)| at)
    }

    /// Somebody waits: makes no long pause before it connects, and asks for a sign of life if there is a connection.
    pub(crate) fn hurry(&mut self, now: Millis) {
        match self.state {
            State::Waiting => {
                let soon = self.attempted_at + millis(HASTE_AFTER);
                self.timer = self.timer.map(|(at, due)| (at.min(soon), due));
                self.timeout(now);
            }
            // Asked again and again, a dead server would be waited for again and again.
            State::Open if !self.is_probing => self.probe(now),
            State::Idle | State::Stopped | State::Connecting | State::Open => {}
        }
    }

    /// The network may be back, or another one: as [`hurry`](Self::hurry), also after a stop, and an attempt from before is not waited for.
    pub(crate) fn wake(&mut self, now: Millis) {
        let is_hanging = now.saturating_sub(self.attempted_at) > millis(HANGING_AFTER);
        match self.state {
            State::Idle | State::Stopped => {
                self.backoff.reset();
                self.connect(now);
            }
            State::Connecting if is_hanging => self.connect(now),
            State::Waiting => self.connect(now),
            State::Connecting | State::Open => self.hurry(now),
        }
    }

    /// The handshake is done.
    pub(crate) fn ready(&mut self, now: Millis) {
        if self.state != State::Connecting {
            return;
        }
        self.ready_at = Some(now);
        self.token_expired = false;
        self.state = State::Open;
        self.expect_silence(now);
    }

    /// A sign of life. Before the handshake the clock for that runs, and nothing stops it.
    pub(crate) fn alive(&mut self, now: Millis) {
        if self.state == State::Open {
            self.expect_silence(now);
        }
    }

    /// What the server says about a close that it is about to make.
    pub(crate) fn explain(&mut self, message: &str) {
        self.server_said = shortened(message);
    }

    /// The socket was closed, or could not be opened.
    pub(crate) fn closed(&mut self, now: Millis, code: u16, reason: &str) {
        if !matches!(self.state, State::Connecting | State::Open) {
            return;
        }
        match after_close(code, reason) {
            AfterClose::Stop(advice) => self.stop(code, advice, reason),
            AfterClose::RefreshToken if !self.options.can_refresh_token => {
                let advice =
                    "the token is not valid any more; give the client a function that gets a new one";
                self.stop(code, advice, reason);
            }
            AfterClose::RefreshToken => {
                self.token_expired = true;
                self.retry(now, None);
            }
            AfterClose::Retry(delay) => self.retry(now, delay),
        }
    }

    /// Drops the socket and tries again after a pause.
    pub(crate) fn give_up(&mut self, now: Millis) {
        self.closed(now, ABNORMAL, "");
    }

    /// Drops the socket and connects again at once.
    pub(crate) fn renew(&mut self, now: Millis) {
        self.connect(now);
    }

    /// Ends it; nothing is tried any more.
    pub(crate) fn end(&mut self) {
        self.state = State::Idle;
        self.timer = None;
    }

    /// The time has come.
    pub(crate) fn timeout(&mut self, now: Millis) {
        let Some((_, due)) = self.timer.filter(|(at, _)| *at <= now) else { return };
        self.timer = None;
        match due {
            Due::GiveUp => self.give_up(now),
            Due::Probe => self.probe(now),
            Due::Connect => self.connect(now),
        }
    }

    fn connect(&mut self, now: Millis) {
        self.note_success(now);
        self.server_said.clear();
        self.stopped = None;
        self.attempted_at = now;
        self.state = State::Connecting;
        self.timer = Some((now + millis(self.options.connect_timeout), Due::GiveUp));
        self.orders.clear();
        self.orders.push_back(Order::Connect { token_expired: self.token_expired });
    }

    fn probe(&mut self, now: Millis) {
        self.is_probing = true;
        self.orders.push_back(Order::Ping);
        self.timer = Some((now + millis(self.options.heartbeat_timeout), Due::GiveUp));
    }

    fn expect_silence(&mut self, now: Millis) {
        self.is_probing = false;
        self.timer = Some((now + millis(self.options.heartbeat_interval), Due::Probe));
    }

    fn retry(&mut self, now: Millis, delay: Option<Millis>) {
        self.note_success(now);
        let delay = delay.unwrap_or_else(|| self.backoff.next(&mut self.random));
        self.timer = Some((now + delay, Due::Connect));
        self.state = State::Waiting;
        self.orders.clear();
        self.orders.push_back(Order::Drop);
    }

    fn stop(&mut self, code: u16, advice: &'static str, reason: &str) {
        let said = if self.server_said.is_empty() { shortened(reason) } else { self.server_said.clone() };
        self.stopped = Some(Stopped { code, advice, said });
        self.ready_at = None;
        self.timer = None;
        self.state = State::Stopped;
        self.orders.clear();
        self.orders.push_back(Order::Drop);
    }

    /// A connection that ends at once is no success: a server that is too busy may let clients in and close them again, and they must come back ever more slowly.
    fn note_success(&mut self, now: Millis) {
        let ready_at = self.ready_at.take();
        if ready_at.is_some_and(|at| now.saturating_sub(at) >= millis(SUCCESS_AFTER)) {
            self.backoff.reset();
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_BYTES_MAX / 4).collect()
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(can_refresh_token: bool) -> Link {
        Link::new(LinkOptions { can_refresh_token, ..LinkOptions::default() }, Random::new(7))
    }

    fn opened(at: Millis) -> Link {
        let mut link = link(false);
        link.wake(at);
        assert_eq!(link.poll_order(), Some(Order::Connect { token_expired: false }));
        link.ready(at);
        link
    }

    #[test]
    fn one_that_is_not_ready_in_time_is_given_up_whatever_the_server_pings() {
        let mut link = link(false);
        link.wake(0);
        link.poll_order();
        link.alive(19_000);
        assert_eq!(link.poll_timeout(), Some(20_000));
        link.timeout(20_000);
        assert_eq!(link.poll_order(), Some(Order::Drop));
        assert!(link.poll_timeout().unwrap() <= 20_500);
    }

    #[test]
    fn one_stays_while_the_server_gives_signs_of_life_and_is_given_up_when_it_stops() {
        let mut link = opened(0);
        for at in [9_000, 18_000, 27_000] {
            link.alive(at);
            link.timeout(at);
        }
        assert_eq!(link.poll_order(), None);
        link.timeout(37_000);
        assert_eq!(link.poll_order(), Some(Order::Ping));
        assert!(link.is_open());
        link.timeout(47_000);
        assert_eq!(link.poll_order(), Some(Order::Drop));
        assert!(!link.is_open());
    }

    #[test]
    fn one_that_is_dead_is_given_up_in_time_also_if_it_is_asked_for_signs_of_life_again_and_again() {
        let mut link = opened(0);
        for at in (0..10_000).step_by(1000) {
            link.hurry(at);
            link.wake(at);
            link.timeout(at);
        }
        link.timeout(10_000);
        assert!(!link.is_open());
    }

    #[test]
    fn an_attempt_from_before_the_network_was_back_is_made_anew_but_not_because_somebody_waits() {
        let mut link = link(false);
        link.wake(0);
        assert!(link.poll_order().is_some());
        link.wake(1000);
        link.hurry(10_000);
        assert_eq!(link.poll_order(), None);
        link.wake(10_000);
        assert_eq!(link.poll_order(), Some(Order::Connect { token_expired: false }));
        assert_eq!(link.poll_timeout(), Some(30_000));
    }

    #[test]
    fn whoever_waits_shortens_the_pause_but_many_who_wait_are_not_as_many_attempts() {
        let mut link = link(false);
        link.wake(0);
        let mut attempts = 0;
        for now in 0..10_000 {
            link.hurry(now);
            link.timeout(now);
            if matches!(std::iter::from_fn(|| link.poll_order()).last(), Some(Order::Connect { .. })) {
                attempts += 1;
                link.closed(now, ABNORMAL, "");
            }
        }
        assert!((20..40).contains(&attempts), "{attempts}");
    }

    #[test]
    fn it_comes_back_when_a_restarting_server_said() {
        let mut link = opened(0);
        link.closed(100, 1012, "restarting; retry in 200 ms");
        assert_eq!(link.poll_order(), Some(Order::Drop));
        assert_eq!(link.poll_timeout(), Some(300));
        link.timeout(300);
        assert_eq!(link.poll_order(), Some(Order::Connect { token_expired: false }));
    }

    #[test]
    fn it_comes_back_ever_more_slowly_to_a_server_that_lets_it_in_and_closes_again() {
        let mut link = opened(0);
        let mut now = 0;
        for _ in 0..20 {
            link.closed(now, 1013, "");
            now = link.poll_timeout().unwrap();
            link.timeout(now);
            link.ready(now + 1);
        }
        assert!(now > 30_000, "{now}");
        link.closed(now + 6_000, 1013, "");
        assert!(link.poll_timeout().unwrap() <= now + 6_500, "after a success the pause is a short one");
    }

    #[test]
    fn final_codes_stop_it_with_the_servers_words_until_it_is_woken() {
        let mut link = opened(0);
        link.explain("unknown message");
        link.closed(1, 4400, "bad");
        let stopped = link.stopped().unwrap();
        assert_eq!((stopped.code, stopped.said.as_str()), (4400, "unknown message"));
        assert_eq!(link.poll_timeout(), None);
        link.poll_order();
        link.wake(2);
        assert!(link.stopped().is_none());
        assert_eq!(link.poll_order(), Some(Order::Connect { token_expired: false }));
    }

    #[test]
    fn an_expired_token_is_replaced_or_stops_it() {
        let mut fixed = opened(0);
        fixed.closed(1, 4401, "expired");
        assert!(fixed.stopped().is_some());

        let mut link = link(true);
        link.wake(0);
        link.poll_order();
        link.closed(1, 4401, "expired");
        assert_eq!(link.poll_order(), Some(Order::Drop));
        link.timeout(link.poll_timeout().unwrap());
        assert_eq!(link.poll_order(), Some(Order::Connect { token_expired: true }));
    }

    #[test]
    fn it_does_nothing_any_more_once_it_is_ended() {
        let mut link = opened(0);
        link.end();
        link.closed(5, ABNORMAL, "");
        assert_eq!((link.poll_order(), link.poll_timeout()), (None, None));
    }
}
