//! Any change of a stock document, and what stock clients make of it if it is let in.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz::gate(data);
});
