//! Any bytes as what clients send, and as what the disk does meanwhile.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz::session(data);
});
