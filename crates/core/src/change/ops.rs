//! The operations of a change, one by one, without unfolding it.

use super::strict::{self, Booleans, Delta, Flaw, Rle};
use crate::limits::{CHANGE_MESSAGE_BYTES_MAX, OP_COUNTER_MAX, TIME_MAX};

/// The columns of a change: their specifications in the order in which they are written.
const SPECS: [u64; 14] = [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73, 0x94, 0xa5];
const OBJ_ACTOR: usize = 0;
const OBJ_CTR: usize = 1;
const KEY_ACTOR: usize = 2;
const KEY_CTR: usize = 3;
const KEY_TEXT: usize = 4;
const INSERT: usize = 5;
const ACTION: usize = 6;
const VALUE_META: usize = 7;
const VALUE: usize = 8;
const PRED_COUNT: usize = 9;
const PRED_ACTOR: usize = 10;
const PRED_CTR: usize = 11;
const EXPAND: usize = 12;
const MARK_NAME: usize = 13;

/// Names an operation as a change does it: by its counter and by the place of its actor in the change's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalId {
    pub(crate) ctr: u32,
    /// 0 is the author of the change.
    pub(crate) actor: u32,
}

/// Where in its object an operation happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key<'a> {
    /// Under a key of a map.
    Text(&'a str),
    /// At an element of a sequence; `None` is the place before the first.
    Element(Option<LocalId>),
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    MakeMap,
    MakeList,
    MakeText,
    MakeTable,
    Set,
    Delete,
    Increment,
    Mark,
}

/// What an operation carries, as far as anybody needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Integer,
    Counter,
    Other,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op<'a> {
    /// `None` is the root.
    pub(crate) object: Option<LocalId>,
    pub(crate) key: Key<'a>,
    pub(crate) insert: bool,
    pub(crate) action: Action,
    pub(crate) value: Scalar,
    pub(crate) expand: bool,
    pub(crate) mark_name: Option<&'a str>,
}

/// Reads the data of a change chunk whose operations have been counted and found few enough.
pub(crate) struct Ops<'a> {
    /// The actors other than the author that the operations name, in order.
    pub(crate) others: Vec<&'a [u8]>,
    /// What follows the operations.
    extra: &'a [u8],
    object_actor: Rle<'a, u64>,
    object_ctr: Rle<'a, u64>,
    key_actor: Rle<'a, u64>,
    key_ctr: Delta<'a>,
    key_text: Rle<'a, &'a str>,
    insert: Booleans<'a>,
    action: Rle<'a, u64>,
    value_meta: Rle<'a, u64>,
    value: &'a [u8],
    pred_count: Rle<'a, u64>,
    pred_actor: Rle<'a, u64>,
    pred_ctr: Delta<'a>,
    expand: Booleans<'a>,
    expands: bool,
    has_expand: bool,
    mark_name: Rle<'a, &'a str>,
    /// Which of the others were named so far.
    named: Vec<bool>,
}

impl<'a> Ops<'a> {
    /// Reads what comes before the operations.
    pub(crate) fn read(data: &'a [u8]) -> Result<Self, Flaw> {
        let mut input = data;
        let deps = strict::uleb(&mut input)?;
        strict::bytes(&mut input, deps.saturating_mul(32))?;
        let author = strict::prefixed(&mut input)?;
        strict::uleb(&mut input)?; // seq
        strict::uleb(&mut input)?; // start op
        let time = strict::sleb(&mut input)?;
        if time.unsigned_abs() > TIME_MAX {
            return Err("the time is too far away");
        }
        if strict::text(&mut input)?.len() > CHANGE_MESSAGE_BYTES_MAX {
            return Err("the message of the change is too long");
        }
        let others = read_others(&mut input, author)?;
        let columns = read_columns(&mut input)?;
        let named = vec![false; others.len()];
        Ok(Self {
            others,
            named,
            extra: input,
            object_actor: Rle::new(columns[OBJ_ACTOR]),
            object_ctr: Rle::new(columns[OBJ_CTR]),
            key_actor: Rle::new(columns[KEY_ACTOR]),
            key_ctr: Delta::new(columns[KEY_CTR]),
            key_text: Rle::new(columns[KEY_TEXT]),
            insert: Booleans::new(columns[INSERT]),
            action: Rle::new(columns[ACTION]),
            value_meta: Rle::new(columns[VALUE_META]),
            value: columns[VALUE],
            pred_count: Rle::new(columns[PRED_COUNT]),
            pred_actor: Rle::new(columns[PRED_ACTOR]),
            pred_ctr: Delta::new(columns[PRED_CTR]),
            expand: Booleans::new(columns[EXPAND]),
            expands: false,
            has_expand: !columns[EXPAND].is_empty(),
            mark_name: Rle::new(columns[MARK_NAME]),
        })
    }

    /// Whether a change says who its author is as a person. It does in what follows the operations: a one, a length, that many bytes.
    pub(crate) fn names_author(&self) -> bool {
        names_author(self.extra)
    }

