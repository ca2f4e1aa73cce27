//! Highwater's server.
