//! A history as it is stored beside a snapshot, so that a document can be opened without loading it.
//!
//! Two parts. The *graph* is one piece: a version, the actors, then per change its author, dependencies, counters and number of operations, each a column of runs, since nearly
//! all changes are like the one before; then the objects, the keys, and the runs of operations of each actor. The *pages* hold the hashes, 36 bytes a change with its place in the
//! order of arrival, sorted, and cut by the first bytes of the hash: whether a change is there is told by one page, without the rest.
//!
//! Numbers are unsigned LEB128. What is read is checked as far as it takes to stay within bounds; that it is what was written is for whoever stores it to know.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::ops::{Actor, HEAD, Kind, ObjectKind, OpId, OpIndex, Place, Run, Update};
use super::{History, Index};
use crate::change::strict::{Flaw, prefixed, text, uleb};
use crate::id::{ActorId, ChangeHash};
use crate::sync::message::write_leb128;

/// Goes up when the layout changes. Another one is not read: the index is made anew from the document.
const VERSION: u64 = 1;
/// Changes in a page, about.
const PAGE_CHANGES: usize = 1024;
/// A hash and a place.
const ENTRY_BYTES: usize = 32 + 4;

const DAMAGED: Flaw = "the graph index contradicts itself";

/// The graph of a history without its hashes, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGraph(pub(crate) Bytes);

/// The hashes of a history, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashPages(pub(crate) Vec<Bytes>);

/// The page that a hash is on, of so many.
pub(crate) fn page_of(hash: &ChangeHash, pages: usize) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    ((u128::from(u64::from_be_bytes(first)) * pages as u128) >> 64) as usize
}

/// Whether a page has a change.
pub(crate) fn find_in_page(page: &[u8], hash: &ChangeHash) -> bool {
    let (entries, _) = page.as_chunks::<ENTRY_BYTES>();
    entries.binary_search_by(|entry| entry[..32].cmp(&hash.0)).is_ok()
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> (ChangeHash, Index) {
    let (mut hash, mut index) = ([0; 32], [0; 4]);
    hash.copy_from_slice(&bytes[..32]);
    index.copy_from_slice(&bytes[32..]);
    (ChangeHash(hash), Index::from_le_bytes(index))
}

impl HashPages {
    fn entries(&self) -> impl Iterator<Item = (ChangeHash, Index)> {
        self.0.iter().flat_map(|page| page.as_chunks::<ENTRY_BYTES>().0).map(entry)
    }

    /// The places of the changes by their hashes, if the changes at these places have them, and no place of the first ones is left out.
    pub(super) fn places<'a>(&self, known: impl Fn(Index) -> Option<&'a ChangeHash>) -> Option<Vec<Index>> {
        let mut places = Vec::with_capacity(self.0.iter().map(Bytes::len).sum::<usize>() / ENTRY_BYTES);
        for (hash, index) in self.entries() {
            if known(index) != Some(&hash) {
                return None;
            }
            places.push(index);
        }
        // Hashes differ, and so do their places; with none beyond the count all are there.
        let is_all = places.iter().all(|index| (*index as usize) < places.len());
        (self.is_whole() && is_all).then_some(places)
    }

    fn is_whole(&self) -> bool {
        self.0.iter().all(|page| page.len() % ENTRY_BYTES == 0)
    }
}

impl History {
    /// The graph and the hashes, for a store. Everything must be durable.
    pub(crate) fn to_stored(&self) -> (StoredGraph, HashPages) {
        debug_assert!(!self.has_staged());
        let mut out = Vec::new();
        write_leb128(&mut out, VERSION);
        self.write_changes(&mut out);
        write_ops(&self.ops, &mut out);
        (StoredGraph(out.into()), self.to_pages())
    }

    fn to_pages(&self) -> HashPages {
        let mut sorted: Vec<Index> = (0..self.len()).collect();
        sorted.sort_unstable_by_key(|index| self.hash(*index));
        let mut pages = vec![Vec::new(); sorted.len().div_ceil(PAGE_CHANGES).max(1)];
        for index in sorted {
            let hash = self.hash(index);
            let place = page_of(hash, pages.len());
            pages[place].extend_from_slice(&hash.0);
            pages[place].extend_from_slice(&index.to_le_bytes());
        }
        HashPages(pages.into_iter().map(Bytes::from).collect())
    }

