//! Changes made by hand, for tests: what an ordinary client never sends, with a checksum that is right.
//!
//! [`stock`] makes documents with the stock library, [`mutate`] changes one of their changes in any part, and [`oracle`] tells what the stock library makes of the result.
//! Nothing here shares code with the core: what decides about a change and what tests the decision must not have the same mistakes.

pub mod model;
pub mod mutate;
pub mod oracle;
mod rng;
pub mod stock;

pub use model::{HandMade, Key, Op, OpId};
pub use rng::Rng;
