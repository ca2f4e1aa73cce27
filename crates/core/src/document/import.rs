//! Taking in changes that no peer sent: those of an import, and those that come in a request of their own.

use crate::change::Change;
use crate::id::{ChangeHash, PeerId};
use crate::record::Record;
use crate::wire::Rejection;

use super::{ConnectionId, Document, Intake, PeerFault};

/// Whose changes they are. A driver counts its connections from zero.
pub(super) const NOBODY: ConnectionId = ConnectionId(u64::MAX);

/// What became of changes that were [taken in](Document::take_in).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TakenIn {
    /// Those that were refused for good, now or before.
    pub refused: Vec<Rejection>,
    /// Those for which there is no more room among the changes that wait for others. Nothing is kept of them.
    pub no_room: Vec<ChangeHash>,
}

/// A change that was made here, on top of what is durable and of those made before it.
#[derive(Debug)]
pub struct Made {
    /// The change. Without one there are only records.
    pub change: Option<Change>,
    /// What is to be stored with it, or not at all.
    pub with: Option<Record>,
}

impl Document {
    /// Judges changes as if a peer had sent them; each should come after its dependencies. What is to be stored follows as an [`Effect::Append`](super::Effect::Append).
    ///
    /// Who calls this waits for the answer and has chosen the changes, so the time that judging takes is not bounded. Everything else is as for a peer.
    pub fn take_in(&mut self, changes: Vec<Change>, sender: &str) -> TakenIn {
        let (mut intake, mut taken) = (Intake::default(), TakenIn::default());
        for change in changes {
            let hash = change.hash;
            if !self.accept(change, sender, &mut intake) {
                taken.no_room.push(hash);
            }
        }
        if !intake.records.is_empty() {
            self.append(NOBODY, intake.records);
        }
        taken.refused = intake.rejections;
        taken
    }

    /// The same for changes that came over the network without a connection: how long judging may take is bounded as for a peer's message, and so is the room for changes that wait for others.
    ///
    /// On an error a part of them may have been taken; sending them again does no harm.
    /// Returns those that were refused, now or before: as sure as all appends that are on their way now.
    pub fn ingest(&mut self, changes: Vec<Change>, sender: &PeerId) -> Result<Vec<Rejection>, PeerFault> {
        let (intake, judged) = self.judge_all(changes, sender);
        if !intake.records.is_empty() {
            self.append(NOBODY, intake.records);
        }
        judged.map(|()| intake.rejections)
    }

    /// The same for changes that were made here, each on top of the one before, with what is to be stored with them: all that is taken follows as one [`Effect::Append`](super::Effect::Append).
    ///
    /// Nothing is taken from the first one on that does not fit. Returns how many were taken, and why not the next one.
    pub fn take_made(&mut self, made: Vec<Made>, maker: &str) -> (usize, Option<String>) {
        let mut intake = Intake::default();
        let mut taken = 0;
        for Made { change, with } in made {
            let hash = change.as_ref().map(|change| change.hash);
            if let Some(change) = change {
                self.accept(change, maker, &mut intake);
            }
            if hash.is_some_and(|hash| !self.history.contains_staged(&hash)) {
                break;
            }
            intake.records.extend(with);
            taken += 1;
        }
        if !intake.records.is_empty() {
            self.append(NOBODY, intake.records);
        }
        (taken, intake.refused.map(|(hash, refusal)| format!("change {hash}: {refusal}")))
    }
}
