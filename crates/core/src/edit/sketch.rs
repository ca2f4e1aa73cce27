//! Values as the comparison of lists sees them.

use std::hash::{DefaultHasher, Hash, Hasher};

use automerge::ScalarValue;

use super::align::{Block, Budget, Hunk, Ids, blocks, hunks};
use crate::json::Value;

/// Keys that say which thing an object is about: with another value under one of them, it is another thing.
const IDENTITIES: [&str; 4] = ["id", "_id", "key", "uuid"];
/// How alike two values can be.
const ALIKE_MAX: u32 = 1_000;
/// Pairs that are looked at for one hunk: they are kept in a table.
const PAIRS_MAX: usize = 1 << 18;

/// A number, whatever its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Number {
    Int(i128),
    Float(u64),
}

fn float(value: f64) -> Number {
    // Integers up to here have each their float.
    if value.fract() == 0.0 && value.abs() <= 2f64.powi(64) {
        Number::Int(value as i128)
    } else if value.is_nan() {
        Number::Float(f64::NAN.to_bits())
    } else {
        Number::Float(value.to_bits())
    }
}

/// The number that a value is, if it is one; counters are not.
fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Int(value) => Some(Number::Int((*value).into())),
        Value::Uint(value) => Some(Number::Int((*value).into())),
        Value::Float(value) => Some(float(*value)),
        _ => None,
    }
}

/// What a counter is to count, if it is set to this.
pub(super) fn count(value: &Value) -> Option<i64> {
    match (value, number(value)) {
        (Value::Counter(count), _) => Some(*count),
        (_, Some(Number::Int(count))) => i64::try_from(count).ok(),
        _ => None,
    }
}

/// Whether a scalar needs no edit to be this.
pub(super) fn scalar_is(scalar: &ScalarValue, wanted: &Value) -> bool {
    match (scalar, wanted) {
        (ScalarValue::Str(text), Value::String(wanted)) => text.as_str() == wanted,
        (ScalarValue::Counter(counter), wanted) => count(wanted) == Some(i64::from(counter)),
        _ => {
            let value = Value::of_scalar(scalar);
            number(&value).map_or(value == *wanted, |found| number(wanted) == Some(found))
        }
    }
}

