//! Any bytes as a request on the control socket.
#![no_main]

use nerite_control::protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = protocol::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(decoded) = protocol::from_hex(text)
    {
        assert!(protocol::to_hex(&decoded).eq_ignore_ascii_case(text));
    }
});