    fn write_changes(&self, out: &mut Vec<u8>) {
        let len = self.len() as usize;
        write_leb128(out, len as u64);
        write_leb128(out, self.ops.actors.len() as u64);
        let mut made = vec![(0u64, 0u64); len];
        for (author, actor) in self.ops.actors.iter().enumerate() {
            write_bytes(out, actor.id.to_bytes());
            for (start, index) in &actor.changes {
                made[*index as usize] = (author as u64, u64::from(*start));
            }
        }
        let end = |index: Index| self.nodes.max_op(index) + 1;
        let first = |index: Index| self.deps(index).iter().map(|dep| end(*dep)).max().unwrap_or(1);
        let all = || 0..len as Index;
        write_runs(out, all().map(|index| made[index as usize].0));
        write_runs(out, all().map(|index| made[index as usize].1 - first(index)));
        write_runs(out, all().map(|index| end(index) - made[index as usize].1));
        write_runs(out, all().map(|index| self.dep_count(index)));
        for index in all().filter(|index| self.dep_count(*index) > 0) {
            self.deps(index).iter().for_each(|dep| write_leb128(out, u64::from(index - dep)));
        }
    }

    /// 0 for a change that depends on the one that came before it; otherwise one more than the number of its dependencies.
    fn dep_count(&self, index: Index) -> u64 {
        match self.deps(index) {
            [dep] if dep + 1 == index => 0,
            deps => deps.len() as u64 + 1,
        }
    }

    /// Takes a history from what a store kept. All of it is durable, and covered by the snapshot.
    pub(crate) fn from_stored(graph: &StoredGraph, pages: &HashPages) -> Result<Self, Flaw> {
        let input = &mut &graph.0[..];
        if uleb(input)? != VERSION {
            return Err("the graph index has another version");
        }
        let mut history = Self::default();
        let leaves = history.read_changes(input)?;
        read_ops(input, &mut history.ops)?;
        let is_whole = input.is_empty() && pages.is_whole();
        let hashes = history.nodes.set_hashes(pages.entries());
        if !is_whole || hashes.is_none() {
            return Err(DAMAGED);
        }
        let mut heads: Vec<ChangeHash> = leaves.iter().map(|index| *history.hash(*index)).collect();
        heads.sort_unstable();
        history.heads = Arc::new(heads);
        history.tips = leaves;
        history.durable = history.nodes.len();
        Ok(history)
    }

    /// Reads the changes, and returns those that no other depends on.
    fn read_changes(&mut self, input: &mut &[u8]) -> Result<BTreeSet<Index>, Flaw> {
        let len = uleb(input)?;
        let actors = bounded(uleb(input)?, input)?;
        for _ in 0..actors {
            self.ops.add_actor(ActorId::from(prefixed(input)?));
        }
        let mut authors = Runs::read(input, len)?;
        let mut gaps = Runs::read(input, len)?;
        let mut counts = Runs::read(input, len)?;
        let mut dep_counts = Runs::read(input, len)?;
        self.nodes.reserve(len as usize);
        // Whether a change is the last on its branch is known when all have been seen.
        let mut has_child = vec![false; len as usize];
        let mut deps = Vec::new();
        for index in 0..len as Index {
            read_deps(input, index, dep_counts.next()?, &mut deps)?;
            deps.iter().for_each(|dep: &Index| has_child[*dep as usize] = true);
            let before = deps.iter().map(|dep| self.nodes.max_op(*dep)).max().unwrap_or(0);
            let gap = gaps.next()?.checked_add(1).ok_or(DAMAGED)?;
            let start = before.checked_add(gap).ok_or(DAMAGED)?;
            let max_op = start.checked_add(counts.next()?).ok_or(DAMAGED)? - 1;
            if max_op >= u64::from(u32::MAX) {
                return Err(DAMAGED);
            }
            self.nodes.push_covered(&deps, max_op);
            self.max_op = self.max_op.max(max_op);
            let author = self.ops.actors.get_mut(authors.next()? as usize).ok_or(DAMAGED)?;
            author.changes.push((start as u32, index));
        }
        Ok((0..len as Index).filter(|index| !has_child[*index as usize]).collect())
    }
}

/// The dependencies of the change at `index`; see [`History::dep_count`].
fn read_deps(input: &mut &[u8], index: Index, count: u64, deps: &mut Vec<Index>) -> Result<(), Flaw> {
    deps.clear();
    if count == 0 {
        deps.push(index.checked_sub(1).ok_or(DAMAGED)?);
        return Ok(());
    }
    for _ in 1..count {
        let back = u32::try_from(uleb(input)?).ok().filter(|back| *back > 0);
        deps.push(back.and_then(|back| index.checked_sub(back)).ok_or(DAMAGED)?);
    }
    Ok(())
}