/// Writes a value so that two are the same bytes if they are the same as JSON, but for their types of numbers and strings.
pub(super) fn write_class(value: &Value, out: &mut Vec<u8>) {
    let bytes = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(bytes);
    };
    let int = |out: &mut Vec<u8>, value: i128| {
        out.push(3);
        out.extend(value.to_le_bytes());
    };
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.push(1 + u8::from(*value)),
        Value::Counter(value) => int(out, (*value).into()),
        Value::Int(_) | Value::Uint(_) | Value::Float(_) => match number(value) {
            Some(Number::Int(value)) => int(out, value),
            Some(Number::Float(bits)) => bytes(out, 4, &bits.to_le_bytes()),
            None => {}
        },
        Value::String(text) | Value::Scalar(text) => bytes(out, 5, text.as_bytes()),
        Value::Date(value) => bytes(out, 6, &value.to_le_bytes()),
        Value::Bytes(value) => bytes(out, 7, value),
        Value::Unknown(type_code, value) => {
            out.push(*type_code);
            bytes(out, 8, value);
        }
        Value::List(items) => {
            out.push(9);
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write_class(item, out));
        }
        Value::Map(entries) => {
            out.push(10);
            out.extend((entries.len() as u64).to_le_bytes());
            for (key, value) in entries {
                bytes(out, 11, key.as_bytes());
                write_class(value, out);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Map,
    List,
    String,
    Scalar,
}

/// What of an element tells whether another one is an edit of it.
#[derive(Debug)]
pub(super) struct Sketch {
    kind: Kind,
    identity: Option<u64>,
    /// Of a map its entries, of a list its elements, of a string its characters, by place.
    parts: Vec<u64>,
}

impl Sketch {
    pub(super) fn new(value: &Value) -> Self {
        let (kind, parts) = match value {
            Value::Map(entries) => {
                let mut parts: Vec<u64> = entries.iter().map(|(key, value)| hash(key, value)).collect();
                parts.sort_unstable();
                (Kind::Map, parts)
            }
            Value::List(items) => {
                let mut parts: Vec<u64> = items.iter().map(|item| hash("", item)).collect();
                parts.sort_unstable();
                (Kind::List, parts)
            }
            Value::String(text) | Value::Scalar(text) => {
                (Kind::String, text.chars().map(u64::from).collect())
            }
            _ => (Kind::Scalar, Vec::new()),
        };
        Self { kind, identity: identity(value), parts }
    }

    /// How alike two elements are, or nothing if the one is no edit of the other.
    fn alike(&self, other: &Self) -> Option<u32> {
        let other_thing =
            self.identity.is_some() && other.identity.is_some() && self.identity != other.identity;
        if self.kind != other.kind || other_thing {
            return None;
        }
        if self.identity.is_some() && self.identity == other.identity {
            return Some(ALIKE_MAX);
        }
        let common = match self.kind {
            Kind::String => common_ends(&self.parts, &other.parts),
            _ => common_parts(&self.parts, &other.parts),
        };
        let all = self.parts.len() + other.parts.len();
        Some((u64::from(ALIKE_MAX) * 2 * common as u64).checked_div(all as u64).unwrap_or(0) as u32)
    }
}

fn identity(value: &Value) -> Option<u64> {
    let Value::Map(entries) = value else {
        return None;
    };
    IDENTITIES.iter().find_map(|key| Some(hash(key, entries.get(*key)?)))
}

fn hash(key: &str, value: &Value) -> u64 {
    let mut class = Vec::new();
    write_class(value, &mut class);
    let mut hasher = DefaultHasher::new();
    (key, class).hash(&mut hasher);
    hasher.finish()
}

fn common_ends(left: &[u64], right: &[u64]) -> usize {
    let start = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let (left, right) = (&left[start..], &right[start..]);
    start + left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

/// How many numbers two sorted lists have in common.
fn common_parts(left: &[u64], right: &[u64]) -> usize {
    let (mut at, mut common) = (0, 0);
    for part in left {
        at += right[at..].partition_point(|other| other < part);
        if right.get(at) == Some(part) {
            (at, common) = (at + 1, common + 1);
        }
    }
    common
}

/// What becomes of the elements of a list, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The old element becomes the new one.
    Both(usize, usize),
    /// The old element goes.
    Delete(usize),
    /// The new element comes.
    Insert(usize),
}

/// Which new elements of a hunk are edits of which old ones: those that are about the same thing, between them those that are most alike, and then those that are
/// of the same kind.
pub(super) fn pair(hunk: &Hunk, old: &[Sketch], new: &[Sketch], budget: &mut Budget) -> Vec<Step> {
    let same = same_things(old, new, budget);
    let mut pairs = Vec::new();
    for gap in hunks(&same, old.len(), new.len()) {
        let inner = pairs_between(&old[gap.old.clone()], &new[gap.new.clone()], budget);
        pairs.extend(inner.into_iter().map(|(row, column)| (gap.old.start + row, gap.new.start + column)));
    }
    pairs.extend(same.iter().flat_map(|block| (0..block.len).map(|n| (block.old + n, block.new + n))));
    pairs.sort_unstable();
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    for (row, column) in pairs.into_iter().chain([(old.len(), new.len())]) {
        steps.extend((i..row).map(|i| Step::Delete(hunk.old.start + i)));
        steps.extend((j..column).map(|j| Step::Insert(hunk.new.start + j)));
        if row < old.len() {
            steps.push(Step::Both(hunk.old.start + row, hunk.new.start + column));
        }
        (i, j) = (row + 1, column + 1);
    }
    steps
}

/// Where both sequences are about the same things.
fn same_things(old: &[Sketch], new: &[Sketch], budget: &mut Budget) -> Vec<Block> {
    let mut ids = Ids::default();
    let mut id = |(place, sketch): (usize, &Sketch), is_old: bool| {
        // What says nothing of that is like nothing else.
        ids.of(sketch.identity.map_or((Some(is_old), place as u64), |identity| (None, identity)))
    };
    let old: Vec<u32> = old.iter().enumerate().map(|sketch| id(sketch, true)).collect();
    let new: Vec<u32> = new.iter().enumerate().map(|sketch| id(sketch, false)).collect();
    blocks(&old, &new, budget)
}

fn pairs_between(old: &[Sketch], new: &[Sketch], budget: &mut Budget) -> Vec<(usize, usize)> {
    let (rows, columns) = (old.len(), new.len());
    // Two elements are compared part by part.
    let parts = |sketches: &[Sketch]| sketches.iter().map(|sketch| 1 + sketch.parts.len()).sum::<usize>();
    let cost = columns.saturating_mul(parts(old)).saturating_add(rows.saturating_mul(parts(new)));
    let is_small = rows.saturating_mul(columns) <= PAIRS_MAX && budget.spend(cost);
    if is_small { best_pairs(old, new) } else { pairs_in_order(old, new) }
}

/// The pairs, in order in both, that are together most alike. Every pair counts a little.
fn best_pairs(old: &[Sketch], new: &[Sketch]) -> Vec<(usize, usize)> {
    let (rows, columns) = (old.len(), new.len());
    let width = columns + 1;
    // The best from a row and column on.
    let mut best = vec![0u64; (rows + 1) * width];
    let mut alike = vec![None; rows * columns];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            let score = old[row].alike(&new[column]);
            alike[row * columns + column] = score;
            let apart = best[(row + 1) * width + column].max(best[row * width + column + 1]);
            let paired = score.map_or(0, |score| 1 + u64::from(score) + best[(row + 1) * width + column + 1]);
            best[row * width + column] = apart.max(paired);
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut pairs = Vec::new();
    while row < rows && column < columns {
        let here = best[row * width + column];
        let score = alike[row * columns + column];
        if score.is_some_and(|score| here == 1 + u64::from(score) + best[(row + 1) * width + column + 1]) {
            pairs.push((row, column));
            (row, column) = (row + 1, column + 1);
        } else if here == best[(row + 1) * width + column] {
            row += 1;
        } else {
            column += 1;
        }
    }
    pairs
}

fn pairs_in_order(old: &[Sketch], new: &[Sketch]) -> Vec<(usize, usize)> {
    let is_pair = |place: &usize| old[*place].alike(&new[*place]).is_some();
    (0..old.len().min(new.len())).filter(is_pair).map(|place| (place, place)).collect()
}
