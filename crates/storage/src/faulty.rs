//! A store that fails on request, for tests.
