//! The simulated server's disk: the faulty store.

use std::collections::VecDeque;

use futures::FutureExt;
use highwater_core::document::AppendId;
use highwater_core::{DocumentId, Record, Snapshot};
use highwater_storage::{FaultyStore, Pace, Store, StoreFuture, StoredDocument};

use crate::network::Rng;
use crate::network::disk::{Disk, Stored};

pub(crate) struct StoreDisk {
    document: DocumentId,
    store: FaultyStore,
    /// Answers of the store that were not looked at yet, oldest first.
    appends: VecDeque<(AppendId, StoreFuture<()>)>,
    snapshot: Option<StoreFuture<()>>,
    is_calm: bool,
}

impl StoreDisk {
    /// An empty store; the seed chooses how fast it is.
    pub(crate) fn new(document: DocumentId, seed: u64) -> Self {
        let pace = match seed % 4 {
            0 => Pace::Immediate,
            1 => Pace::Ticks(3),
            _ => Pace::Manual,
        };
        Self {
            document,
            store: FaultyStore::new(pace),
            appends: VecDeque::new(),
            snapshot: None,
            is_calm: false,
        }
    }

    /// Time passes for the store, and something may go wrong with it.
    fn go_on(&mut self, rng: &mut Rng) {
        if !self.is_calm {
            match rng.below(40) {
                0 => self.store.fail_append_after(rng.below(3) as u64),
                1 => self.store.stall(),
                2..6 => self.store.resume(),
                _ => {}
            }
        }
        self.store.tick();
        // A manual pace; the others have no use for it, and are hurried now and then.
        if self.is_calm || rng.percent(70) {
            self.store.step();
        }
    }
}

impl Disk for StoreDisk {
    fn append(&mut self, id: AppendId, records: Vec<Record>) {
        self.appends.push_back((id, self.store.append(self.document, records)));
    }

    fn finish(&mut self, rng: &mut Rng) -> Option<Result<AppendId, String>> {
        if self.appends.is_empty() {
            return None;
        }
        self.go_on(rng);
        let (id, answer) = self.appends.front_mut()?;
        let (id, answer) = (*id, answer.now_or_never()?);
        self.appends.pop_front();
        Some(answer.map(|()| id).map_err(|error| error.to_string()))
    }

    fn put_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(self.store.put_snapshot(self.document, snapshot));
    }

    fn finish_snapshot(&mut self, rng: &mut Rng) -> Option<Result<(), String>> {
        let mut snapshot = self.snapshot.take()?;
        self.go_on(rng);
        let answer = (&mut snapshot).now_or_never();
        if answer.is_none() {
            self.snapshot = Some(snapshot);
        }
        answer.map(|answer| answer.map_err(|error| error.to_string()))
    }

    fn is_busy(&self) -> bool {
        !self.appends.is_empty()
    }

    fn calm_down(&mut self) {
        self.is_calm = true;
        self.store.fail_append_after(u64::MAX);
        self.store.resume();
    }

    fn durable(&self) -> Stored {
        self.as_read(self.store.durable(self.document))
    }

    fn restart(&mut self, rng: &mut Rng) -> Stored {
        self.appends.clear();
        self.snapshot = None;
        self.store = self.store.power_cut(rng.next());
        let read = self.store.load(self.document).now_or_never().expect("nothing holds it up");
        self.as_read(read.expect("a store after a power cut reads"))
    }
}

impl StoreDisk {
    fn as_read(&self, stored: Option<StoredDocument>) -> Stored {
        let stored = stored.unwrap_or_default();
        let quarantined = stored.quarantined.into_iter().map(|change| (change.hash, change.reason)).collect();
        let chunk = self.store.durable_snapshot(self.document);
        let snapshot = stored.snapshot.zip(chunk).map(|(info, document)| Snapshot { info, document });
        Stored { snapshot, changes: stored.changes, quarantined }
    }
}
