//! Every limit of the client, in one place; those of the protocol are the core's.

use std::time::Duration;

/// Documents that one client may have open, those included that only wait for their last changes to be durable. As many as a server takes on a connection.
pub const DOCUMENTS_MAX: usize = highwater_core::limits::CONNECTION_DOCUMENTS_MAX;
/// Size of all changes that are not durable on the server. Beyond this no more are made.
pub const UNSAVED_BYTES_MAX: usize = 64 << 20;
/// Questions whether a change is durable that wait for an answer.
pub const QUESTIONS_MAX: usize = 1_000;
/// How long such a question waits. Of a document that it cannot read a server says nothing.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Frames that wait between the socket and the client, each way.
pub const LINE_FRAMES: usize = 1;
/// Sync messages that are longer are taken in on the blocking pool.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// An attempt to connect that is older when the network may be back is on a path that may be gone, and is made anew.
pub const HANGING_AFTER: Duration = Duration::from_secs(2);
/// A connection that lasted for so long was a success; the next pause is a short one.
pub const SUCCESS_AFTER: Duration = Duration::from_secs(5);
/// How soon after an attempt to connect the next is made because somebody waits. Many may wait, and each anew.
pub const HASTE_AFTER: Duration = Duration::from_millis(500);
/// How long a hint of the server when to come back is believed.
pub const RETRY_HINT_MAX: Duration = Duration::from_secs(5 * 60);
/// How long after the server named heads that are not here it is asked by name for what is owed.
pub const ASK_AFTER: Duration = Duration::from_millis(100);
/// How long a pending change waits for the server's word, on a connection that lives, before it is sent again.
pub const REPEAT_AFTER: Duration = Duration::from_secs(5);
/// The longest pause between two times that the same changes are sent again.
pub const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Size of the changes that are sent again at once, unless a single one is larger.
pub const REPEAT_BYTES_MAX: usize = 1 << 20;
/// How long an outbox may take to say what it holds.
pub const OUTBOX_LOAD_MAX: Duration = Duration::from_secs(30);
/// Pause before a failed write to the outbox is tried again.
pub const OUTBOX_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the end of a connection may take when everything has been said.
pub const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Longest text of the server that is kept: a reason, an explanation.
pub const TEXT_BYTES_MAX: usize = highwater_core::limits::TEXT_BYTES_MAX;
/// How long the last writes to the outbox may take when a client is disconnected.
pub const OUTBOX_END_MAX: Duration = Duration::from_secs(10);
