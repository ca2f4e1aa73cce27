//! Bounds on what a chunk's columns unfold to, before anything unfolds them.
//!
//! Columns are run-length encoded: a dozen bytes can stand for 2^60 operations. So the runs are added up first, and what inflates is inflated
//! with a limit. Nothing here looks at values; `automerge` checks those afterwards.

use bytes::Bytes;

use super::chunk::{ChunkError, inflate};
use crate::limits::{CHANGE_OPS_MAX, COLUMNS_MAX, UNPACKED_BYTES_MAX, UNPACKED_OPS_MAX};
use crate::sync::message::{MessageError, Reader};

const DEFLATED: u32 = 8;

/// The kinds of columns, by the lowest three bits of their specification.
const GROUP: u32 = 0;
const BOOLEAN: u32 = 4;
const STRING: u32 = 5;
const RAW_VALUES: u32 = 7;

/// Checks that the data of a change chunk unfolds to a bounded number of operations.
pub(super) fn check_change(data: &Bytes) -> Result<(), ChunkError> {
    if change_ops(data)? > CHANGE_OPS_MAX {
        return Err(ChunkError::TooLarge {
            what: "number of operations in a change",
            max: CHANGE_OPS_MAX as usize,
        });
    }
    Ok(())
}

/// The length of the longest column of a change.
pub(super) fn change_ops(data: &Bytes) -> Result<u64, ChunkError> {
    let mut reader = Reader::new(data.clone());
    let mut read = || -> Result<u64, MessageError> {
        let deps = reader.leb128()?;
        for _ in 0..deps {
            reader.take(32)?;
        }
        reader.prefixed()?; // actor
        reader.leb128()?; // seq
        reader.leb128()?; // start op
        reader.signed_leb128()?; // time
        reader.prefixed()?; // message
        for _ in 0..reader.leb128()? {
            reader.prefixed()?; // other actors
        }
        let layout = Layout::read(&mut reader)?;
        layout.longest(&mut reader)
    };
    read().map_err(short)
}

/// Checks that the data of a document chunk unfolds to a bounded number of changes, operations and bytes.
pub(super) fn check_document(data: &Bytes) -> Result<(), ChunkError> {
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
    ops.check_inflated(&mut reader, &mut bytes)
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

    /// The length of the longest column, in values. Compressed columns count as empty: a change may not have any.
    fn longest(&self, reader: &mut Reader) -> Result<u64, MessageError> {
        let mut longest = 0;
        for (spec, len) in &self.0 {
            let column = reader.take(*len)?;
            if spec & DEFLATED == 0 {
                longest = longest.max(values(*spec, column)?);
            }
        }
        Ok(longest)
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
