//! Nothing is built from this; see Cargo.toml.
