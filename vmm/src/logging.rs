//! The log, on standard error: one line for each message, in the shape of the program's own
//! messages. It never blocks and has an end, because guests and images cause lines: see
//! [`crate::stderr`].

use std::fmt::{self, Write as _};
use std::io::Write as _;

use env_logger::Target;
use log::{Level, LevelFilter};
use nerite_loader::text::escape;

use crate::stderr;

/// Bytes of a message. With what comes before it, the line is written whole or not at all.
const MAX_MESSAGE: usize = 3500;

/// Starts the log. `verbose` counts `-v`; with none, `RUST_LOG` decides, and without that, warnings
/// are shown.
pub fn init(verbose: u8) {
    stderr::open();
    let variable = std::env::var_os("RUST_LOG").is_some_and(|filter| !filter.is_empty());
    if verbose > 0 || variable {
        // More is asked for than warnings.
        stderr::lift_log_limit();
    }
    let mut builder = env_logger::Builder::new();
    builder.target(Target::Pipe(Box::new(stderr::Lines)));
    // Our lines have no colours: it need not find out whether they would be seen.
    builder.write_style(env_logger::WriteStyle::Never).filter_level(LevelFilter::Warn);
    match level(verbose) {
        Some(level) => builder.filter_level(level),
        None => builder.parse_env("RUST_LOG"),
    };
    builder.format(|out, record| {
        let text = Message::of(*record.args());
        match record.level() {
            Level::Error => writeln!(out, "vmm: error: {text}"),
            Level::Warn => writeln!(out, "vmm: warning: {text}"),
            Level::Info => writeln!(out, "vmm: {text}"),
            Level::Debug | Level::Trace => writeln!(out, "vmm: {}: {text}", record.target()),
        }
    });
    // It fails if there is a logger already, as for a program that uses this as a library; then
    // that one is used.
    let _ = builder.try_init();
}

/// The text of a message as one line, of which not more than [`MAX_MESSAGE`] bytes are made,
/// however long it would be.
#[derive(Default)]
struct Message(String);

impl Message {
    fn of(arguments: fmt::Arguments<'_>) -> String {
        let mut message = Self::default();
        if message.write_fmt(arguments).is_err() {
            message.0.push_str(" ...");
        }
        message.0
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() >= MAX_MESSAGE {
                return Err(fmt::Error);
            }
            escape(c, &mut self.0);
        }
        Ok(())
    }
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
    fn messages_are_one_line_of_bounded_length() {
        assert_eq!(Message::of(format_args!("a\n{}", '\u{202e}')), "a\\n\\u{202e}");
        let long = Message::of(format_args!("{}", "\x1b".repeat(100_000)));
        assert!((MAX_MESSAGE..MAX_MESSAGE + 20).contains(&long.len()) && long.ends_with("..."));
    }

    #[test]
    fn each_v_says_more() {
        assert_eq!(level(0), None);
        assert!(level(1) < level(2) && level(2) < level(3));
        assert_eq!(level(9), Some(LevelFilter::Trace));
    }
}
