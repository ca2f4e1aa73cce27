//! The server of the simulation: a document engine, a disk, and the checks on everything that is said.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use automerge::AutoCommit;
use bytes::Bytes;
use highwater_core::change::{self, Change};
use highwater_core::document::{Compacted, ConnectionId, Document, Effect, Outgoing, Restoring, UploadId};
use highwater_core::snapshot::{CompactError, Compactable, compact};
use highwater_core::sync::{BloomFilter, Message};
use highwater_core::{ChangeHash, DocumentId, Materialised, Record, Snapshot, SnapshotIndex, SnapshotInfo};

use super::Rng;
use super::disk::{Disk, Stored};
use super::peer::Frame;

pub(crate) const DOCUMENT: DocumentId = DocumentId::from_bytes([7; 16]);

/// More effects than this without any input in between can only be a loop.
const EFFECTS_MAX: usize = 10_000;

pub(crate) struct Hub<D> {
    pub(crate) document: Document,
    pub(crate) disk: D,
    /// Uploads that are being taken apart.
    unpacking: Vec<(UploadId, Vec<Bytes>)>,
    /// What is being brought from the snapshot.
    bringing: Option<Effect>,
    /// A snapshot that is being stored, and one that is and that the document has not taken note of.
    storing: Option<SnapshotInfo>,
    stored: Option<SnapshotInfo>,
    /// How often a snapshot was brought, and single changes from one.
    pub(crate) brought: (usize, usize),
    /// The mistake that the checks are there to find: an append counts as done as soon as it is asked for.
    pub(crate) acknowledges_early: bool,
    /// Everything that any peer was ever told that the server has.
    told: HashSet<ChangeHash>,
    /// Everything that arrived here since the last restart, from peers that may write.
    heard: HashSet<ChangeHash>,
    /// All that was handed to the disk and may be on it.
    known: HashMap<ChangeHash, Change>,
    /// What would be served after a power cut, and how many records that is.
    survivor: (usize, usize, Document),
    pub(crate) trace: Option<String>,
}

impl<D: Disk> Hub<D> {
    pub(crate) fn new(disk: D) -> Self {
        Self {
            document: Document::new(DOCUMENT),
            disk,
            unpacking: Vec::new(),
            bringing: None,
            storing: None,
            stored: None,
            brought: (0, 0),
            acknowledges_early: false,
            told: HashSet::new(),
            heard: HashSet::new(),
            known: HashMap::new(),
            survivor: (0, 0, Document::new(DOCUMENT)),
            trace: None,
        }
    }

    /// Does what the document asks for, and returns what is to be sent.
    pub(crate) fn pump(&mut self) -> Result<Vec<(ConnectionId, Outgoing)>, String> {
        let mut sends = Vec::new();
        for _ in 0..EFFECTS_MAX {
            let Some(effect) = self.document.poll_effect() else { return Ok(sends) };
            self.note(|| format!("{effect:?}"));
            match effect {
                Effect::Append { id, records } => {
                    for record in &records {
                        if let Record::Change { bytes } | Record::Quarantine { bytes, .. } = record {
                            self.learn(bytes)?;
                        }
                    }
                    self.disk.append(id, records);
                    if self.acknowledges_early {
                        self.document.handle_appended(id);
                    }
                }
                Effect::Unpack { upload, chunks } => self.unpacking.push((upload, chunks)),
                Effect::LoadSnapshot | Effect::Bring { .. } => {
                    let before = self.bringing.replace(effect);
                    assert!(before.is_none(), "one thing is brought at a time");
                }
                Effect::Send { connection, outgoing } => {
                    self.check(&outgoing)?;
                    sends.push((connection, outgoing));
                }
                Effect::Close { fault, .. } => return Err(format!("an honest peer was closed: {fault}")),
            }
        }
        Err(format!("more than {EFFECTS_MAX} effects in a row"))
    }

