//! Where the simulated server keeps its records, and what of it a power cut would leave.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_core::document::AppendId;
use highwater_core::{ChangeHash, Record, Snapshot};

use super::Rng;

/// What is read when the server starts again.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) changes: Vec<Bytes>,
    pub(crate) quarantined: Vec<(ChangeHash, String)>,
}

impl Stored {
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut stored = Self::default();
        for record in records {
            match record {
                Record::Change { bytes } => stored.changes.push(bytes.clone()),
                Record::Quarantine { hash, reason, .. } => stored.quarantined.push((*hash, reason.clone())),
                Record::Answer { .. } | Record::Tombstone => {}
            }
        }
        stored
    }

    /// How many changes were stored, those in the snapshot counted.
    pub(crate) fn records(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.info.records as usize) + self.changes.len()
    }
}

/// A disk for one document.
pub(crate) trait Disk {
    /// Starts an append.
    fn append(&mut self, id: AppendId, records: Vec<Record>);
    /// Ends the oldest append, for better or worse. `None` if there is none that could end now.
    fn finish(&mut self, rng: &mut Rng) -> Option<Result<AppendId, String>>;
    /// Starts to put a snapshot in the place of changes.
    fn put_snapshot(&mut self, snapshot: Snapshot);
    /// Ends that, for better or worse. `None` if it cannot end now.
    fn finish_snapshot(&mut self, rng: &mut Rng) -> Option<Result<(), String>>;
    /// Whether appends are under way.
    fn is_busy(&self) -> bool;
    /// Appends end from now on without delays and failures.
    fn calm_down(&mut self) {}
    /// What a power cut at this moment is sure to leave.
    fn durable(&self) -> Stored;
    /// The power is cut, or the store is opened again after a failure. Appends under way may be there afterwards, in order, or not.
    fn restart(&mut self, rng: &mut Rng) -> Stored;
}

/// A disk that works, with appends that end when the schedule says so.
#[derive(Default)]
pub(crate) struct SlowDisk {
    durable: Vec<Record>,
    snapshot: Option<Snapshot>,
    pending: VecDeque<(AppendId, Vec<Record>)>,
    pending_snapshot: Option<Snapshot>,
}

impl Disk for SlowDisk {
    fn append(&mut self, id: AppendId, records: Vec<Record>) {
        self.pending.push_back((id, records));
    }

    fn finish(&mut self, _: &mut Rng) -> Option<Result<AppendId, String>> {
        let (id, records) = self.pending.pop_front()?;
        self.durable.extend(records);
        Some(Ok(id))
    }

    fn put_snapshot(&mut self, snapshot: Snapshot) {
        self.pending_snapshot = Some(snapshot);
    }

    fn finish_snapshot(&mut self, _: &mut Rng) -> Option<Result<(), String>> {
        let snapshot = self.pending_snapshot.take()?;
        let mut gone = snapshot.info.records;
        gone -= self.snapshot.as_ref().map_or(0, |before| before.info.records);
        self.durable.retain(|record| {
            let goes = gone > 0 && matches!(record, Record::Change { .. });
            gone -= u64::from(goes);
            !goes
        });
        assert_eq!(gone, 0, "a snapshot stands for what is there");
        self.snapshot = Some(snapshot);
        Some(Ok(()))
    }

    fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    fn durable(&self) -> Stored {
        Stored { snapshot: self.snapshot.clone(), ..Stored::of(&self.durable) }
    }

    fn restart(&mut self, rng: &mut Rng) -> Stored {
        self.pending_snapshot = None;
        let keep = rng.below(self.pending.len() + 1);
        self.durable.extend(self.pending.drain(..).take(keep).flat_map(|(_, records)| records));
        self.durable()
    }
}
