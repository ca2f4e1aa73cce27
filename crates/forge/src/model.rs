//! A change as plain data, read from a chunk and written as one.

use std::io::Read;

use automerge::ChangeHash;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Names an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// Its counter.
    pub ctr: u64,
    /// The bytes of its actor's id.
    pub actor: Vec<u8>,
}

/// Where in its object an operation happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Under a key of a map.
    Text(String),
    /// Before the first element of a sequence.
    Head,
    /// At an element, or behind it.
    Element(OpId),
    /// Nowhere: no column says anything. No library writes this.
    Missing,
}

/// The numbers of the actions.
#[allow(missing_docs)]
pub mod action {
    pub const MAKE_MAP: u64 = 0;
    pub const SET: u64 = 1;
    pub const MAKE_LIST: u64 = 2;
    pub const DELETE: u64 = 3;
    pub const MAKE_TEXT: u64 = 4;
    pub const INCREMENT: u64 = 5;
    pub const MAKE_TABLE: u64 = 6;
    pub const MARK: u64 = 7;
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// `None` is the root.
    pub object: Option<OpId>,
    /// The place in the object.
    pub key: Key,
    /// Whether it makes a new element.
    pub insert: bool,
    /// What it does, one of [`action`].
    pub action: u64,
    /// The type of the value, and its bytes.
    pub value: (u8, Vec<u8>),
    /// What it replaces.
    pub preds: Vec<OpId>,
    /// Whether a mark expands here.
    pub expand: bool,
    /// The name of a mark that begins here.
    pub mark_name: Option<String>,
}

