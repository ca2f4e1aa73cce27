//! Bodies of requests that edit a document, and what is made of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz::edit(data);
});
