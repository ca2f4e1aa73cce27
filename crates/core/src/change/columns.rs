//! Bounds on what a chunk's columns unfold to, before anything unfolds them.
//!
//! Columns are run-length encoded: a dozen bytes can stand for 2^60 operations. So the runs are added up first, and what inflates is inflated
//! with a limit. Nothing here looks at values; the gate does, or `automerge`.

use bytes::Bytes;

use super::chunk::{ChunkError, inflate};
use crate::id::{ActorId, ChangeHash};
use crate::limits::{
    CHANGE_DEPS_MAX, CHANGE_OPS_MAX, COLUMNS_MAX, ID_BYTES_MAX, UNPACKED_BYTES_MAX, UNPACKED_OPS_MAX,
};
use crate::sync::message::{MessageError, Reader};

const DEFLATED: u32 = 8;

/// The kinds of columns, by the lowest three bits of their specification.
const GROUP: u32 = 0;
const BOOLEAN: u32 = 4;
const STRING: u32 = 5;
const RAW_VALUES: u32 = 7;

/// The column of actions, of which every operation has one.
const ACTION: u32 = 0x42;

/// What the data of a change chunk says before its operations, and how many those are.
pub(super) struct Header {
    pub(super) deps: Vec<ChangeHash>,
    pub(super) actor: ActorId,
    pub(super) seq: u64,
    pub(super) start_op: u64,
    /// How many actions there are.
    pub(super) ops: u64,
    /// How many values the longest column has.
    pub(super) values: u64,
}

impl Header {
    /// Reads it, and checks that the change unfolds to a bounded number of operations. The operations themselves are not read.
    pub(super) fn read(data: &Bytes) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(data.clone());
        let count = reader.leb128().map_err(short)?;
        if count > CHANGE_DEPS_MAX as u64 {
            return Err(ChunkError::TooLarge { what: "list of dependencies", max: CHANGE_DEPS_MAX });
        }
        let deps = (0..count).map(|_| reader.hash()).collect::<Result<_, _>>().map_err(short)?;
        let actor = ActorId::from(&take_actor(&mut reader)?[..]);
        let mut numbers = || -> Result<_, MessageError> {
            let (seq, start_op) = (reader.leb128()?, reader.leb128()?);
            reader.signed_leb128()?; // time
            reader.prefixed()?; // message
            Ok((seq, start_op, reader.leb128()?))
        };
        let (seq, start_op, others) = numbers().map_err(short)?;
        for _ in 0..others {
            take_actor(&mut reader)?;
        }
        let layout = Layout::read(&mut reader).map_err(short)?;
        let (ops, values) = layout.lengths(&mut reader).map_err(short)?;
        if values > CHANGE_OPS_MAX {
            let what = "number of operations in a change";
            return Err(ChunkError::TooLarge { what, max: CHANGE_OPS_MAX as usize });
        }
        Ok(Self { deps, actor, seq, start_op, ops, values })
    }
}

fn take_actor(reader: &mut Reader) -> Result<Bytes, ChunkError> {
    let actor = reader.prefixed().map_err(short)?;
    if actor.is_empty() || actor.len() > ID_BYTES_MAX {
        return Err(ChunkError::TooLarge { what: "actor id", max: ID_BYTES_MAX });
    }
    Ok(actor)
}

/// The heads that the data of a document chunk names.
pub(super) fn document_heads(data: &Bytes) -> Option<Vec<ChangeHash>> {
    let mut reader = Reader::new(data.clone());
    for _ in 0..reader.leb128().ok()? {
        reader.prefixed().ok()?; // actors
    }
    let count = reader.leb128().ok()?;
    (0..count).map(|_| reader.hash().ok()).collect()
}

/// Checks that the data of a document chunk unfolds to a bounded number of changes, operations and bytes; returns how many bytes.
pub(super) fn check_document(data: &Bytes) -> Result<usize, ChunkError> {
    let mut reader = Reader::new(data.clone());
    let mut head = || -> Result<_, MessageError> {
        for _ in 0..reader.leb128()? {
            reader.prefixed()?; // actors
        }
        for _ in 0..reader.leb128()? {
            reader.take(32)?; // heads
        }
        Ok((Layout::read(&mut reader)?, Layout::read(&mut reader)?))
    };
    let (changes, ops) = head().map_err(short)?;
    let mut bytes = 0;
    changes.check_inflated(&mut reader, &mut bytes)?;
    ops.check_inflated(&mut reader, &mut bytes)?;
    Ok(bytes)
}

