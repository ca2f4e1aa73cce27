//! Where somebody's changes are, in words that can be shown.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::Registry;

/// The word for where changes are. The worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaveState {
    /// The server refused at least one of them and will never take it.
    Rejected,
    /// There is no connection, and they are only in this program's memory.
    NotSaved,
    /// There is no connection; all of them are in the outbox on this device and will be sent later.
    SavedOnDevice,
    /// They are on their way, on a connection that works.
    Saving,
    /// The server has called all of them durable.
    Saved,
}

impl SaveState {
    /// The word, as other clients of Highwater have it: `saved`, `saving`, `saved_on_device`, `not_saved`, `rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::NotSaved => "not_saved",
            Self::SavedOnDevice => "saved_on_device",
            Self::Saving => "saving",
            Self::Saved => "saved",
        }
    }
}

impl fmt::Display for SaveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the changes of a document, or of all documents, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveStatus {
    /// The word for it; of several documents, the worst.
    pub state: SaveState,
    /// How many changes the server has not called durable, as far as that is known.
    pub unsaved_changes: usize,
    /// When the oldest of them was made.
    pub unsaved_since: Option<SystemTime>,
}

impl SaveStatus {
    /// How old the oldest unsaved change is now; zero if there is none.
    pub fn oldest_unsaved_age(&self) -> Duration {
        self.unsaved_since.and_then(|since| since.elapsed().ok()).unwrap_or_default()
    }

    /// Everything is saved.
    pub(crate) const SAVED: Self = Self { state: SaveState::Saved, unsaved_changes: 0, unsaved_since: None };

    /// What is so when something has these facts.
    pub(crate) fn of(facts: &crate::engine::Facts, registry: &Registry) -> Self {
        let state = if facts.is_rejected {
            SaveState::Rejected
        } else if facts.is_saved {
            SaveState::Saved
        } else if registry.is_connected {
            SaveState::Saving
        } else if facts.is_stored {
            SaveState::SavedOnDevice
        } else {
            SaveState::NotSaved
        };
        let unsaved_since = facts.since.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        Self { state, unsaved_changes: facts.pending, unsaved_since }
    }

    /// Of two documents together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            state: self.state.min(other.state),
            unsaved_changes: self.unsaved_changes + other.unsaved_changes,
            unsaved_since: [self.unsaved_since, other.unsaved_since].into_iter().flatten().min(),
        }
    }
}
