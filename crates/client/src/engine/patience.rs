//! How long the server may go on saying nothing of what documents owe.

use std::collections::{BTreeMap, BTreeSet};

use highwater_core::{ChangeHash, DocumentId};

use super::Millis;
use crate::limits::{REPEAT_AFTER, REPEAT_PAUSE_MAX};

const PAUSE_MIN: Millis = REPEAT_AFTER.as_millis() as Millis;
const PAUSE_MAX: Millis = REPEAT_PAUSE_MAX.as_millis() as Millis;

#[derive(Debug)]
struct Wait {
    /// When it was last said, or first.
    said: Millis,
    pause: Millis,
    /// The oldest change that the server has said nothing of. When that is another one, there was progress.
    awaited: ChangeHash,
}

impl Wait {
    fn until(&self) -> Millis {
        self.said + self.pause
    }
}

/// The documents of which the server's word is waited for.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waits: BTreeMap<DocumentId, Wait>,
    /// There may be many, and it is looked often which of them is due.
    by_time: BTreeSet<(Millis, DocumentId)>,
}

impl Patience {
    /// From now on the server's word on this change is waited for, unless it was before; or on nothing.
    pub(super) fn expect(&mut self, now: Millis, document: DocumentId, awaited: Option<ChangeHash>) {
        if self.waits.get(&document).map(|wait| wait.awaited) == awaited {
            return;
        }
        if let Some(wait) = self.waits.remove(&document) {
            self.by_time.remove(&(wait.until(), document));
        }
        if let Some(awaited) = awaited {
            let wait = Wait { said: now, pause: PAUSE_MIN, awaited };
            self.by_time.insert((wait.until(), document));
            self.waits.insert(document, wait);
        }
    }

    /// Somebody waits: no pause is a long one any more.
    pub(super) fn hurry(&mut self) {
        for wait in self.waits.values_mut() {
            wait.pause = PAUSE_MIN;
        }
        self.by_time = self.waits.iter().map(|(document, wait)| (wait.until(), *document)).collect();
    }

    /// A document for which it has ended.
    pub(super) fn due(&self, now: Millis) -> Option<DocumentId> {
        self.by_time.first().filter(|(until, _)| *until <= now).map(|(_, document)| *document)
    }

    /// When it ends next, after now.
    pub(super) fn next(&self, now: Millis) -> Option<Millis> {
        let later = (now + 1, DocumentId::from_bytes([0; 16]));
        self.by_time.range(later..).next().map(|(until, _)| *until)
    }

    /// Something of the document was said again; if it was all that there is, the next time is later.
    pub(super) fn renew(&mut self, now: Millis, document: DocumentId, was_all: bool) {
        let Some(wait) = self.waits.get_mut(&document) else { return };
        self.by_time.remove(&(wait.until(), document));
        wait.said = now;
        if was_all {
            wait.pause = (2 * wait.pause).min(PAUSE_MAX);
        }
        self.by_time.insert((wait.until(), document));
    }

    /// The connection has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: DocumentId = DocumentId::from_bytes([1; 16]);

    fn hash(n: u8) -> Option<ChangeHash> {
        Some(ChangeHash([n; 32]))
    }

    #[test]
    fn it_ends_five_seconds_after_the_last_progress_and_then_ever_later() {
        let mut patience = Patience::default();
        patience.expect(0, DOCUMENT, hash(1));
        patience.expect(3000, DOCUMENT, hash(1));
        assert_eq!((patience.due(4999), patience.next(4999)), (None, Some(5000)));
        patience.expect(4999, DOCUMENT, hash(2));
        assert_eq!((patience.due(9998), patience.due(9999)), (None, Some(DOCUMENT)));
        assert_eq!(patience.next(9999), None, "whoever is due waits for the socket");
        patience.renew(10_000, DOCUMENT, false);
        assert_eq!(patience.next(10_000), Some(15_000));
        let mut now = 10_000;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            patience.renew(now, DOCUMENT, true);
            assert_eq!(patience.next(now), Some(now + 1000 * pause));
            now += 1000 * pause;
        }
        patience.hurry();
        assert_eq!(patience.due(now), Some(DOCUMENT));
        patience.renew(now, DOCUMENT, true);
        patience.hurry();
        assert_eq!(
            (patience.due(now), patience.next(now)),
            (None, Some(now + 5000)),
            "but not at once again"
        );
        patience.expect(now, DOCUMENT, None);
        assert_eq!((patience.due(Millis::MAX), patience.next(now)), (None, None));
    }
}
