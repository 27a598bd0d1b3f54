//! Tests that find nothing to run on.

use std::io::Write as _;

/// Says why the calling test, which its thread is named after, does not run. `cargo xtask test`
/// then counts it as skipped.
///
/// Not through `eprintln`, which is not shown of a test that passes.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}
