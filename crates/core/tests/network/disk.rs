//! Where the simulated server keeps its records, and what of it a power cut would leave.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_core::document::AppendId;
use highwater_core::{ChangeHash, Record};

use super::Rng;

/// What is read when the server starts again.
#[derive(Default)]
pub(crate) struct Stored {
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
            }
        }
        stored
    }
}

/// A disk for one document.
pub(crate) trait Disk {
    /// Starts an append.
    fn append(&mut self, id: AppendId, records: Vec<Record>);
    /// Ends the oldest append, for better or worse. `None` if there is none that could end now.
    fn finish(&mut self, rng: &mut Rng) -> Option<Result<AppendId, String>>;
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
    pending: VecDeque<(AppendId, Vec<Record>)>,
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

    fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    fn durable(&self) -> Stored {
        Stored::of(&self.durable)
    }

    fn restart(&mut self, rng: &mut Rng) -> Stored {
        let keep = rng.below(self.pending.len() + 1);
        self.durable.extend(self.pending.drain(..).take(keep).flat_map(|(_, records)| records));
        self.durable()
    }
}
