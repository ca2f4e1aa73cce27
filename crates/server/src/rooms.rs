//! How much memory the requests may hold that are under way, and the answers.
//!
//! Small ones have places of their own. The large ones share a bound: who finds no room waits a while, then the client is asked to come back. A request holds room for its body while that is
//! being read, which takes as long as the client likes; only then it asks for what is made of it. An answer never waits: it is there already.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::Problem;
use crate::limits::{
    ANSWERS_BYTES_MAX, BODIES_BYTES_MAX, EDITS_BYTES_MAX, EVENTS_BYTES_MAX, ROOM_PLACE_BYTES,
    ROOM_SMALL_BYTES, ROOM_SMALL_MAX, ROOM_TIMEOUT,
};

/// What each kind of memory is bounded by.
pub(crate) struct Rooms {
    /// For the bodies of requests.
    pub(crate) bodies: Room,
    /// For edits that were read out of them.
    pub(crate) edits: Room,
    answers: Room,
    /// For events with patches until they are sent.
    pub(crate) events: Room,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        Self {
            bodies: Room::new(BODIES_BYTES_MAX),
            edits: Room::new(EDITS_BYTES_MAX),
            answers: Room::new(ANSWERS_BYTES_MAX),
            events: Room::new(EVENTS_BYTES_MAX),
        }
    }

    /// An answer that counts until it is sent, unless it is small.
    pub(crate) fn answer(&self, bytes: Bytes) -> Result<Bytes, Problem> {
        Ok(match self.answers.try_take_if_large(bytes.len())? {
            Some(_room) => Bytes::from_owner(Answer { bytes, _room }),
            None => bytes,
        })
    }
}

struct Answer {
    bytes: Bytes,
    _room: RoomTaken,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// So much memory.
pub(crate) struct Room {
    small: Arc<Semaphore>,
    /// In places of [`ROOM_PLACE_BYTES`].
    large: Arc<Semaphore>,
    places_max: usize,
}

/// A part of it; given back when dropped.
pub(crate) type RoomTaken = OwnedSemaphorePermit;

impl Room {
    fn new(bytes_max: usize) -> Self {
        let places_max = bytes_max / ROOM_PLACE_BYTES;
        let small = Arc::new(Semaphore::new(ROOM_SMALL_MAX));
        Self { small, large: Arc::new(Semaphore::new(places_max)), places_max }
    }

    /// Waits for room, but not for ever.
    pub(crate) async fn take(&self, bytes: usize) -> Result<RoomTaken, Problem> {
        let (room, places) = self.places(bytes);
        let taken = timeout(ROOM_TIMEOUT, room.clone().acquire_many_owned(places)).await;
        // The semaphore is never closed.
        taken.ok().and_then(Result::ok).ok_or(Problem::NoRoom)
    }

    /// Room, if there is some now.
    fn try_take(&self, bytes: usize) -> Result<RoomTaken, Problem> {
        let (room, places) = self.places(bytes);
        room.clone().try_acquire_many_owned(places).map_err(|_| Problem::NoRoom)
    }

    /// The same for what need not be counted if it is small.
    pub(crate) fn try_take_if_large(&self, bytes: usize) -> Result<Option<RoomTaken>, Problem> {
        if bytes <= ROOM_SMALL_BYTES { Ok(None) } else { self.try_take(bytes).map(Some) }
    }

    /// What is larger than all of it takes all of it.
    fn places(&self, bytes: usize) -> (&Arc<Semaphore>, u32) {
        if bytes <= ROOM_SMALL_BYTES {
            return (&self.small, 1);
        }
        let places = bytes.div_ceil(ROOM_PLACE_BYTES).min(self.places_max);
        (&self.large, u32::try_from(places).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_for_each_other_and_small_ones_for_small_ones() {
        let room = Room::new(1 << 20);
        let whole = room.take(5 << 20).await.unwrap();
        assert!(matches!(room.try_take(ROOM_SMALL_BYTES + 1), Err(Problem::NoRoom)));
        assert!(matches!(room.take(ROOM_SMALL_BYTES + 1).await, Err(Problem::NoRoom)));
        let mut small = Vec::new();
        for _ in 0..ROOM_SMALL_MAX {
            small.push(room.try_take(ROOM_SMALL_BYTES).unwrap());
        }
        assert!(room.try_take(0).is_err());
        drop(whole);
        let half = room.take(512 << 10).await.unwrap();
        assert!(room.try_take((512 << 10) + 1).is_err());
        drop(room.try_take(512 << 10).unwrap());
        drop(half);
        drop(room.try_take(1 << 20).unwrap());
    }

    #[test]
    fn an_answer_counts_until_it_is_gone() {
        let rooms = Rooms::new();
        let answer = rooms.answer(Bytes::from(vec![7; ROOM_SMALL_BYTES + 1])).unwrap();
        let rest = answer.slice(ROOM_SMALL_BYTES..);
        drop(answer);
        let whole = || rooms.answers.try_take(ANSWERS_BYTES_MAX);
        assert!(whole().is_err());
        assert_eq!(rest[..], [7]);
        drop(rest);
        let _whole = whole().unwrap();
        assert!(rooms.answer(Bytes::from(vec![0; ROOM_SMALL_BYTES + 1])).is_err());
        assert!(rooms.answer(Bytes::from(vec![0; ROOM_SMALL_BYTES])).is_ok());
    }
}
