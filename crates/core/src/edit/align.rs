//! What two sequences have in common: which elements stay, so that an edit names only those that do not.

use std::collections::HashMap;

use crate::limits::DIFF_DISTANCE_MAX;

/// How many times gaps between anchors are looked through for further anchors.
const ANCHOR_LEVELS: usize = 8;

/// Steps that are left for comparing.
#[derive(Debug)]
pub(super) struct Budget(pub(super) u64);

impl Budget {
    /// Takes so many steps, if there are as many left.
    pub(super) fn spend(&mut self, steps: usize) -> bool {
        let left = self.0.checked_sub(steps as u64);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// So many elements that stand here in the old sequence and there in the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) len: usize,
}

/// Elements of the old sequence in whose place there are others in the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    pub(super) old: std::ops::Range<usize>,
    pub(super) new: std::ops::Range<usize>,
}

impl Hunk {
    /// The hunk in sequences before which so many elements stand.
    fn after(self, old: usize, new: usize) -> Self {
        let Self { old: from, new: to } = self;
        Self { old: from.start + old..from.end + old, new: to.start + new..to.end + new }
    }
}

/// What is between the blocks.
pub(super) fn hunks(blocks: &[Block], old_len: usize, new_len: usize) -> Vec<Hunk> {
    let end = Block { old: old_len, new: new_len, len: 0 };
    let (mut old, mut new) = (0, 0);
    let mut hunks = Vec::new();
    for block in blocks.iter().chain([&end]) {
        if old < block.old || new < block.new {
            hunks.push(Hunk { old: old..block.old, new: new..block.new });
        }
        (old, new) = (block.old + block.len, block.new + block.len);
    }
    hunks
}

/// The hunks between two texts.
pub(super) fn text_hunks(old: &[char], new: &[char], budget: &mut Budget) -> Vec<Hunk> {
    let (start, end) = trim(old, new);
    let (old_inner, new_inner) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let inner = match shortest(old_inner, new_inner, budget) {
        Some(blocks) => hunks(&blocks, old_inner.len(), new_inner.len()),
        None => line_hunks(old_inner, new_inner, budget),
    };
    inner.into_iter().map(|hunk| hunk.after(start, start)).collect()
}

/// Line by line first, then what differs character by character.
fn line_hunks(old: &[char], new: &[char], budget: &mut Budget) -> Vec<Hunk> {
    let mut ids = Ids::default();
    let (old_lines, old_starts) = lines(old, &mut ids);
    let (new_lines, new_starts) = lines(new, &mut ids);
    let blocks = blocks(&old_lines, &new_lines, budget);
    let mut found = Vec::new();
    for hunk in hunks(&blocks, old_lines.len(), new_lines.len()) {
        let (old_start, new_start) = (old_starts[hunk.old.start], new_starts[hunk.new.start]);
        let (old, new) =
            (&old[old_start..old_starts[hunk.old.end]], &new[new_start..new_starts[hunk.new.end]]);
        let (start, end) = trim(old, new);
        let (old_inner, new_inner) = (&old[start..old.len() - end], &new[start..new.len() - end]);
        let inner = shortest(old_inner, new_inner, budget).unwrap_or_default();
        let inner = hunks(&inner, old_inner.len(), new_inner.len()).into_iter();
        found.extend(inner.map(|hunk| hunk.after(old_start + start, new_start + start)));
    }
    found
}

/// Numbers for things, the same for what is the same.
#[derive(Debug)]
pub(super) struct Ids<T>(HashMap<T, u32>);

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: std::hash::Hash + Eq> Ids<T> {
    pub(super) fn of(&mut self, thing: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(thing).or_insert(next)
    }
}

/// The lines of a text as numbers, where each starts, and where the text ends.
fn lines<'a>(text: &'a [char], ids: &mut Ids<&'a [char]>) -> (Vec<u32>, Vec<usize>) {
    let mut start = 0;
    let mut starts = vec![0];
    let mut lines = Vec::new();
    for line in text.split_inclusive(|c| *c == '\n') {
        lines.push(ids.of(line));
        start += line.len();
        starts.push(start);
    }
    (lines, starts)
}

/// What two sequences have in common, in order. The most there is, if the sequences do not differ in too much.
pub(super) fn blocks(old: &[u32], new: &[u32], budget: &mut Budget) -> Vec<Block> {
    let mut found = Vec::new();
    between(old, new, (0, 0), ANCHOR_LEVELS, budget, &mut found);
    found
}

