//! Automerge's sync protocol: messages, Bloom filters, and the state that is kept per peer and document.

mod bloom;
pub(crate) mod message;
pub(crate) mod state;

pub use bloom::BloomFilter;
pub use message::{Flags, Have, Message, MessageError, Version};
