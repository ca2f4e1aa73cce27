//! Which changes are ancestors of a set of dependencies.
//!
//! Asked for every change: may it name what it names? The answer is kept as what is *not* an ancestor: for people who type at the same time those are the last
//! few changes of the others. A branch that was made offline has many, and every change of it the same ones. So large answers are kept: the next change of the
//! branch finds what the one before left.

use super::{History, Index};

/// An answer with fewer changes is found anew as fast as looked up.
const KEEP_FROM: usize = if cfg!(test) { 2 } else { 4 };
/// How many answers are kept.
const KEPT_MAX: usize = 32;
/// How many changes they may have together.
const KEPT_CHANGES_MAX: usize = 4_000_000;

/// The ancestors of some changes, and these themselves: everything but [`unseen`](Self::unseen).
#[derive(Debug, Default)]
pub(super) struct View {
    /// What is no ancestor, in order.
    unseen: Vec<Index>,
    /// Nothing from here on is an ancestor.
    end: Index,
}

impl View {
    /// Whether the change at this place is among the ancestors.
    pub(super) fn covers(&self, index: Index) -> bool {
        index < self.end && (self.unseen.is_empty() || self.unseen.binary_search(&index).is_err())
    }
}

/// The answers that were worth keeping, the latest last.
#[derive(Debug, Default)]
pub(super) struct Views {
    kept: Vec<(Vec<Index>, View)>,
}

impl Views {
    /// The ancestors of `deps` among all changes, durable or not; and how many steps it took to find them.
    pub(super) fn take(&mut self, history: &History, deps: &[Index]) -> (View, u64) {
        let end = history.staged_len();
        if history.tips.iter().eq(deps) {
            return (View { unseen: Vec::new(), end }, 0);
        }
        match self.kept.iter().position(|(of, _)| of == deps) {
            Some(place) => {
                let (_, mut view) = self.kept.remove(place);
                // What came since came later than these changes, so it is none of their ancestors.
                let steps = u64::from(end - view.end);
                view.unseen.extend(view.end..end);
                (View { end, ..view }, steps)
            }
            None => {
                let (unseen, steps) = history.beyond(history.tips.iter().copied(), deps, 0);
                (View { unseen, end }, steps)
            }
        }
    }

    /// Keeps the answer to a question that may be asked again.
    pub(super) fn keep(&mut self, of: Vec<Index>, view: View) {
        if view.unseen.len() < KEEP_FROM {
            return;
        }
        self.kept.push((of, view));
        let changes =
            |kept: &[(Vec<Index>, View)]| kept.iter().map(|(_, view)| view.unseen.len()).sum::<usize>();
        while self.kept.len() > KEPT_MAX || (self.kept.len() > 1 && changes(&self.kept) > KEPT_CHANGES_MAX) {
            self.kept.remove(0);
        }
    }

    /// What they take up, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        self.kept.iter().map(|(of, view)| (of.capacity() + view.unseen.capacity()) * size_of::<Index>()).sum()
    }

    /// Keeps what was the answer for a change's dependencies as the answer for the change itself, which is at `index`.
    pub(super) fn keep_for_change(&mut self, index: Index, view: View) {
        self.keep(vec![index], View { end: index + 1, ..view });
    }
}