fn between(
    old: &[u32],
    new: &[u32],
    at: (usize, usize),
    levels: usize,
    budget: &mut Budget,
    found: &mut Vec<Block>,
) {
    let (start, end) = trim(old, new);
    if start > 0 {
        found.push(Block { old: at.0, new: at.1, len: start });
    }
    let (old_inner, new_inner) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let at_inner = (at.0 + start, at.1 + start);
    match shortest(old_inner, new_inner, budget) {
        Some(blocks) => found.extend(blocks.into_iter().map(|block| Block {
            old: block.old + at_inner.0,
            new: block.new + at_inner.1,
            ..block
        })),
        None if levels > 0 => around_anchors(old_inner, new_inner, at_inner, levels, budget, found),
        None => {}
    }
    if end > 0 {
        found.push(Block { old: at.0 + old.len() - end, new: at.1 + new.len() - end, len: end });
    }
}

/// Elements that are in each sequence once are anchors. What is between them is looked at by itself.
fn around_anchors(
    old: &[u32],
    new: &[u32],
    at: (usize, usize),
    levels: usize,
    budget: &mut Budget,
    found: &mut Vec<Block>,
) {
    let anchors = anchors(old, new);
    if anchors.is_empty() {
        return;
    }
    let (mut old_from, mut new_from) = (0, 0);
    for (old_place, new_place) in anchors {
        let gap = (&old[old_from..old_place], &new[new_from..new_place]);
        between(gap.0, gap.1, (at.0 + old_from, at.1 + new_from), levels - 1, budget, found);
        found.push(Block { old: at.0 + old_place, new: at.1 + new_place, len: 1 });
        (old_from, new_from) = (old_place + 1, new_place + 1);
    }
    between(
        &old[old_from..],
        &new[new_from..],
        (at.0 + old_from, at.1 + new_from),
        levels - 1,
        budget,
        found,
    );
}

/// Places of elements that each sequence has once: the most that are in the same order in both.
fn anchors(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
    let once = |sequence: &[u32]| {
        let mut places: HashMap<u32, Option<usize>> = HashMap::new();
        for (place, id) in sequence.iter().enumerate() {
            places.entry(*id).and_modify(|place| *place = None).or_insert(Some(place));
        }
        places
    };
    let new_places = once(new);
    let mut pairs: Vec<(usize, usize)> =
        once(old).into_iter().filter_map(|(id, place)| Some((place?, (*new_places.get(&id)?)?))).collect();
    pairs.sort_unstable();
    longest_rising(&pairs)
}

/// The longest part of the pairs in which the second numbers rise, as the first ones do.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the pair that ends such a part with the lowest number; and for each pair the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![usize::MAX; pairs.len()];
    for (index, pair) in pairs.iter().enumerate() {
        let len = ends.partition_point(|end| pairs[*end].1 < pair.1);
        if len > 0 {
            before[index] = ends[len - 1];
        }
        if len == ends.len() {
            ends.push(index);
        } else {
            ends[len] = index;
        }
    }
    let mut part = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(index) = next {
        part.push(pairs[index]);
        next = (before[index] != usize::MAX).then_some(before[index]);
    }
    part.reverse();
    part
}

/// How many elements are the same at the start, and of the rest at the end.
fn trim<T: PartialEq>(old: &[T], new: &[T]) -> (usize, usize) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    (start, end)
}

/// The blocks that leave the fewest insertions and deletions (E. Myers, 1986), or nothing if there are too many, or the steps run out.
fn shortest<T: PartialEq>(old: &[T], new: &[T], budget: &mut Budget) -> Option<Vec<Block>> {
    if old.is_empty() || new.is_empty() {
        return Some(Vec::new());
    }
    let max = (old.len() + new.len()).min(DIFF_DISTANCE_MAX);
    // How far the diagonal `k` was followed with the last distance, at `k + max + 1`; and all of that for each distance, for the way back.
    let mut reach = vec![0usize; 2 * max + 3];
    let mut trace: Vec<Vec<usize>> = Vec::new();
    for distance in 0..=max {
        let mut steps = 0;
        for k in (-(distance as isize)..=distance as isize).step_by(2) {
            let at = (k + max as isize + 1) as usize;
            let down = k == -(distance as isize) || (k != distance as isize && reach[at - 1] < reach[at + 1]);
            let mut x = if down { reach[at + 1] } else { reach[at - 1] + 1 };
            let start = x;
            while let (Some(here), Some(there)) =
                (old.get(x), x.checked_add_signed(-k).and_then(|y| new.get(y)))
                && here == there
            {
                x += 1;
            }
            steps += 1 + x.saturating_sub(start);
            if steps as u64 > budget.0 {
                budget.0 = 0;
                return None;
            }
            reach[at] = x;
            if x >= old.len() && x as isize - k >= new.len() as isize {
                trace.push(reach[max + 1 - distance..=max + 1 + distance].to_vec());
                return Some(way_back(&trace, old.len(), new.len()));
            }
        }
        trace.push(reach[max + 1 - distance..=max + 1 + distance].to_vec());
        budget.spend(steps);
    }
    None
}

