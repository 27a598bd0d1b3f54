//! The log, on standard error: one line for each message, in the shape of the program's own messages.

use std::io::Write as _;

use log::{Level, LevelFilter};

use crate::error::printable;

/// Starts the log. `verbose` counts `-v`; with none, `RUST_LOG` decides, and without that, warnings are shown.
pub fn init(verbose: u8) {
    let mut builder = env_logger::Builder::new();
    // Our lines have no colours: it need not find out whether they would be seen.
    builder.write_style(env_logger::WriteStyle::Never).filter_level(LevelFilter::Warn);
    match level(verbose) {
        Some(level) => builder.filter_level(level),
        None => builder.parse_env("RUST_LOG"),
    };
    builder.format(|out, record| {
        let text = printable(&record.args().to_string(), false);
        match record.level() {
            Level::Error => writeln!(out, "vmm: error: {text}"),
            Level::Warn => writeln!(out, "vmm: warning: {text}"),
            Level::Info => writeln!(out, "vmm: {text}"),
            Level::Debug | Level::Trace => writeln!(out, "vmm: {}: {text}", record.target()),
        }
    });
    // It fails if there is a logger already, as for a program that uses this as a library; then that one is used.
    let _ = builder.try_init();
}

/// The level that `-v` asks for, if it is given.
fn level(verbose: u8) -> Option<LevelFilter> {
    match verbose {
        0 => None,
        1 => Some(LevelFilter::Info),
        2 => Some(LevelFilter::Debug),
        _ => Some(LevelFilter::Trace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_says_more() {
        assert_eq!(level(0), None);
        assert!(level(1) < level(2) && level(2) < level(3));
        assert_eq!(level(9), Some(LevelFilter::Trace));
    }
}
