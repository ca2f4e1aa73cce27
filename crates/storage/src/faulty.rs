//! A store that fails, stalls and loses power on request, for tests.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use highwater_core::change::Change;
use highwater_core::{ChangeHash, DocumentId, Record, Snapshot, SnapshotIndex};
use tokio::sync::oneshot;

use crate::memory::Image;
use crate::store::{
    Deliveries, Delivery, DocumentEntry, Found, Identity, ListDocuments, Note, Store, StoreError,
    StoreFuture, StoredAnswer, StoredDocument,
};

/// When an append becomes durable, if nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pace {
    /// At once, in the call.
    Immediate,
    /// When [`FaultyStore::step`] says so.
    Manual,
    /// After this many calls of [`FaultyStore::tick`].
    Ticks(u64),
}

/// A model of a store on a disk: what is *durable* survives a power cut, what is *in flight* may or may not.
///
/// Everything is decided by the calls made on it and the seeds given to them: no clock, no randomness, no threads. A future that has
/// its answer resolves at the next poll, so a simulation can drive everything from one thread with `now_or_never`.
///
/// Clones are handles on the same store: the test keeps one and gives the other away.
///
/// ```
/// use futures::FutureExt;
/// use highwater_core::{DocumentId, Record};
/// use highwater_storage::{FaultyStore, Pace, Store};
///
/// let store = FaultyStore::new(Pace::Manual);
/// let document = DocumentId::from_bytes([1; 16]);
/// let mut append = store.append(document, vec![Record::Change { bytes: "change".into() }]);
/// assert!((&mut append).now_or_never().is_none());
/// store.step();
/// assert!(matches!(append.now_or_never(), Some(Ok(()))));
/// assert!(store.power_cut(7).is_durable(document, b"change"));
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    state: Arc<Mutex<State>>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

struct State {
    pace: Pace,
    ticks: u64,
    stalled: bool,
    durable: Image,
    pending: VecDeque<Pending>,
    /// What failed: after a failed write it is not known what is on the disk.
    uncertain: Vec<(DocumentId, Write)>,
    /// How many appends from now the one that fails is.
    fail_in: Option<u64>,
    failure: Option<StoreError>,
    load_failure: Option<StoreError>,
    loads_failed: Cell<usize>,
    damaged: BTreeSet<DocumentId>,
    /// Loads that wait, while loads are held.
    held_loads: Option<Vec<Load>>,
    closed: bool,
    /// Stands for the time, so that a test gives the same result every time.
    appended: i64,
    /// Answers that are sent after the lock on this is released: they wake tasks.
    outbox: Vec<(Answer<()>, Result<(), StoreError>)>,
}

struct Pending {
    work: Work,
    due: u64,
    fails: bool,
    answer: Answer<()>,
}

enum Work {
    Write(DocumentId, Write),
    Probe,
    Close,
}

enum Write {
    Append { records: Vec<Record>, at_ms: i64 },
    Snapshot(Box<Snapshot>),
    Note(Note),
    Progress { name: String, cursor: Option<u64>, deliveries: Vec<Delivery> },
}

impl Write {
    /// Does it. A snapshot that does not fit changes nothing.
    fn carry_out(self, document: DocumentId, image: &mut Image) -> Result<(), StoreError> {
        match self {
            Self::Append { records, at_ms } => image.append(document, records, at_ms),
            Self::Snapshot(snapshot) => return image.put_snapshot(document, *snapshot),
            Self::Note(note) => image.put_note(document, note),
            Self::Progress { name, cursor, deliveries } => image.put_progress(name, cursor, deliveries),
        }
        Ok(())
    }
}

struct Load {
    document: DocumentId,
    answer: Answer<Option<StoredDocument>>,
}

impl FaultyStore {
    /// An empty store without faults, whose appends become durable at this pace.
    pub fn new(pace: Pace) -> Self {
        Self::holding(pace, Image::default())
    }

