//! Every limit of the core, in one place; the server has its own beside these. Sizes are in bytes unless the name says otherwise.

/// Longest peer id, storage id or session id.
pub const ID_BYTES_MAX: usize = 256;
/// Largest first message, and any other before it.
pub const JOIN_BYTES_MAX: usize = 64 << 10;
/// Longest text in a message where no other limit applies: an error, a reason, a kind.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Shapes of records in one message (automerge-repo 1.x), and keys of one shape.
pub const RECORDS_MAX: usize = 64;
/// Depth of values that are skipped unread.
pub const SKIP_DEPTH_MAX: usize = 32;
/// Protocol versions listed in a `join`.
pub const PROTOCOL_VERSIONS_MAX: usize = 16;
/// Largest WebSocket message taken in or sent. Stock clients send a whole document as one frame, and the `ws` package on
/// Node takes at most this much by default.
pub const FRAME_BYTES_MAX: usize = 100 << 20;
/// Hashes in one question whether changes are durable.
pub const HAVE_HASHES_MAX: usize = 1_000;
/// Largest single change, as received and after inflating.
pub const CHANGE_BYTES_MAX: usize = 32 << 20;
/// Largest size that the changes of one message, one whole-document chunk, or one bundle, may have together after unpacking. A document with more
/// is not compacted: it would have to be unpacked for that, and its snapshot again by whoever reads it.
pub const UNPACKED_BYTES_MAX: usize = 1 << 30;
/// Operations in one change.
pub const CHANGE_OPS_MAX: u64 = 10_000_000;
/// Operations in all plain changes of one message, beyond one for each of its bytes.
pub const MESSAGE_OPS_MAX: u64 = 10_000_000;
/// Operations in a message whose changes are checked without handing them to the blocking pool.
pub const UNPACK_INLINE_OPS_MAX: u64 = 10_000;
/// Columns of a change, or of one half of a document chunk.
pub const COLUMNS_MAX: u64 = 1_000;
/// Operations in one whole-document chunk or one bundle.
pub const UNPACKED_OPS_MAX: u64 = 100_000_000;
/// Changes in one sync message.
pub const MESSAGE_CHANGES_MAX: usize = 2_000_000;
/// Hashes in one list of a sync message (heads, need, last_sync).
pub const MESSAGE_HASHES_MAX: usize = 100_000;
/// `have` entries in one sync message; stock peers send one.
pub const MESSAGE_HAVES_MAX: usize = 4;
/// Probes per hash of a Bloom filter; stock peers use 7.
pub const BLOOM_PROBES_MAX: u32 = 32;
/// Dependencies of one change.
pub const CHANGE_DEPS_MAX: usize = 10_000;
/// Largest operation counter: stock automerge keeps counters in 32 bits.
pub const OP_COUNTER_MAX: u64 = u32::MAX as u64;
/// How far a change's operations may start above all that are known, for the sake of changes that are still to come.
pub const OP_GAP_MAX: u64 = 1 << 20;
/// Longest text that says what a change is about.
pub const CHANGE_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Furthest time of a change, before and after 1970, in milliseconds or whatever the application counts: what a number of JavaScript holds exactly. Readers
/// keep differences of times, which must not overflow.
pub const TIME_MAX: u64 = 1 << 53;
/// Steps through the graph that checking the changes of one message may take, half a second's worth, and how many more for each change. Changes that
/// follow each other take a handful.
pub const GATE_STEPS_MAX: u64 = 16_000_000;
/// See [`GATE_STEPS_MAX`].
pub const GATE_STEPS_PER_CHANGE: u64 = 1_000;
/// Changes of one document.
pub const DOCUMENT_CHANGES_MAX: usize = 50_000_000;
/// Changes of one document that wait for dependencies.
pub const ORPHANS_MAX: usize = 10_000;
/// Size of all changes of one document that wait for dependencies.
pub const ORPHAN_BYTES_MAX: usize = 64 << 20;
/// Refused hashes that a document remembers (the store keeps them all).
pub const REJECTED_MAX: usize = 10_000;
/// Refused changes that are stored per document; later ones are still refused, but their bytes are not kept.
pub const QUARANTINE_MAX: usize = 1_000;
/// Size of the changes in one outgoing sync message, unless a single one is larger; a longer stretch is sent in several, each after an answer.
/// Clients in Rust take frames of at most 16 MiB unless they are told otherwise.
pub const SEND_CHANGES_BYTES_MAX: usize = 8 << 20;
/// Largest snapshot that is sent as one chunk; the changes of a larger one are sent in several messages.
pub const SNAPSHOT_SENT_BYTES_MAX: u64 = SEND_CHANGES_BYTES_MAX as u64;
/// Largest snapshot that stays in memory after it was sent, for the next one who opens the document.
pub const SNAPSHOT_KEPT_BYTES_MAX: u64 = 1 << 20;
/// Changes that are asked for at a time of those that only a snapshot holds. As many are brought as make a message.
pub const BROUGHT_CHANGES_MAX: usize = 200_000;
/// Size of the changes that were brought from a snapshot and stay in memory for the next one who lacks them.
pub const BROUGHT_BYTES_MAX: usize = 16 << 20;
/// A document is compacted when so many of its changes are in no snapshot, unless told otherwise, and they are at least one in [`COMPACT_SHARE`].
pub const COMPACT_CHANGES_MIN: usize = 1_000;
/// The longer the history, the more changes a compaction waits for: so each change is saved again only a few times, however many come.
pub const COMPACT_SHARE: usize = 8;
/// Or when the changes in no snapshot have so many bytes, and at least half as many as what is stored for those that are.
pub const COMPACT_BYTES_MIN: usize = 4 << 20;
/// Changes sent to a peer that it has not answered, beyond which new heads alone do not start another message.
pub const UNANSWERED_CHANGES_MAX: usize = 4_096;
/// Sync messages with at most this many bytes of changes are unpacked at once; longer ones on the blocking pool.
pub const UNPACK_INLINE_BYTES_MAX: usize = 64 << 10;
/// Size of a Bloom filter: room for thirteen million changes.
pub const BLOOM_BYTES_MAX: usize = 16 << 20;
/// Messages of one peer on one document that wait behind one that is being committed. Their bytes are bounded before that.
pub const PEER_INBOX_MAX: usize = 32_768;
/// Messages of one peer on one document that are stored together.
pub const INBOX_BATCH: usize = 64;
/// Documents that one connection may have open.
pub const CONNECTION_DOCUMENTS_MAX: usize = 10_000;
/// Storage ids whose heads one connection may follow.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Storage ids whose heads are remembered per document.
pub const REMOTE_STORAGES_MAX: usize = 256;
/// Heads taken from one entry of a `remote-heads-changed` message.
pub const REMOTE_HEADS_MAX: usize = 1_024;
/// Largest ephemeral message.
pub const EPHEMERAL_BYTES_MAX: usize = 1 << 20;
/// Levels of lists and maps in a document that is read or edited as JSON, and in a value that is put into one.
pub const JSON_DEPTH_MAX: usize = 100;
/// Operations in one JSON Patch.
pub const PATCH_OPERATIONS_MAX: usize = 10_000;
/// Operations in the change that one edit makes: one for each value, for each code point of a text, and for each that is deleted.
pub const EDIT_OPS_MAX: usize = 500_000;
/// Size of the texts, bytes and keys that one edit puts into a document.
pub const EDIT_BYTES_MAX: usize = 16 << 20;
/// Steps that finding the smallest edits of texts and lists may take in one edit, a tenth of a second's worth. Beyond that, and where more differs
/// than [`DIFF_DISTANCE_MAX`], larger pieces are replaced.
pub const DIFF_STEPS_MAX: u64 = 32_000_000;
/// Insertions and deletions between two texts, or two lists, up to which the fewest are looked for.
pub const DIFF_DISTANCE_MAX: usize = 1_000;
/// What the patches of one diff may take up. Each carries its whole path, so this is checked before they are made, as if every place of the document, in
/// both states, had one.
pub const PATCHES_BYTES_MAX: usize = 512 << 20;
/// What a patch takes up beside the keys on its path, and each level of that path, roughly.
pub const PATCH_BYTES: usize = 128;
/// See [`PATCH_BYTES`].
pub const PATCH_LEVEL_BYTES: usize = 64;
/// What the list of a document's conflicts may take up: each is told with its path, and with all that its values hold.
pub const CONFLICTS_BYTES_MAX: usize = 64 << 20;
/// Changes whose metadata is told at a time.
pub const CHANGES_META_MAX: usize = 10_000;

const _: () = {
    assert!(CHANGE_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(SEND_CHANGES_BYTES_MAX + CHANGE_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(EPHEMERAL_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(UNPACK_INLINE_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(ORPHAN_BYTES_MAX >= CHANGE_BYTES_MAX);
    assert!(DOCUMENT_CHANGES_MAX < u32::MAX as usize);
};
