//! What those who are told of all changes were told, and what they still have to be told.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::reader::{document_id, read_error};
use super::{rows, schema};
use crate::store::{Deliveries, Delivery, DeliveryState, StoreError};

/// See [`Store::progress`](crate::Store::progress).
pub(super) fn progress(conn: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let cursor = conn
        .prepare_cached("SELECT cursor FROM follower WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get::<_, i64>(0)).optional())
        .map_err(read_error)?;
    Ok(cursor.map(|cursor| cursor.max(0).unsigned_abs()))
}

/// See [`Store::put_progress`](crate::Store::put_progress).
pub(super) fn put(
    conn: &Connection,
    name: &str,
    cursor: Option<u64>,
    deliveries: &[Delivery],
) -> rusqlite::Result<()> {
    let cursor = cursor.map(|cursor| i64::try_from(cursor).unwrap_or(i64::MAX));
    let follower: i64 = conn
        .prepare_cached(
            "INSERT INTO follower (name, cursor) VALUES (?1, ifnull(?2, 0)) \
             ON CONFLICT (name) DO UPDATE SET cursor = ifnull(?2, cursor) RETURNING id",
        )?
        .query_row((name, cursor), |row| row.get(0))?;
    let mut insert = conn.prepare_cached(
        "INSERT OR REPLACE INTO delivery (follower, document, told, changed, due_ms, is_dead, attempts, error) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for delivery in deliveries {
        // What is told of a document that is not there says nothing.
        let Some(number) = rows::document_number(conn, &delivery.document)? else { continue };
        let told = delivery.told.as_deref().map(schema::heads_bytes);
        let changed = i64::try_from(delivery.changed).unwrap_or(i64::MAX);
        let due_ms = match delivery.state {
            DeliveryState::Waits(due_ms) => Some(due_ms),
            DeliveryState::Done | DeliveryState::Dead => None,
        };
        let is_dead = delivery.state == DeliveryState::Dead;
        let row = (follower, number, told, changed, due_ms, is_dead, delivery.attempts, &delivery.error);
        insert.execute(row)?;
    }
    Ok(())
}

/// What all look-ups have in common; the name of the follower is the first parameter.
macro_rules! deliveries {
    ($rest:literal) => {
        concat!(
            "SELECT d.document_id, v.told, v.changed, v.due_ms, v.is_dead, v.attempts, v.error \
             FROM delivery v JOIN document d ON d.id = v.document \
             WHERE v.follower = (SELECT id FROM follower WHERE name = ?1) AND ",
            $rest
        )
    };
}

/// See [`Store::deliveries`](crate::Store::deliveries).
pub(super) fn deliveries(
    conn: &Connection,
    name: &str,
    which: &Deliveries,
) -> Result<Vec<Delivery>, StoreError> {
    let limit = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    match which {
        Deliveries::Of(documents) => {
            let mut found = Vec::new();
            for document in documents {
                let id = document.as_bytes().as_slice();
                found.extend(read(conn, deliveries!("d.document_id = ?2"), (name, id))?);
            }
            Ok(found)
        }
        Deliveries::Due { by_ms, limit: count } => {
            let sql = deliveries!("v.due_ms IS NOT NULL AND v.due_ms <= ?2 ORDER BY v.due_ms LIMIT ?3");
            read(conn, sql, (name, by_ms, limit(*count)))
        }
        Deliveries::Dead(count) => read(conn, deliveries!("v.is_dead LIMIT ?2"), (name, limit(*count))),
    }
}

fn read(conn: &Connection, sql: &str, params: impl Params) -> Result<Vec<Delivery>, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(read_error)?;
    let rows = statement.query_map(params, columns).map_err(read_error)?;
    rows.map(|row| delivery(row.map_err(read_error)?)).collect()
}

type Columns = (Vec<u8>, Option<Vec<u8>>, i64, Option<i64>, bool, u32, String);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

fn delivery((id, told, changed, due_ms, is_dead, attempts, error): Columns) -> Result<Delivery, StoreError> {
    let no_heads = || StoreError::Read("what a webhook was told are no hashes".to_owned());
    let told = told.map(|bytes| schema::heads_of(&bytes).ok_or_else(no_heads)).transpose()?;
    let state = match due_ms {
        Some(due_ms) => DeliveryState::Waits(due_ms),
        None if is_dead => DeliveryState::Dead,
        None => DeliveryState::Done,
    };
    let (document, changed) = (document_id(&id)?, changed.max(0).unsigned_abs());
    Ok(Delivery { document, told, changed, state, attempts, error })
}
