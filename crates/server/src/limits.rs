//! Every limit of the server, in one place: those that nobody needs to set. What can be set is in [`Config`](crate::Config); what the
//! protocol and the documents are bound by is in [`highwater_core::limits`]. Sizes are in bytes unless the name says otherwise.

use std::num::NonZeroUsize;
use std::time::Duration;

// Sockets.

/// Largest head of an HTTP request, and what is buffered of an answer.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes a second with which a request or an answer goes on, beyond the time that each has.
pub(crate) const RATE_MIN: u64 = 32 << 10;
/// How long a stream may be open of which nothing can be written.
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long no connection is accepted after accepting one failed, for want of file handles or of memory.
pub(crate) const ACCEPT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Buffer of a WebSocket for reading. Small, like the next one: they are allocated per connection, and nearly all connections are idle.
pub(crate) const READ_BUFFER_BYTES: usize = 1 << 10;
/// Buffer of a WebSocket for writing.
pub(crate) const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// Frames written before they are flushed.
pub(crate) const FLUSH_AFTER: usize = 32;

// Connections.

/// How long a frame may be under way where its bytes are not seen, in the server of an application.
pub(crate) const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// What a frame counts for at least while it is under way: a small one costs memory too.
pub(crate) const FRAME_BYTES_MIN: usize = 512;
/// How long a close may take when the peer does not play along.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer has to read what was sent, before a close follows.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Reasons are cut to what fits into a close frame.
pub(crate) const CLOSE_REASON_BYTES_MAX: usize = 123;
/// When clients are asked to come back after a shutdown: at different times, not all at once.
pub(crate) const RETRY_AFTER_MIN: Duration = Duration::from_millis(500);
/// The latest of these times.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Refused changes of one connection for which nothing happens: an application may have made a few by mistake, and sends them again.
pub(crate) const REFUSED_FREE_MAX: u32 = 16;
/// For each one more, how long the connection is not read before its next message.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// The longest such pause.
pub(crate) const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Refused changes of one connection after which it is closed.
pub(crate) const REFUSED_MAX: u32 = 1_000;

// Requests.

/// Largest body of changes.
pub(crate) const INGEST_BYTES_MAX: usize = 32 << 20;
/// What the bodies of all requests that are under way may have together; further ones wait.
pub(crate) const BODIES_BYTES_MAX: usize = 128 << 20;
/// What those edits may take up together that were read out of their bodies; further ones wait. Room that no slow client can hold.
pub(crate) const EDITS_BYTES_MAX: usize = 128 << 20;
/// What answers that are being sent may have together. Beyond that clients are asked to come back.
pub(crate) const ANSWERS_BYTES_MAX: usize = 256 << 20;
/// What events with patches may have together that are being sent. Beyond that patches are not told.
pub(crate) const EVENTS_BYTES_MAX: usize = 64 << 20;
/// What is this small has places of its own: the last words of pages that are being closed must not wait behind slow uploads.
pub(crate) const ROOM_SMALL_BYTES: usize = 64 << 10;
/// How many such places there are.
pub(crate) const ROOM_SMALL_MAX: usize = 1_024;
/// In what steps the rest is counted.
pub(crate) const ROOM_PLACE_BYTES: usize = 4 << 10;
/// How long a request waits for room; then the client is asked to come back.
pub(crate) const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of an edit, or of a document as JSON.
pub(crate) const EDIT_BYTES_MAX: usize = 8 << 20;
/// What such a body takes up in memory when it has been read, at most: a byte of it may become a value of so many.
pub(crate) const EDIT_BYTES_UNFOLD: usize = 16;
/// Largest body of a request that does not say how large it is.
pub(crate) const UNSIZED_BYTES_MAX: usize = 1 << 20;
/// Longest beginning of document ids to look for.
pub(crate) const PREFIX_BYTES_MAX: usize = 50;
/// Longest message of an edit, in characters.
pub(crate) const MESSAGE_CHARS_MAX: usize = 500;
/// Longest `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Heads that are written out in an ETag or in the address of a next page: such a header must fit where headers go.
pub(crate) const ETAG_HEADS_MAX: usize = 64;
/// Entries of a list in one answer, if the client does not say.
pub(crate) const PAGE_DEFAULT: usize = 100;
/// Entries of a list in one answer at most.
pub(crate) const PAGE_MAX: usize = 1_000;
/// Change chunks in one answer, unless a single one is larger.
pub(crate) const PAGE_BYTES_MAX: usize = 8 << 20;
/// When clients are asked to come back if the store fails.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 1;
/// Largest question whether changes are durable.
pub(crate) const HAVE_BYTES_MAX: usize = 128 << 10;

// Events.

/// How many streams of events of single documents there may be.
pub(crate) const DOCUMENT_STREAMS_MAX: usize = 4_096;
/// How many streams of the events of all documents: each of them reads what happens from the store.
pub(crate) const FEED_STREAMS_MAX: usize = 128;
/// Documents of the feed that are looked at together.
pub(crate) const FEED_PAGE: usize = 64;
/// How long one who follows the feed waits before looking again: what happens meanwhile is found together.
pub(crate) const FEED_PACE: Duration = Duration::from_millis(20);
/// Larger patches are not told; whoever follows fetches the document.
pub(crate) const EVENT_PATCHES_BYTES_MAX: usize = 1 << 20;
/// Documents of which the last patches are kept, for others who follow them too.
pub(crate) const EVENT_DIFFS_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// How often a stream says that it is there, when there is nothing else to say.
pub(crate) const EVENTS_KEEP_ALIVE: Duration = Duration::from_secs(10);

