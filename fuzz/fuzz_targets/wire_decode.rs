//! Any bytes as a frame, a sync message and chunks.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz::wire_decode(data);
});