    /// The next operation; its predecessors are put into `preds`.
    pub(crate) fn next(&mut self, preds: &mut Vec<LocalId>) -> Result<Op<'a>, Flaw> {
        let object = self.object()?;
        let key = self.key()?;
        let insert = self.insert.next()?;
        let action = action(self.action.value()?)?;
        let value = self.scalar()?;
        preds.clear();
        for _ in 0..self.pred_count.value()? {
            let ctr = self.pred_ctr.next()?.ok_or("a value is missing")?;
            let actor = self.pred_actor.value()?;
            preds.push(self.id(actor, u64::try_from(ctr).unwrap_or(0))?);
        }
        let expand = self.expand.next()?;
        self.expands |= expand;
        let mark_name = self.mark_name.next()?;
        Ok(Op { object, key, insert, action, value, expand, mark_name })
    }

    fn object(&mut self) -> Result<Option<LocalId>, Flaw> {
        match (self.object_actor.next()?, self.object_ctr.next()?) {
            (None, None) => Ok(None),
            (Some(actor), Some(ctr)) => self.id(actor, ctr).map(Some),
            _ => Err("half of an object's id"),
        }
    }

    fn key(&mut self) -> Result<Key<'a>, Flaw> {
        match (self.key_text.next()?, self.key_actor.next()?, self.key_ctr.next()?) {
            (Some(text), None, None) => Ok(Key::Text(text)),
            (None, None, Some(0)) => Ok(Key::Element(None)),
            (None, Some(actor), Some(ctr)) => {
                self.id(actor, u64::try_from(ctr).unwrap_or(0)).map(|id| Key::Element(Some(id)))
            }
            _ => Err("a key that is neither text nor element"),
        }
    }

    fn id(&mut self, actor: u64, ctr: u64) -> Result<LocalId, Flaw> {
        if ctr == 0 || ctr > OP_COUNTER_MAX || actor > self.others.len() as u64 {
            return Err("an operation's id out of range");
        }
        if actor > 0 {
            self.named[actor as usize - 1] = true;
        }
        Ok(LocalId { ctr: ctr as u32, actor: actor as u32 })
    }

    fn scalar(&mut self) -> Result<Scalar, Flaw> {
        let meta = self.value_meta.value()?;
        let mut raw = strict::bytes(&mut self.value, meta >> 4)?;
        let scalar = match meta & 15 {
            0 => Scalar::Null,
            3 => strict::uleb(&mut raw).map(|_| Scalar::Integer)?,
            4 => strict::sleb(&mut raw).map(|_| Scalar::Integer)?,
            8 => strict::sleb(&mut raw).map(|_| Scalar::Counter)?,
            9 => strict::sleb(&mut raw).map(|_| Scalar::Other)?,
            5 if raw.len() == 8 => return Ok(Scalar::Other),
            6 if str::from_utf8(raw).is_ok() => return Ok(Scalar::Other),
            1 | 2 => Scalar::Other,
            7 | 10..=15 => return Ok(Scalar::Other),
            _ => return Err("a value that does not decode"),
        };
        if raw.is_empty() { Ok(scalar) } else { Err("a value that is longer than it needs to be") }
    }

    /// Checks that nothing is left, and nothing was there for nothing.
    pub(crate) fn finish(&self) -> Result<(), Flaw> {
        self.object_actor.finish()?;
        self.object_ctr.finish()?;
        self.key_actor.finish()?;
        self.key_ctr.finish()?;
        self.key_text.finish()?;
        self.insert.finish()?;
        self.action.finish()?;
        self.value_meta.finish()?;
        self.pred_count.finish()?;
        self.pred_actor.finish()?;
        self.pred_ctr.finish()?;
        self.expand.finish()?;
        self.mark_name.finish()?;
        if !self.value.is_empty() {
            return Err("values that belong to no operation");
        }
        if self.has_expand && !self.expands {
            return Err("a column without any value is not left out");
        }
        if !self.named.iter().all(|named| *named) {
            return Err("an actor that no operation names");
        }
        Ok(())
    }
}

fn action(number: u64) -> Result<Action, Flaw> {
    Ok(match number {
        0 => Action::MakeMap,
        1 => Action::Set,
        2 => Action::MakeList,
        3 => Action::Delete,
        4 => Action::MakeText,
        5 => Action::Increment,
        6 => Action::MakeTable,
        7 => Action::Mark,
        _ => return Err("an unknown action"),
    })
}

fn read_others<'a>(input: &mut &'a [u8], author: &[u8]) -> Result<Vec<&'a [u8]>, Flaw> {
    let count = strict::uleb(input)?;
    // An actor takes a byte at least.
    if count > input.len() as u64 {
        return Err("data ends early");
    }
    let others = (0..count).map(|_| strict::prefixed(input)).collect::<Result<Vec<_>, _>>()?;
    if !others.is_sorted_by(|a, b| a < b) || others.contains(&author) {
        return Err("actors are not in order, or twice there");
    }
    Ok(others)
}

fn read_columns<'a>(input: &mut &'a [u8]) -> Result<[&'a [u8]; SPECS.len()], Flaw> {
    let mut lens = [0; SPECS.len()];
    let mut next = 0;
    for _ in 0..strict::uleb(input)? {
        let spec = strict::uleb(input)?;
        let Some(place) = SPECS[next..].iter().position(|known| *known == spec) else {
            return Err("a column that is unknown, out of order or twice there");
        };
        lens[next + place] = strict::uleb(input)?;
        if lens[next + place] == 0 {
            return Err("an empty column is not left out");
        }
        next += place + 1;
    }
    let mut columns = [&[][..]; SPECS.len()];
    for (column, len) in columns.iter_mut().zip(lens) {
        *column = strict::bytes(input, len)?;
    }
    Ok(columns)
}

/// Reads as leniently as Automerge does: what it takes for an author must be taken for one here.
fn names_author(mut extra: &[u8]) -> bool {
    const AUTHOR: u64 = 1;
    let Some(footer) = lenient_uleb(&mut extra) else { return false };
    let Some(len) = lenient_uleb(&mut extra) else { return false };
    footer == AUTHOR && len <= extra.len() as u64
}

fn lenient_uleb(input: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}