// Webhooks.

/// Documents that a webhook is told about before that is noted.
pub(crate) const WEBHOOK_PAGE: usize = 64;
/// Posts of one webhook that are under way at once.
pub(crate) const WEBHOOK_POSTS_AT_ONCE: usize = 8;
/// The longest pause between two attempts.
pub(crate) const WEBHOOK_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// The longest pause of a webhook at which nothing arrives.
pub(crate) const WEBHOOK_WAIT_WHOLE_MAX: Duration = Duration::from_secs(30);
/// What is kept of a reason why a post failed.
pub(crate) const WEBHOOK_ERROR_BYTES_MAX: usize = 500;
/// Documents that are listed of those that a webhook could not be told about.
pub(crate) const WEBHOOK_DEAD_LISTED_MAX: usize = 1_000;
/// How long whoever asks a webhook to try again waits for the posts that are under way.
pub(crate) const WEBHOOK_RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Webhooks of one server.
pub(crate) const WEBHOOKS_MAX: usize = 32;

// Shutdown.

/// A socket from which nothing came for so long is taken as read empty.
pub(crate) const DRAIN_QUIET: Duration = Duration::from_millis(20);
/// How long a draining connection may go on sending.
pub(crate) const DRAIN_READ_MAX: Duration = Duration::from_millis(500);
/// How long a shutdown waits for requests to be answered.
pub(crate) const DRAIN_REQUESTS_MAX: Duration = Duration::from_secs(5);

// Documents.

/// Commands taken from a document's mailbox before answers are made: the more, the fewer answers.
pub(crate) const BATCH: usize = 64;
/// Edits of a document that are made before they are stored; those that wait follow then.
pub(crate) const DESK_EDITS_MAX: usize = 256;
/// Readers of a document that are served before its edits get their turn.
pub(crate) const DESK_LOOKS_AT_ONCE: usize = 16;
/// Readers that wait for a document; more are turned away.
pub(crate) const DESK_LOOKS_MAX: usize = 256;
/// Records that are handed to the store at once. The rest of a large upload follows when these are durable, so that others get their turn.
pub(crate) const APPEND_RECORDS_MAX: usize = 4_096;
/// The same in bytes, unless a single record has more.
pub(crate) const APPEND_BYTES_MAX: usize = 4 << 20;
/// Uploads with so many bytes of changes are worth a line in the log.
pub(crate) const UPLOAD_BYTES_LOGGED: usize = 4 << 20;
/// Changes that are taken out of a copy at once: they are all in memory together, however large each is.
pub(crate) const BRING_CHANGES_AT_ONCE: usize = 16_384;
/// Letting go of more changes than this, after a compaction, happens on the blocking pool.
pub(crate) const COVER_INLINE_MAX: u64 = 10_000;
/// Restoring more changes than this happens on the blocking pool.
pub(crate) const RESTORE_INLINE_MAX: usize = 64;
/// How long a document stays in memory of which nothing is stored.
pub(crate) const BLANK_IDLE_AFTER: Duration = Duration::from_millis(100);
/// How often a document that cannot be read looks whether anybody still asks for it.
pub(crate) const REFUSED_CHECK_INTERVAL: Duration = Duration::from_millis(100);

// The store.

/// A store that takes longer to write one row is not ready.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before a failed store is opened again; it doubles with every attempt.
pub(crate) const REOPEN_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub(crate) const REOPEN_WAIT_MAX: Duration = Duration::from_secs(10);

const _: () = {
    assert!(FRAME_BYTES_MIN > 0);
    assert!(INGEST_BYTES_MAX <= BODIES_BYTES_MAX);
    // A character may take twelve in an address.
    assert!(MESSAGE_CHARS_MAX * 12 < REQUEST_HEAD_BYTES_MAX - 1_024);
    assert!(ETAG_HEADS_MAX * 65 < REQUEST_HEAD_BYTES_MAX / 2);
    assert!(PAGE_MAX < highwater_core::limits::CHANGES_META_MAX);
    assert!(EDIT_BYTES_MAX * EDIT_BYTES_UNFOLD <= EDITS_BYTES_MAX);
    assert!(HAVE_BYTES_MAX > 70 * highwater_core::limits::HAVE_HASHES_MAX);
    // Less is refused by the HTTP library.
    assert!(REQUEST_HEAD_BYTES_MAX >= 8192);
    assert!(2 * EVENTS_KEEP_ALIVE.as_millis() < STREAM_TIMEOUT.as_millis());
    assert!(DRAIN_QUIET.as_millis() < DRAIN_READ_MAX.as_millis());
    assert!(RETRY_AFTER_MIN.as_millis() < RETRY_AFTER_MAX.as_millis());
    assert!(REOPEN_WAIT_MIN.as_millis() < REOPEN_WAIT_MAX.as_millis());
};
