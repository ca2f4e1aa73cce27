//! Random schedules of edits and accidents.

use std::sync::{Arc, Mutex};

use super::server::{FakeServer, Line};
use super::{Builder, builder, pass};
use crate::engine::Random;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// This client changes one of two documents.
    Edit(usize),
    /// Somebody else does.
    OtherEdit(usize),
    Wait(u64),
    SlowDisk(u64),
    Cut,
    Mend,
    Stop,
    Kill,
    Start,
    Expire,
    Renew,
    /// The server overlooks what it is sent.
    Lose,
    Heed,
}

pub(super) fn schedule(random: &mut Random, len_max: u64) -> Vec<Step> {
    (0..random.below(len_max + 1)).map(|_| step(random)).collect()
}

fn step(random: &mut Random) -> Step {
    let document = random.below(2) as usize;
    match random.below(18) {
        0..5 => Step::Edit(document),
        5..7 => Step::OtherEdit(document),
        7..9 => Step::Wait(random.below(30)),
        9..12 => Step::Wait(random.below(3000)),
        12 => Step::SlowDisk([20, 4000].map(|max| random.below(max))[random.below(2) as usize]),
        _ => {
            let ends = [Step::Cut, Step::Stop, Step::Kill, Step::Expire, Step::Lose];
            let begins = [Step::Mend, Step::Start, Step::Renew, Step::Heed];
            [&ends[..], &begins[..]].concat()[random.below(9) as usize]
        }
    }
}

/// Where things happen.
pub(super) struct Scene {
    pub(super) server: FakeServer,
    pub(super) line: Line,
    pub(super) issuer: Issuer,
}

impl Scene {
    pub(super) fn new() -> Self {
        let server = FakeServer::new();
        let line = server.line();
        let issuer = Issuer::new(&server);
        Self { server, line, issuer }
    }

    /// Makes it happen.
    pub(super) async fn play(&self, steps: &[Step], mut edit: impl FnMut(Step)) {
        for step in steps {
            match step {
                Step::Edit(_) | Step::OtherEdit(_) => edit(*step),
                Step::Wait(ms) => pass(*ms).await,
                Step::SlowDisk(ms) => self.server.lock().commit_ms = *ms,
                Step::Cut => self.line.cut(),
                Step::Mend => self.line.mend(),
                Step::Stop => self.server.stop(),
                Step::Kill => self.server.kill(),
                Step::Start => self.server.start(),
                Step::Expire => self.issuer.expire(&self.server),
                Step::Renew => self.issuer.renew(&self.server),
                Step::Lose => self.server.lock().loses = |_| true,
                Step::Heed => self.server.lock().loses = |_| false,
            }
        }
    }

    /// Everything works again.
    pub(super) fn repair(&self) {
        self.server.start();
        self.line.mend();
        self.issuer.renew(&self.server);
        let mut state = self.server.lock();
        state.commit_ms = 1;
        state.loses = |_| false;
    }
}

/// Hands out tokens, not always good ones.
#[derive(Clone)]
pub(super) struct Issuer {
    current: Arc<Mutex<String>>,
}

impl Issuer {
    pub(super) fn new(server: &FakeServer) -> Self {
        server.lock().token = Some("0".to_owned());
        Self { current: Arc::new(Mutex::new("0".to_owned())) }
    }

    pub(super) fn expire(&self, server: &FakeServer) {
        let number: u64 = server.lock().token.as_ref().unwrap().parse().unwrap();
        server.lock().token = Some((number + 1).to_string());
        server.close_all(4401, "expired");
    }

    pub(super) fn renew(&self, server: &FakeServer) {
        self.current.lock().unwrap().clone_from(server.lock().token.as_ref().unwrap());
    }

    /// A builder for clients that get their tokens here.
    pub(super) fn builder(&self) -> Builder {
        let current = self.current.clone();
        builder().token_from(move |_| {
            let token = current.lock().unwrap().clone();
            async { Ok::<_, String>(token) }
        })
    }
}