fn write_ops(ops: &OpIndex, out: &mut Vec<u8>) {
    // The root is always there.
    write_leb128(out, ops.objects.len() as u64 - 1);
    for (maker, kind) in &ops.objects[1..] {
        write_id(out, *maker);
        out.push(*kind as u8);
    }
    write_leb128(out, ops.keys.len() as u64);
    ops.keys.iter().for_each(|key| write_bytes(out, key.as_bytes()));
    for actor in &ops.actors {
        write_leb128(out, actor.runs.len() as u64);
        let mut before = 0;
        for run in &actor.runs {
            write_leb128(out, u64::from(run.ctr - before));
            write_run(out, run);
            before = run.ctr;
        }
    }
    let mut updates: Vec<_> = ops.updates.iter().collect();
    updates.sort_unstable_by_key(|(element, _)| (element.ctr, element.actor));
    write_leb128(out, updates.len() as u64);
    for (element, updates) in updates {
        write_id(out, *element);
        write_leb128(out, updates.len() as u64);
        for update in updates {
            write_id(out, update.id);
            // No operation has the counter 0.
            write_id(out, update.value.unwrap_or(HEAD));
            write_leb128(out, update.replaced.len() as u64);
            update.replaced.iter().for_each(|replaced| write_id(out, *replaced));
        }
    }
}

const KEY: u8 = 0;
const ELEMENT: u8 = 1;
const BEHIND: u8 = 2;
const NOTHING: u8 = 3;

fn write_run(out: &mut Vec<u8>, run: &Run) {
    let tag = |place: u8| place | (run.kind as u8) << 2;
    // Elements are mostly near the operation that names them.
    let element = |out: &mut Vec<u8>, id: OpId| {
        write_leb128(out, u64::from(run.ctr - id.ctr));
        write_leb128(out, u64::from(id.actor));
    };
    match run.place {
        Place::Key(key) => {
            out.push(tag(KEY));
            write_leb128(out, u64::from(key));
        }
        Place::Element(id) => {
            out.push(tag(ELEMENT));
            element(out, id);
        }
        Place::Behind(id) => {
            out.push(tag(BEHIND));
            element(out, id);
        }
        Place::Nothing => out.push(tag(NOTHING)),
    }
    write_leb128(out, u64::from(run.object));
}

fn read_ops(input: &mut &[u8], ops: &mut OpIndex) -> Result<(), Flaw> {
    let objects = bounded(uleb(input)?, input)?;
    ops.by_maker.reserve(objects);
    for _ in 0..objects {
        let maker = read_id(input, ops)?;
        let kind = match byte(input)? {
            0 => ObjectKind::Map,
            1 => ObjectKind::Table,
            2 => ObjectKind::List,
            3 => ObjectKind::Text,
            _ => return Err(DAMAGED),
        };
        ops.add_object(maker, kind);
    }
    let keys = bounded(uleb(input)?, input)?;
    ops.by_key.reserve(keys);
    for _ in 0..keys {
        ops.key(text(input)?);
    }
    for actor in 0..ops.actors.len() {
        let runs = read_actor_runs(input, ops)?;
        ops.actors[actor].runs = runs;
    }
    read_updates(input, ops)
}

fn read_actor_runs(input: &mut &[u8], ops: &OpIndex) -> Result<Vec<Run>, Flaw> {
    let count = bounded(uleb(input)?, input)?;
    let (mut runs, mut ctr) = (Vec::with_capacity(count), 0u32);
    for _ in 0..count {
        let step = number(input)?;
        ctr = ctr.checked_add(step).filter(|_| step > 0).ok_or(DAMAGED)?;
        let tag = byte(input)?;
        let place = match tag & 3 {
            KEY => Place::Key(number(input).and_then(|key| within(key, ops.keys.len()))?),
            ELEMENT => Place::Element(read_element(input, ops, ctr)?),
            BEHIND => Place::Behind(read_element(input, ops, ctr)?),
            _ => Place::Nothing,
        };
        let kind = match tag >> 2 {
            0 => Kind::Value,
            1 => Kind::Counter,
            2 => Kind::Object,
            3 => Kind::Mark,
            _ => return Err(DAMAGED),
        };
        let object = number(input).and_then(|object| within(object, ops.objects.len()))?;
        runs.push(Run { ctr, object, place, kind });
    }
    Ok(runs)
}

fn read_element(input: &mut &[u8], ops: &OpIndex, ctr: u32) -> Result<OpId, Flaw> {
    let ctr = ctr.checked_sub(number(input)?).ok_or(DAMAGED)?;
    Ok(OpId { ctr, actor: number(input).and_then(|actor| within(actor, ops.actors.len()))? })
}