    /// Takes in a message of a peer.
    pub(crate) fn hear(
        &mut self,
        connection: ConnectionId,
        frame: Frame,
        may_write: bool,
    ) -> Result<(), String> {
        if may_write {
            let message = Message::decode(frame.data.clone()).map_err(|error| error.to_string())?;
            let changes = change::unpack(&message.chunks).map_err(|error| error.to_string())?;
            self.heard.extend(changes.iter().map(|change| change.hash));
        }
        let taken = self.document.handle_sync(connection, frame.data, frame.is_request);
        taken.map_err(|fault| format!("an honest message was refused: {fault}"))
    }

    /// Nothing that arrived was dropped, whatever became of who sent it.
    pub(crate) fn check_heard(&self) -> Result<(), String> {
        let refused: HashSet<_> = self.document.rejected().map(|(hash, _)| hash).collect();
        let is_kept = |hash: &ChangeHash| self.known.contains_key(hash) || refused.contains(hash);
        match self.heard.iter().find(|hash| !is_kept(hash)) {
            Some(dropped) => Err(format!("{dropped} arrived and was never stored")),
            None => Ok(()),
        }
    }

    /// Adds a line to the trace, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{}", line()).expect("a string takes all");
        }
    }

    /// The oldest append ends. `Err` holds why it failed; the document is of no use then.
    pub(crate) fn finish_append(&mut self, rng: &mut Rng) -> Option<Result<(), String>> {
        let finished = self.disk.finish(rng)?;
        Some(finished.map(|id| {
            if !self.acknowledges_early {
                self.document.handle_appended(id);
            }
            self.adopt_snapshot();
        }))
    }

    /// Some upload has been taken apart.
    pub(crate) fn finish_unpack(&mut self, rng: &mut Rng) -> bool {
        if self.unpacking.is_empty() {
            return false;
        }
        let (upload, chunks) = self.unpacking.swap_remove(rng.below(self.unpacking.len()));
        self.document.handle_unpacked(upload, change::unpack(&chunks));
        true
    }

    /// What the document wanted from its snapshot is there.
    pub(crate) fn finish_bringing(&mut self) -> Result<bool, String> {
        let Some(effect) = self.bringing.take() else { return Ok(false) };
        let snapshot = self.disk.durable().snapshot.ok_or("brings from a snapshot that is not there")?;
        match effect {
            Effect::LoadSnapshot => {
                self.brought.0 += 1;
                self.document.handle_snapshot(snapshot.document);
            }
            Effect::Bring { changes } => {
                let brought = Materialised::load(&snapshot.document)?.changes(&changes)?;
                if brought.len() != changes.len() {
                    return Err(format!("{} of {} changes were brought", brought.len(), changes.len()));
                }
                self.brought.1 += 1;
                self.document.handle_brought(brought);
            }
            other => return Err(format!("{other:?} brings nothing")),
        }
        Ok(true)
    }

    /// Compacts what is stored, unless that is under way or there is nothing new.
    pub(crate) fn start_compaction(&mut self) -> Result<(), String> {
        let stored = self.disk.durable();
        if self.storing.is_some() || stored.changes.is_empty() {
            return Ok(());
        }
        let (base, tail, quarantined) = (stored.snapshot, stored.changes, stored.quarantined);
        let snapshot = match compact(DOCUMENT, Compactable { base, tail, quarantined }) {
            Ok((snapshot, _)) => snapshot,
            Err(error @ CompactError::Unfit { .. }) => return Err(error.to_string()),
            Err(error) => return Err(format!("does not compact: {error}")),
        };
        let rebuilt =
            SnapshotIndex::rebuild(DOCUMENT, &snapshot.document).map_err(|error| error.to_string())?;
        let info = SnapshotInfo { index: rebuilt, ..snapshot.info.clone() };
        let rebuilt = restore(Stored {
            snapshot: Some(Snapshot { info, document: Bytes::new() }),
            ..Stored::default()
        })?;
        if rebuilt.len() as u64 != snapshot.info.changes {
            return Err("a rebuilt index has other changes".to_owned());
        }
        self.note(|| format!("compacts {} records", snapshot.info.records));
        self.storing = Some(snapshot.info.clone());
        self.disk.put_snapshot(snapshot);
        Ok(())
    }

    /// The snapshot is stored. `Err` holds why not; the document is of no use then.
    pub(crate) fn finish_compaction(&mut self, rng: &mut Rng) -> Option<Result<(), String>> {
        let finished = self.disk.finish_snapshot(rng)?;
        Some(finished.map(|()| {
            self.stored = self.storing.take();
            self.adopt_snapshot();
        }))
    }

    fn adopt_snapshot(&mut self) {
        let Some(snapshot) = &self.stored else { return };
        if self.document.handle_compacted(snapshot) != Compacted::TooEarly {
            self.stored = None;
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.disk.is_busy() || !self.unpacking.is_empty() || self.bringing.is_some()
    }

    /// The process or the power ends, and a new server starts from what is on the disk.
    pub(crate) fn restart(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.unpacking.clear();
        (self.bringing, self.storing, self.stored) = (None, None, None);
        self.heard.clear();
        let stored = self.disk.restart(rng);
        self.known.clear();
        for bytes in all_changes(&stored)? {
            self.learn(&bytes)?;
        }
        self.document = restore(stored)?;
        match self.told.iter().find(|hash| !self.document.contains(hash)) {
            Some(lost) => Err(format!("{lost} was acknowledged and is gone after a restart")),
            None => Ok(()),
        }
    }

    /// Nobody uses the document: it leaves memory, and is read from the disk when somebody comes. A compaction goes on meanwhile.
    pub(crate) fn evict(&mut self) -> Result<(), String> {
        self.bringing = None;
        self.heard.clear();
        self.document = restore(self.disk.durable())?;
        match self.told.iter().find(|hash| !self.document.contains(hash)) {
            Some(lost) => Err(format!("{lost} was acknowledged and is gone after the document left memory")),
            None => Ok(()),
        }
    }

    /// What the store holds gives the same document as the one in memory.
    pub(crate) fn check_stored(&self) -> Result<(), String> {
        let restored = restore(self.disk.durable())?;
        if restored.heads() != self.document.heads() || restored.len() != self.document.len() {
            return Err("the stored document is not the served one".to_owned());
        }
        Ok(())
    }

    /// The stored document, as stock automerge makes it from the stored changes.
    pub(crate) fn materialise(&self) -> Result<AutoCommit, String> {
        let stored = self.disk.durable();
        let mut document = AutoCommit::new();
        let all = all_changes(&stored)?;
        let changes = all.iter().map(|bytes| automerge::Change::try_from(&bytes[..]));
        let changes: Vec<_> = changes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        // Orphans among them stay in automerge's queue.
        let changes = changes.into_iter().filter(|change| self.document.contains(&change.hash()));
        document.apply_changes(changes).map_err(|error| error.to_string())?;
        Ok(document)
    }

    fn learn(&mut self, bytes: &Bytes) -> Result<(), String> {
        let change = Change::parse(bytes.clone()).map_err(|error| error.to_string())?;
        self.known.insert(change.hash, change);
        Ok(())
    }

    /// Everything that anybody was ever told would survive a power cut at this moment.
    pub(crate) fn check_promise(&mut self) -> Result<(), String> {
        self.look_at_survivor()?;
        match self.told.iter().find(|hash| !self.survivor.2.contains(hash)) {
            Some(hash) => Err(format!("{hash} was told and would be lost in a power cut")),
            None => Ok(()),
        }
    }

    fn look_at_survivor(&mut self) -> Result<(), String> {
        let stored = self.disk.durable();
        let records = stored.records() + stored.quarantined.len();
        if (records, stored.changes.len()) != (self.survivor.0, self.survivor.1) {
            self.survivor = (records, stored.changes.len(), restore(stored)?);
        }
        Ok(())
    }

    fn check(&mut self, outgoing: &Outgoing) -> Result<(), String> {
        self.look_at_survivor()?;
        match outgoing {
            Outgoing::Sync(message) => self.check_sync(message),
            Outgoing::Unavailable => {
                if !self.unpacking.is_empty() || self.disk.is_busy() || !self.survivor.2.is_empty() {
                    let (unpacking, is_busy) = (self.unpacking.len(), self.disk.is_busy());
                    let durable = self.survivor.2.len();
                    return Err(format!(
                        "unavailable, although there is something: {unpacking} uploads, appends under way: {is_busy}, {durable} changes"
                    ));
                }
                Ok(())
            }
            Outgoing::RemoteHeads(entries) => {
                let heads: Vec<_> = entries.iter().flat_map(|entry| entry.heads.iter().copied()).collect();
                self.tell("remote heads", &heads)
            }
            Outgoing::Deleted => Err("nothing is deleted here".to_owned()),
            Outgoing::Ephemeral { .. } | Outgoing::Rejected(_) => Ok(()),
        }
    }

    /// Nothing in the message names, implies or carries a change that a power cut could take back.
    fn check_sync(&mut self, message: &Message) -> Result<(), String> {
        self.tell("heads", &message.heads)?;
        for have in &message.have {
            self.tell("last_sync", &have.last_sync)?;
            let implied = self.since(&have.last_sync);
            if have.bloom != BloomFilter::from_hashes(implied.iter()) {
                return Err("a filter is not that of the changes since `last_sync`".to_owned());
            }
            self.tell("change in a filter", &implied)?;
        }
        let carried = change::unpack(&message.chunks).map_err(|error| error.to_string())?;
        let carried: Vec<_> = carried.iter().map(|change| change.hash).collect();
        self.tell("forwarded change", &carried)?;
        match message.need.iter().find(|hash| self.known.contains_key(hash)) {
            Some(asked) => Err(format!("asks for {asked}, which has arrived")),
            None => Ok(()),
        }
    }

    fn tell(&mut self, what: &str, hashes: &[ChangeHash]) -> Result<(), String> {
        for hash in hashes {
            if !self.survivor.2.contains(hash) {
                return Err(format!("{what} {hash} would be lost in a power cut"));
            }
            self.told.insert(*hash);
        }
        Ok(())
    }

    /// The changes that the document counts as durable and that are not ancestors of `ground`, found anew from the changes themselves.
    fn since(&self, ground: &[ChangeHash]) -> Vec<ChangeHash> {
        let mut covered = HashSet::new();
        let mut stack = ground.to_vec();
        while let Some(hash) = stack.pop() {
            if covered.insert(hash) {
                stack.extend(self.known.get(&hash).into_iter().flat_map(|change| &change.deps));
            }
        }
        let all = self.known.keys().filter(|hash| self.document.contains(hash));
        all.filter(|hash| !covered.contains(hash)).copied().collect()
    }
}

/// All that is stored, those in the snapshot too.
fn all_changes(stored: &Stored) -> Result<Vec<Bytes>, String> {
    let snapshot = stored.snapshot.iter();
    let orphans = snapshot.clone().flat_map(|snapshot| snapshot.info.orphans.clone());
    let chunks: Vec<Bytes> = snapshot.map(|snapshot| snapshot.document.clone()).collect();
    let unpacked = change::unpack(&chunks).map_err(|error| error.to_string())?;
    let unpacked = unpacked.into_iter().map(|change| change.bytes);
    Ok(unpacked.chain(orphans).chain(stored.changes.iter().cloned()).collect())
}

fn restore(stored: Stored) -> Result<Document, String> {
    let mut restoring = Restoring::new(DOCUMENT, stored.quarantined);
    if let Some(snapshot) = stored.snapshot {
        restoring = restoring.on(snapshot.info).map_err(|error| format!("stored snapshot: {error}"))?;
    }
    for (place, bytes) in stored.changes.into_iter().enumerate() {
        restoring.add(bytes).map_err(|error| format!("stored change {place}: {error}"))?;
    }
    Ok(restoring.finish())
}
