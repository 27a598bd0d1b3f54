//! The log, on standard error: one line for each message, in the shape of the program's own
//! messages. It never blocks and has an end, because guests and images cause lines: see
//! [`crate::stderr`].

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use env_logger::Target;
use log::{Level, LevelFilter};
use nerite_loader::text::escape;

use crate::error::Error;
use crate::stderr;

/// Bytes of a message. With what comes before it, the line is written whole or not at all.
const MAX_MESSAGE: usize = 3500;

/// Makes standard error the file at `path`, which is created or emptied. Crash reports and other
/// last words go there, too.
pub(crate) fn redirect(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::LogFile { path: path.to_owned(), source };
    let file = File::create(path).map_err(failed)?;
    rustix::stdio::dup2_stderr(&file).map_err(|error| failed(error.into()))
}

/// Starts the log. `verbose` counts `-v`; with none, `RUST_LOG` decides, and without that, warnings
/// are shown. With `time`, each line begins with it.
pub fn init(verbose: u8, time: bool) {
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
    builder.format(move |out, record| {
        if time {
            write!(out, "{} ", Utc(SystemTime::now()))?;
        }
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

/// A time in the format of RFC 3339, with milliseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = since.subsec_millis();
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of a number of days since 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_are_one_line_of_bounded_length() {
        assert_eq!(Message::of(format_args!("a\n{}", '\u{202e}')), "a\\n\\u{202e}");
        let long = Message::of(format_args!("{}", "\x1b".repeat(100_000)));
        assert!((MAX_MESSAGE..MAX_MESSAGE + 20).contains(&long.len()) && long.ends_with("..."));
    }

    #[test]
    fn times_are_those_of_a_calendar() {
        let shown =
            |millis| Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)).to_string();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(shown(millis), text);
        }
    }

    #[test]
    fn each_v_says_more() {
        assert_eq!(level(0), None);
        assert!(level(1) < level(2) && level(2) < level(3));
        assert_eq!(level(9), Some(LevelFilter::Trace));
    }
}