/// The same for a bundle.
pub(super) fn check_bundle(data: &Bytes) -> Result<(), ChunkError> {
    let mut reader = Reader::new(data.clone());
    let mut head = || -> Result<_, MessageError> {
        for _ in 0..reader.leb128()? {
            reader.take(32)?; // deps
        }
        for _ in 0..reader.leb128()? {
            reader.prefixed()?; // actors
        }
        Layout::read(&mut reader)
    };
    let changes = head().map_err(short)?;
    let mut bytes = 0;
    changes.check_inflated(&mut reader, &mut bytes)?;
    let ops = Layout::read(&mut reader).map_err(short)?;
    ops.check_inflated(&mut reader, &mut bytes)
}

fn short(error: MessageError) -> ChunkError {
    ChunkError::Malformed(error.to_string())
}

/// Which columns there are, and how long each is: specification and length.
struct Layout(Vec<(u32, usize)>);

impl Layout {
    fn read(reader: &mut Reader) -> Result<Self, MessageError> {
        let mut columns = Vec::new();
        let count = reader.leb128()?;
        if count > COLUMNS_MAX {
            return Err(MessageError::TooMany { what: "columns", max: COLUMNS_MAX as usize });
        }
        for _ in 0..count {
            let spec = reader.leb128_u32()?;
            let len = usize::try_from(reader.leb128()?).map_err(|_| MessageError::Number)?;
            columns.push((spec, len));
        }
        Ok(Self(columns))
    }

    /// How many actions there are, and how many values the longest column has. Compressed columns count as empty: a change may not have any.
    fn lengths(&self, reader: &mut Reader) -> Result<(u64, u64), MessageError> {
        let (mut actions, mut longest) = (0, 0);
        for (spec, len) in &self.0 {
            let column = reader.take(*len)?;
            if spec & DEFLATED == 0 {
                let values = values(*spec, column)?;
                longest = longest.max(values);
                if *spec == ACTION {
                    actions = values;
                }
            }
        }
        Ok((actions, longest))
    }

    fn check_inflated(&self, reader: &mut Reader, bytes: &mut usize) -> Result<(), ChunkError> {
        for (spec, len) in &self.0 {
            let mut column = reader.take(*len).map_err(short)?;
            if spec & DEFLATED != 0 {
                column = inflate(&column, UNPACKED_BYTES_MAX - *bytes)?.into();
            }
            *bytes = (*bytes + column.len()).min(UNPACKED_BYTES_MAX);
            if values(*spec, column).map_err(short)? > UNPACKED_OPS_MAX {
                let what = "number of operations in a document chunk";
                return Err(ChunkError::TooLarge { what, max: UNPACKED_OPS_MAX as usize });
            }
        }
        Ok(())
    }
}

/// How many values a column stands for; of a group column, how many values its groups have together.
fn values(spec: u32, column: Bytes) -> Result<u64, MessageError> {
    let mut reader = Reader::new(column);
    match spec & 7 {
        RAW_VALUES => Ok(0),
        BOOLEAN => boolean_values(&mut reader),
        kind => run_length_values(&mut reader, kind),
    }
}

fn boolean_values(reader: &mut Reader) -> Result<u64, MessageError> {
    let mut count = 0u64;
    while !reader.is_empty() {
        count = count.saturating_add(reader.leb128()?);
    }
    Ok(count)
}

/// Runs: a positive length and a value, a negative length and that many values, or zero and a number of nulls.
fn run_length_values(reader: &mut Reader, kind: u32) -> Result<u64, MessageError> {
    let (mut count, mut grouped) = (0u64, 0u64);
    while !reader.is_empty() {
        let length = reader.signed_leb128()?;
        if length == 0 {
            count = count.saturating_add(reader.leb128()?);
        } else if length > 0 {
            count = count.saturating_add(length.unsigned_abs());
            grouped = grouped.saturating_add(value(reader, kind)?.saturating_mul(length.unsigned_abs()));
        } else {
            for _ in 0..length.unsigned_abs() {
                count = count.saturating_add(1);
                grouped = grouped.saturating_add(value(reader, kind)?);
            }
        }
    }
    Ok(if kind == GROUP { count.max(grouped) } else { count })
}

/// Skips one value; returns it if it is a number.
fn value(reader: &mut Reader, kind: u32) -> Result<u64, MessageError> {
    if kind == STRING {
        return reader.prefixed().map(|_| 0);
    }
    // Signed numbers have the same length as unsigned ones; only group counts, which are unsigned, are looked at.
    reader.leb128()
}