fn read_updates(input: &mut &[u8], ops: &mut OpIndex) -> Result<(), Flaw> {
    for _ in 0..uleb(input)? {
        let element = read_id(input, ops)?;
        let mut updates = Vec::new();
        for _ in 0..uleb(input)? {
            let id = read_id(input, ops)?;
            let value = Some(read_id(input, ops)?).filter(|value| *value != HEAD);
            let count = bounded(uleb(input)?, input)?;
            let replaced = (0..count).map(|_| read_id(input, ops)).collect::<Result<_, _>>()?;
            updates.push(Update { id, value, replaced });
        }
        ops.updates.insert(element, updates);
    }
    Ok(())
}

fn write_id(out: &mut Vec<u8>, id: OpId) {
    write_leb128(out, u64::from(id.ctr));
    write_leb128(out, u64::from(id.actor));
}

fn read_id(input: &mut &[u8], ops: &OpIndex) -> Result<OpId, Flaw> {
    let ctr = number(input)?;
    Ok(OpId { ctr, actor: number(input).and_then(|actor| within(actor, ops.actors.len()))? })
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_leb128(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn byte(input: &mut &[u8]) -> Result<u8, Flaw> {
    let (first, rest) = input.split_first().ok_or(DAMAGED)?;
    *input = rest;
    Ok(*first)
}

fn number(input: &mut &[u8]) -> Result<u32, Flaw> {
    u32::try_from(uleb(input)?).map_err(|_| DAMAGED)
}

fn within(index: u32, len: usize) -> Result<u32, Flaw> {
    if (index as usize) < len { Ok(index) } else { Err(DAMAGED) }
}

/// A number of things of which each takes a byte at least.
fn bounded(count: u64, input: &[u8]) -> Result<usize, Flaw> {
    usize::try_from(count).ok().filter(|count| *count <= input.len()).ok_or(DAMAGED)
}

/// Writes a column: how many bytes it takes, then per run its length and its value.
fn write_runs(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut column = Vec::new();
    let mut run: Option<(u64, u64)> = None;
    for value in values {
        match &mut run {
            Some((len, same)) if *same == value => *len += 1,
            _ => {
                if let Some((len, same)) = run.replace((1, value)) {
                    write_leb128(&mut column, len);
                    write_leb128(&mut column, same);
                }
            }
        }
    }
    if let Some((len, same)) = run {
        write_leb128(&mut column, len);
        write_leb128(&mut column, same);
    }
    write_bytes(out, &column);
}

/// Reads a column.
struct Runs<'a> {
    input: &'a [u8],
    left: u64,
    value: u64,
}

impl<'a> Runs<'a> {
    /// A column of `len` values; that it has as many is checked before anything is reserved for them.
    fn read(input: &mut &'a [u8], len: u64) -> Result<Self, Flaw> {
        let column = prefixed(input)?;
        let (mut rest, mut total) = (column, 0u64);
        while !rest.is_empty() {
            total = total.checked_add(uleb(&mut rest)?).ok_or(DAMAGED)?;
            uleb(&mut rest)?;
        }
        if total != len || len > crate::limits::DOCUMENT_CHANGES_MAX as u64 {
            return Err(DAMAGED);
        }
        Ok(Self { input: column, left: 0, value: 0 })
    }

    fn next(&mut self) -> Result<u64, Flaw> {
        while self.left == 0 {
            (self.left, self.value) = (uleb(&mut self.input)?, uleb(&mut self.input)?);
        }
        self.left -= 1;
        Ok(self.value)
    }
}

impl OpIndex {
    fn add_actor(&mut self, id: ActorId) {
        self.by_id.insert(id.clone(), self.actors.len() as u32);
        self.actors.push(Actor { id, changes: Vec::new(), runs: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_beyond_all_bounds_are_damage() {
        for (gap, count) in [(0, 1), (u64::MAX, 1), (u64::MAX - 1, 1), (0, u64::MAX), (1 << 32, 0)] {
            let mut graph = Vec::new();
            [VERSION, 1, 1].into_iter().for_each(|number| write_leb128(&mut graph, number));
            write_bytes(&mut graph, &[7]);
            [0, gap, count, 1].into_iter().for_each(|value| write_runs(&mut graph, [value].into_iter()));
            // No objects, keys, runs and updates.
            graph.extend([0; 4]);
            let mut page = vec![9; 32];
            page.extend(0u32.to_le_bytes());
            let read = History::from_stored(&StoredGraph(graph.into()), &HashPages(vec![page.into()]));
            assert_eq!(read.is_ok(), (gap, count) == (0, 1), "{gap} {count}");
        }
    }
}