impl Op {
    /// Sets a key of the root to a text.
    pub fn set(key: &str, value: &str) -> Self {
        Self {
            object: None,
            key: Key::Text(key.to_owned()),
            insert: false,
            action: action::SET,
            value: (6, value.as_bytes().to_vec()),
            preds: Vec::new(),
            expand: false,
            mark_name: None,
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandMade {
    /// What it was made on top of.
    pub deps: Vec<ChangeHash>,
    /// The bytes of the author's id.
    pub actor: Vec<u8>,
    /// The number of the change among its author's.
    pub seq: u64,
    /// The counter of the first operation.
    pub start_op: u64,
    /// When it was made, as the application counts.
    pub time: i64,
    /// What the application says about it.
    pub message: Vec<u8>,
    /// The operations.
    pub ops: Vec<Op>,
    /// What follows the operations.
    pub extra: Vec<u8>,
    /// Actors that are listed although no operation names them.
    pub unused_actors: Vec<Vec<u8>>,
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const SPECS: [u64; 14] = [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73, 0x94, 0xa5];

impl HandMade {
    /// Reads a chunk that the stock library wrote.
    pub fn decode(chunk: &[u8]) -> Self {
        let mut input = &chunk[9..];
        let mut data = take_prefixed(&mut input).to_vec();
        if chunk[8] == 2 {
            let mut plain = Vec::new();
            flate2::read::DeflateDecoder::new(&data[..]).read_to_end(&mut plain).expect("it inflates");
            data = plain;
        }
        Self::decode_data(&data)
    }

    fn decode_data(data: &[u8]) -> Self {
        let input = &mut &data[..];
        let deps = (0..take_uleb(input)).map(|_| ChangeHash(take(input, 32).try_into().unwrap())).collect();
        let actor = take_prefixed(input).to_vec();
        let (seq, start_op, time) = (take_uleb(input), take_uleb(input), take_sleb(input));
        let message = take_prefixed(input).to_vec();
        let mut actors = vec![actor.clone()];
        actors.extend((0..take_uleb(input)).map(|_| take_prefixed(input).to_vec()));
        let layout: Vec<(u64, u64)> =
            (0..take_uleb(input)).map(|_| (take_uleb(input), take_uleb(input))).collect();
        let mut columns = [&[][..]; 14];
        for (spec, len) in layout {
            let column = take(input, len as usize);
            let place = SPECS.iter().position(|known| *known == spec).expect("a known column");
            columns[place] = column;
        }
        let ops = decode_ops(&columns, &actors);
        let extra = input.to_vec();
        Self { deps, actor, seq, start_op, time, message, ops, extra, unused_actors: Vec::new() }
    }

    /// The chunk, with a right checksum. Dependencies and predecessors are written in the order in which they are.
    pub fn encode(&self) -> Bytes {
        chunk(&self.data())
    }

    /// What is in the chunk.
    pub fn data(&self) -> Vec<u8> {
        let actors = self.actors();
        let mut out = Vec::new();
        uleb(&mut out, self.deps.len() as u64);
        self.deps.iter().for_each(|dep| out.extend(dep.0));
        prefixed(&mut out, &self.actor);
        uleb(&mut out, self.seq);
        uleb(&mut out, self.start_op);
        sleb(&mut out, self.time);
        prefixed(&mut out, &self.message);
        uleb(&mut out, actors.len() as u64 - 1);
        actors[1..].iter().for_each(|actor| prefixed(&mut out, actor));
        let columns = encode_ops(&self.ops, &actors);
        let present = || SPECS.iter().zip(&columns).filter(|(_, column)| !column.is_empty());
        uleb(&mut out, present().count() as u64);
        for (spec, column) in present() {
            uleb(&mut out, *spec);
            uleb(&mut out, column.len() as u64);
        }
        present().for_each(|(_, column)| out.extend(column));
        out.extend(&self.extra);
        out
    }

    /// The hash that the change has when it is written.
    pub fn hash(&self) -> ChangeHash {
        hash(&self.encode())
    }

    /// The id of the operation at this place.
    pub fn id(&self, place: usize) -> OpId {
        OpId { ctr: self.start_op + place as u64, actor: self.actor.clone() }
    }

    /// The author, and then all others that operations name, in order.
    fn actors(&self) -> Vec<Vec<u8>> {
        let mut others: Vec<_> = self.ops.iter().flat_map(named).map(|id| id.actor.clone()).collect();
        others.extend(self.unused_actors.iter().cloned());
        others.sort();
        others.dedup();
        others.retain(|actor| *actor != self.actor);
        others.insert(0, self.actor.clone());
        others
    }
}

fn named(op: &Op) -> impl Iterator<Item = &OpId> {
    let element = match &op.key {
        Key::Element(id) => Some(id),
        _ => None,
    };
    op.object.iter().chain(element).chain(&op.preds)
}

/// A change chunk around this data.
pub fn chunk(data: &[u8]) -> Bytes {
    let mut hashed = vec![1];
    uleb(&mut hashed, data.len() as u64);
    hashed.extend(data);
    let hash = Sha256::digest(&hashed);
    [&MAGIC[..], &hash[..4], &hashed].concat().into()
}

/// The hash of a change chunk that is not compressed.
pub fn hash(chunk: &[u8]) -> ChangeHash {
    ChangeHash(Sha256::digest(&chunk[8..]).into())
}

fn decode_ops(columns: &[&[u8]; 14], actors: &[Vec<u8>]) -> Vec<Op> {
    let number = |column: &[u8]| runs(column, take_uleb);
    let text = |column: &[u8]| {
        runs(column, |input| String::from_utf8(take_prefixed(input).to_vec()).expect("text is UTF-8"))
    };
    let id = |ctr: u64, actor: u64| OpId { ctr, actor: actors[actor as usize].clone() };
    let actions = number(columns[6]);
    let [object_actor, object_ctr, key_actor] = [0, 1, 2].map(|column| number(columns[column]));
    let (key_ctr, key_text) = (deltas(columns[3]), text(columns[4]));
    let (insert, expand, mark_name) = (booleans(columns[5]), booleans(columns[12]), text(columns[13]));
    let (meta, mut raw) = (number(columns[7]), columns[8]);
    let (pred_count, pred_actor, pred_ctr) = (number(columns[9]), number(columns[10]), deltas(columns[11]));
    let mut pred = 0;
    (0..actions.len())
        .map(|n| {
            let key = match (at(&key_text, n), at(&key_actor, n), at(&key_ctr, n)) {
                (Some(text), ..) => Key::Text(text),
                (None, None, Some(0)) => Key::Head,
                (None, Some(actor), Some(ctr)) => Key::Element(id(ctr as u64, actor)),
                _ => Key::Missing,
            };
            let meta = at(&meta, n).unwrap_or(0);
            let count = at(&pred_count, n).unwrap_or(0) as usize;
            let preds = pred..pred + count;
            pred += count;
            Op {
                object: at(&object_ctr, n).map(|ctr| id(ctr, at(&object_actor, n).unwrap_or(0))),
                key,
                insert: at(&insert, n).unwrap_or(false),
                action: at(&actions, n).unwrap_or(0),
                value: ((meta & 15) as u8, take(&mut raw, (meta >> 4) as usize).to_vec()),
                preds: preds
                    .map(|n| id(pred_ctr[n].unwrap_or(0) as u64, at(&pred_actor, n).unwrap_or(0)))
                    .collect(),
                expand: at(&expand, n).unwrap_or(false),
                mark_name: at(&mark_name, n),
            }
        })
        .collect()
}

fn at<T: Clone>(values: &[Option<T>], n: usize) -> Option<T> {
    values.get(n).cloned().flatten()
}

fn encode_ops(ops: &[Op], actors: &[Vec<u8>]) -> [Vec<u8>; 14] {
    let actor = |id: &OpId| actors.iter().position(|actor| *actor == id.actor).unwrap_or(0) as u64;
    let element = |op: &Op| match &op.key {
        Key::Element(id) => Some((Some(actor(id)), id.ctr as i64)),
        Key::Head => Some((None, 0)),
        _ => None,
    };
    let text = |op: &Op| match &op.key {
        Key::Text(text) => Some(text.clone()),
        _ => None,
    };
    let number = |out: &mut Vec<u8>, value: &u64| uleb(out, *value);
    let string = |out: &mut Vec<u8>, value: &String| prefixed(out, value.as_bytes());
    let preds = || ops.iter().flat_map(|op| &op.preds);
    let expand: Vec<bool> = ops.iter().map(|op| op.expand).collect();
    [
        write_runs(ops.iter().map(|op| op.object.as_ref().map(actor)), number),
        write_runs(ops.iter().map(|op| op.object.as_ref().map(|id| id.ctr)), number),
        write_runs(ops.iter().map(|op| element(op).and_then(|(actor, _)| actor)), number),
        write_deltas(ops.iter().map(|op| element(op).map(|(_, ctr)| ctr))),
        write_runs(ops.iter().map(text), string),
        write_booleans(&ops.iter().map(|op| op.insert).collect::<Vec<_>>()),
        write_runs(ops.iter().map(|op| Some(op.action)), number),
        write_runs(ops.iter().map(|op| Some((op.value.1.len() as u64) << 4 | u64::from(op.value.0))), number),
        ops.iter().flat_map(|op| op.value.1.iter().copied()).collect(),
        write_runs(ops.iter().map(|op| Some(op.preds.len() as u64)), number),
        write_runs(preds().map(|id| Some(actor(id))), number),
        write_deltas(preds().map(|id| Some(id.ctr as i64))),
        if expand.contains(&true) { write_booleans(&expand) } else { Vec::new() },
        write_runs(ops.iter().map(|op| op.mark_name.clone()), string),
    ]
}

fn runs<T: Clone>(column: &[u8], take: impl Fn(&mut &[u8]) -> T) -> Vec<Option<T>> {
    let (input, mut values) = (&mut &column[..], Vec::new());
    while !input.is_empty() {
        match take_sleb(input) {
            0 => values.resize(values.len() + take_uleb(input) as usize, None),
            len @ 1.. => values.resize(values.len() + len as usize, Some(take(input))),
            len => values.extend((0..-len).map(|_| Some(take(input)))),
        }
    }
    values
}

fn deltas(column: &[u8]) -> Vec<Option<i64>> {
    let mut sum = 0;
    let add = |delta: Option<i64>| {
        delta.map(|delta| {
            sum += delta;
            sum
        })
    };
    runs(column, take_sleb).into_iter().map(add).collect()
}

fn booleans(column: &[u8]) -> Vec<Option<bool>> {
    let (input, mut values, mut value) = (&mut &column[..], Vec::new(), false);
    while !input.is_empty() {
        values.resize(values.len() + take_uleb(input) as usize, Some(value));
        value = !value;
    }
    values
}

fn write_runs<T: PartialEq>(
    values: impl Iterator<Item = Option<T>>,
    write: impl Fn(&mut Vec<u8>, &T),
) -> Vec<u8> {
    let values: Vec<Option<T>> = values.collect();
    let (mut out, mut rest) = (Vec::new(), &values[..]);
    if values.iter().all(Option::is_none) {
        return out;
    }
    let same = |rest: &[Option<T>]| rest.iter().take_while(|value| **value == rest[0]).count();
    while let Some(first) = rest.first() {
        let len = match (first, same(rest)) {
            (None, len) => {
                sleb(&mut out, 0);
                uleb(&mut out, len as u64);
                len
            }
            (Some(value), len @ 2..) => {
                sleb(&mut out, len as i64);
                write(&mut out, value);
                len
            }
            _ => {
                let alone = (0..rest.len()).take_while(|n| rest[*n].is_some() && same(&rest[*n..]) == 1);
                let len = alone.count();
                sleb(&mut out, -(len as i64));
                rest[..len].iter().flatten().for_each(|value| write(&mut out, value));
                len
            }
        };
        rest = &rest[len..];
    }
    out
}

fn write_deltas(values: impl Iterator<Item = Option<i64>>) -> Vec<u8> {
    let mut last = 0i64;
    let deltas =
        values.map(|value| value.map(|value| value.wrapping_sub(std::mem::replace(&mut last, value))));
    write_runs(deltas.collect::<Vec<_>>().into_iter(), |out, delta| sleb(out, *delta))
}

fn write_booleans(values: &[bool]) -> Vec<u8> {
    let (mut out, mut rest, mut value) = (Vec::new(), values, false);
    while !rest.is_empty() {
        let len = rest.iter().take_while(|next| **next == value).count();
        uleb(&mut out, len as u64);
        (rest, value) = (&rest[len..], !value);
    }
    out
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

fn take_prefixed<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let len = take_uleb(input) as usize;
    take(input, len)
}

fn take_uleb(input: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(input, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn take_sleb(input: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0i64, 0);
    loop {
        let byte = take(input, 1)[0];
        value |= i64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return if shift < 64 && byte & 0x40 != 0 { value | -1 << shift } else { value };
        }
    }
}

/// Writes an unsigned LEB128 number.
pub fn uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a signed LEB128 number.
pub fn sleb(out: &mut Vec<u8>, mut value: i64) {
    while !(-64..64).contains(&value) {
        out.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    out.push(value as u8 & 0x7f);
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    uleb(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock;

    #[test]
    fn what_stock_wrote_is_written_the_same() {
        for seed in 0..50 {
            for change in stock::document(seed, 40) {
                let made = HandMade::decode(change.raw_bytes());
                assert_eq!(made.hash(), change.hash(), "seed {seed}: {made:#?}");
            }
        }
    }
}