    fn holding(pace: Pace, durable: Image) -> Self {
        let state = State {
            pace,
            ticks: 0,
            stalled: false,
            durable,
            pending: VecDeque::new(),
            uncertain: Vec::new(),
            fail_in: None,
            failure: None,
            load_failure: None,
            loads_failed: Cell::new(0),
            damaged: BTreeSet::new(),
            held_loads: None,
            closed: false,
            appended: 0,
            outbox: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Sets the pace of the appends that are made from now on.
    pub fn set_pace(&self, pace: Pace) {
        self.with(|state| state.pace = pace);
    }

    /// Makes the oldest pending append durable and resolves its future; a probe or close counts as one too. Returns false if there was
    /// none, or the store is stalled.
    pub fn step(&self) -> bool {
        self.with(State::step)
    }

    /// [Steps](Self::step) until nothing is pending. Returns how often.
    pub fn step_all(&self) -> usize {
        self.with(|state| std::iter::from_fn(|| state.step().then_some(())).count())
    }

    /// Lets one tick pass, for [`Pace::Ticks`].
    pub fn tick(&self) {
        self.with(|state| {
            state.ticks += 1;
            state.settle();
        });
    }

    /// From now on nothing becomes durable, as on a disk that hangs, until [`resume`](Self::resume).
    pub fn stall(&self) {
        self.with(|state| state.stalled = true);
    }

    /// Ends a stall. What came due in the meantime becomes durable.
    pub fn resume(&self) {
        self.with(|state| {
            state.stalled = false;
            state.settle();
        });
    }

    /// Lets a write (an append, a snapshot, a note) fail when its turn comes: that after `skip` others, counted from this call. As the trait demands, all later writes
    /// fail too; and everything that was pending with it, as if in the same commit. What of these is on the disk nobody knows until the power is cut.
    pub fn fail_append_after(&self, skip: u64) {
        self.with(|state| state.fail_in = Some(skip));
    }

    /// Lets all loads and lists fail, or no longer.
    pub fn fail_loads(&self, fail: bool) {
        let failure = StoreError::Read("as the test demanded".into());
        self.with(|state| state.load_failure = fail.then_some(failure));
    }

    /// How many loads and lists have failed.
    pub fn loads_failed(&self) -> usize {
        self.with(|state| state.loads_failed.get())
    }

    /// Lets all loads of this document report damage.
    pub fn damage(&self, document: DocumentId) {
        self.with(|state| state.damaged.insert(document));
    }

    /// From now on loads wait until [`release_loads`](Self::release_loads).
    pub fn hold_loads(&self) {
        self.with(|state| {
            state.held_loads.get_or_insert_default();
        });
    }

    /// Answers the loads that were held, as the store is now, and holds no more.
    pub fn release_loads(&self) {
        let answers = self.with(|state| {
            let held = state.held_loads.take().unwrap_or_default();
            held.into_iter().map(|load| (load.answer, state.load(load.document))).collect::<Vec<_>>()
        });
        for (answer, result) in answers {
            // Whoever asked may have gone.
            let _ = answer.send(result);
        }
    }

    /// How many writes are in flight: pending, or failed without anybody knowing what is on the disk.
    pub fn in_flight(&self) -> usize {
        self.with(|state| {
            let pending = state.pending.iter().filter(|pending| matches!(pending.work, Work::Write(..)));
            state.uncertain.len() + pending.count()
        })
    }

    /// What a power cut now would leave of a document for certain.
    pub fn durable(&self, document: DocumentId) -> Option<StoredDocument> {
        self.with(|state| state.durable.load(document))
    }

    /// The documents that a power cut now would leave for certain.
    pub fn durable_documents(&self) -> Vec<DocumentId> {
        self.with(|state| state.durable.documents())
    }

    /// Whether a change with exactly these bytes is durable in this document, not counting the quarantine.
    pub fn is_durable(&self, document: DocumentId, change: &[u8]) -> bool {
        let stored = self.durable(document).unwrap_or_default();
        let pages = stored.snapshot.map_or_else(Vec::new, |snapshot| snapshot.index.pages);
        let hash = Change::parse(Bytes::copy_from_slice(change)).map(|change| change.hash);
        let is_in_snapshot = |hash| {
            let page = pages.get(SnapshotIndex::page_of(&hash, pages.len()));
            page.is_some_and(|page| SnapshotIndex::page_has(page, &hash))
        };
        stored.changes.iter().any(|stored| stored == change) || hash.is_ok_and(is_in_snapshot)
    }

    /// The document chunk of the snapshot that a power cut now would leave for certain.
    pub fn durable_snapshot(&self, document: DocumentId) -> Option<Bytes> {
        self.with(|state| state.durable.snapshot(document))
    }

    /// Cuts the power. Returns the store as it is found afterwards: with all that was durable, and with as many of the
    /// [in-flight](Self::in_flight) appends, from the oldest on and each as a whole, as `seed` chooses. It has no faults, and the same pace.
    ///
    /// On the old store everything that still waits fails, and so does every later call.
    pub fn power_cut(&self, seed: u64) -> Self {
        let choices = self.in_flight() as u64 + 1;
        self.power_cut_keeping((scramble(seed) % choices) as usize)
    }

    /// [Cuts the power](Self::power_cut), keeping the first `kept` in-flight appends; all, if there are fewer.
    pub fn power_cut_keeping(&self, kept: usize) -> Self {
        let (pace, durable) = self.with(|state| {
            state.fail(&StoreError::Write("the power was cut".into()));
            state.load_failure = Some(StoreError::Read("the power was cut".into()));
            let mut durable = state.durable.clone();
            for (document, write) in state.uncertain.drain(..).take(kept) {
                // One that did not fit would not have been durable either.
                let _ = write.carry_out(document, &mut durable);
            }
            (state.pace, durable)
        });
        self.release_loads();
        Self::holding(pace, durable)
    }

    /// The store as the next process finds it after this one ended in good order: everything that reached it is there. Without faults.
    pub fn reopen(&self) -> Self {
        self.power_cut_keeping(usize::MAX)
    }

    /// Works on the state, then sends the answers that came of it.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (result, answers) = {
            // A test that panicked while it held this has failed already.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), mem::take(&mut state.outbox))
        };
        for (answer, result) in answers {
            // Whoever asked may have gone; the work is done all the same.
            let _ = answer.send(result);
        }
        result
    }