/// Follows the trace from the end of both sequences to their start.
fn way_back(trace: &[Vec<usize>], old_len: usize, new_len: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut x, mut y) = (old_len as isize, new_len as isize);
    for distance in (1..trace.len()).rev() {
        let (k, d) = (x - y, distance as isize);
        // Of the distance before, diagonal `k` stands at `k + d - 1`.
        let before = |k: isize| {
            let at = usize::try_from(k + d - 1).ok();
            at.and_then(|at| trace[distance - 1].get(at)).map_or(-1, |x| *x as isize)
        };
        let down = k == -d || (k != d && before(k - 1) < before(k + 1));
        let (from_x, start_x) =
            if down { (before(k + 1), before(k + 1)) } else { (before(k - 1), before(k - 1) + 1) };
        push_front(&mut blocks, start_x, start_x - k, x - start_x);
        x = from_x;
        y = if down { from_x - (k + 1) } else { from_x - (k - 1) };
    }
    push_front(&mut blocks, 0, 0, x);
    blocks.reverse();
    blocks
}

fn push_front(blocks: &mut Vec<Block>, old: isize, new: isize, len: isize) {
    if len > 0 {
        blocks.push(Block { old: old as usize, new: new as usize, len: len as usize });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that the blocks say the truth, and returns how many elements they have.
    fn checked(old: &[u32], new: &[u32], budget: u64) -> usize {
        let blocks = blocks(old, new, &mut Budget(budget));
        let (mut old_end, mut new_end) = (0, 0);
        for Block { old: from, new: to, len } in &blocks {
            assert!(*from >= old_end && *to >= new_end && *len > 0, "{blocks:?}");
            assert_eq!(old[*from..from + len], new[*to..to + len]);
            (old_end, new_end) = (from + len, to + len);
        }
        blocks.iter().map(|block| block.len).sum()
    }

    /// The longest common subsequence, by the book.
    fn longest(old: &[u32], new: &[u32]) -> usize {
        let mut row = vec![0; new.len() + 1];
        for left in old {
            let mut diagonal = 0;
            for (place, right) in new.iter().enumerate() {
                let above = row[place + 1];
                row[place + 1] = if left == right { diagonal + 1 } else { above.max(row[place]) };
                diagonal = above;
            }
        }
        row[new.len()]
    }

    proptest! {
        #[test]
        fn as_much_stays_as_can(
            old in prop::collection::vec(0u32..5, 0..40),
            new in prop::collection::vec(0u32..5, 0..40),
        ) {
            prop_assert_eq!(checked(&old, &new, u64::MAX), longest(&old, &new));
        }

        #[test]
        fn what_stays_is_the_same_without_steps_too(
            old in prop::collection::vec(0u32..30, 0..40),
            new in prop::collection::vec(0u32..30, 0..40),
            budget in 0u64..200,
        ) {
            prop_assert!(checked(&old, &new, budget) <= longest(&old, &new));
        }

        #[test]
        fn texts_become_each_other(old in "[ab\n]{0,60}", new in "[ab\n]{0,60}", budget in 0u64..300) {
            let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
            let mut text = old.clone();
            for hunk in text_hunks(&old, &new, &mut Budget(budget)).into_iter().rev() {
                text.splice(hunk.old, new[hunk.new].iter().copied());
            }
            prop_assert_eq!(text, new);
        }
    }

    #[test]
    fn long_lists_are_compared_by_what_is_in_them_once() {
        // Every third is another one: far more than is looked for step by step.
        let old: Vec<u32> = (0..60_000).collect();
        let new: Vec<u32> = (0..60_000).map(|n| if n % 3 == 0 { n + 100_000 } else { n }).collect();
        assert_eq!(checked(&old, &new, crate::limits::DIFF_STEPS_MAX), 40_000);
        let turned: Vec<u32> = old.iter().rev().copied().collect();
        assert_eq!(checked(&old, &turned, crate::limits::DIFF_STEPS_MAX), 1);
    }

    #[test]
    fn long_texts_are_compared_line_by_line() {
        let text = |change: bool| -> Vec<char> {
            let line = |n: u32| {
                if change && n.is_multiple_of(2) {
                    format!("line {n} is new\n")
                } else {
                    format!("line {n} is old\n")
                }
            };
            (0..2_000).map(line).collect::<String>().chars().collect()
        };
        let (old, new) = (text(false), text(true));
        let hunks = text_hunks(&old, &new, &mut Budget(crate::limits::DIFF_STEPS_MAX));
        let deleted: usize = hunks.iter().map(|hunk| hunk.old.len()).sum();
        assert_eq!((hunks.len(), deleted), (1_000, 3_000));
    }
}