    fn read<T: Send + 'static>(&self, look: impl FnOnce(&Image) -> T) -> StoreFuture<T> {
        let seen = self.with(|state| state.can_read().map(|()| look(&state.durable)));
        futures::future::ready(seen).boxed()
    }

    fn write(&self, work: impl FnOnce(&mut State) -> Work) -> StoreFuture<()> {
        let (answer, answered) = oneshot::channel();
        self.with(|state| {
            let work = work(state);
            state.push(work, answer);
        });
        answered.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }
}

impl State {
    fn push(&mut self, work: Work, answer: Answer<()>) {
        if let Some(error) = self.closed.then_some(StoreError::Closed).or_else(|| self.failure.clone()) {
            self.closed |= matches!(work, Work::Close);
            return self.outbox.push((answer, Err(error)));
        }
        self.closed = matches!(work, Work::Close);
        let due = match self.pace {
            Pace::Immediate => 0,
            Pace::Manual => u64::MAX,
            Pace::Ticks(ticks) => self.ticks + ticks,
        };
        let fails = matches!(work, Work::Write(..)) && self.fails_now();
        self.pending.push_back(Pending { work, due, fails, answer });
        self.settle();
    }

    /// Counts an append.
    fn fails_now(&mut self) -> bool {
        let fails = self.fail_in == Some(0);
        self.fail_in = self.fail_in.and_then(|left| left.checked_sub(1));
        fails
    }

    /// Steps through all that has come due.
    fn settle(&mut self) {
        while self.pending.front().is_some_and(|pending| pending.due <= self.ticks) && self.step() {}
    }

    fn step(&mut self) -> bool {
        if self.stalled {
            return false;
        }
        let Some(next) = self.pending.front() else { return false };
        if next.fails {
            self.fail(&StoreError::Write("as the test demanded".into()));
            return true;
        }
        let Some(Pending { work, answer, .. }) = self.pending.pop_front() else { return false };
        let done = match work {
            Work::Write(document, write) => write.carry_out(document, &mut self.durable),
            Work::Probe | Work::Close => Ok(()),
        };
        self.outbox.push((answer, done));
        true
    }

    /// Fails all that is pending and all that will come.
    fn fail(&mut self, failure: &StoreError) {
        self.failure = Some(failure.clone());
        for Pending { work, answer, .. } in self.pending.drain(..) {
            self.outbox.push((answer, Err(failure.clone())));
            if let Work::Write(document, write) = work {
                self.uncertain.push((document, write));
            }
        }
    }

    fn can_read(&self) -> Result<(), StoreError> {
        let closed = self.closed.then_some(StoreError::Closed);
        let failure = closed.or_else(|| self.load_failure.clone());
        if failure.is_some() {
            self.loads_failed.set(self.loads_failed.get() + 1);
        }
        failure.map_or(Ok(()), Err)
    }

    fn load(&self, document: DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.can_read()?;
        if self.damaged.contains(&document) {
            let (record, detail) = ("of the test's choice".into(), "as the test demanded".into());
            return Err(StoreError::Damaged { document, record, detail });
        }
        Ok(self.durable.load(document))
    }
}

impl Store for FaultyStore {
    fn identity(&self) -> Identity {
        Identity { peer_id: "highwater-faulty".into(), storage_id: "faulty".into() }
    }

    fn append(&self, document: DocumentId, records: Vec<Record>) -> StoreFuture<()> {
        self.write(|state| {
            state.appended += 1;
            Work::Write(document, Write::Append { records, at_ms: state.appended })
        })
    }

    fn answer(&self, document: DocumentId, key: [u8; 32]) -> StoreFuture<Option<StoredAnswer>> {
        self.read(|durable| durable.answer(document, &key))
    }

    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>> {
        let (answer, answered) = oneshot::channel();
        let now = self.with(|state| match &mut state.held_loads {
            Some(held) if !state.closed => {
                held.push(Load { document, answer });
                None
            }
            _ => Some((answer, state.load(document))),
        });
        if let Some((answer, result)) = now {
            let _ = answer.send(result);
        }
        answered.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }

    fn load_snapshot(&self, document: DocumentId) -> StoreFuture<Option<Bytes>> {
        self.read(|durable| durable.snapshot(document))
    }

    fn put_snapshot(&self, document: DocumentId, snapshot: Snapshot) -> StoreFuture<()> {
        self.write(|_| Work::Write(document, Write::Snapshot(Box::new(snapshot))))
    }

    fn put_note(&self, document: DocumentId, note: Note) -> StoreFuture<()> {
        self.write(|_| Work::Write(document, Write::Note(note)))
    }

    fn find(&self, document: DocumentId, hash: ChangeHash) -> StoreFuture<Found> {
        self.read(|durable| durable.find(document, &hash))
    }

    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>> {
        self.read(|durable| durable.list(after, limit))
    }

    fn documents(&self, query: ListDocuments) -> StoreFuture<Vec<DocumentEntry>> {
        self.read(|durable| durable.entries(&query))
    }

    fn changed(&self, after: u64, limit: usize) -> StoreFuture<Vec<DocumentEntry>> {
        self.read(|durable| durable.changed(after, limit))
    }

    fn last_changed(&self) -> StoreFuture<u64> {
        self.read(Image::last_changed)
    }

    fn progress(&self, name: String) -> StoreFuture<Option<u64>> {
        self.read(|durable| durable.progress(&name))
    }

    fn put_progress(&self, name: String, cursor: Option<u64>, deliveries: Vec<Delivery>) -> StoreFuture<()> {
        // Of no document.
        let none = DocumentId::from_bytes([0; 16]);
        self.write(|_| Work::Write(none, Write::Progress { name, cursor, deliveries }))
    }

    fn deliveries(&self, name: String, which: Deliveries) -> StoreFuture<Vec<Delivery>> {
        self.read(|durable| durable.deliveries(&name, &which))
    }

    fn probe(&self) -> StoreFuture<()> {
        self.write(|_| Work::Probe)
    }

    fn close(&self) -> StoreFuture<()> {
        self.write(|_| Work::Close)
    }
}

/// Spreads seeds that are close to each other (the finaliser of SplitMix64).
fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
