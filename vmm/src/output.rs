//! Writing to standard output and standard error without a panic when the reader has gone.

use std::fmt::Display;
use std::io::{self, BufWriter, Write as _};

use crate::error::{Error, one_line, printable};
use crate::hint::hint;
use crate::stderr;

/// Writes text to standard output, without making all of it at once: an image can have much to say.
///
/// # Errors
///
/// [`Error::Stdout`] if it cannot be written, which includes a reader that went away.
pub fn print(text: impl Display) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Stdout)
}

/// Writes the one line that describes the program's error to standard error, unless its reader has
/// gone.
pub fn report(error: &Error) {
    if !error.is_silent() {
        let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
        say(&format!("vmm: error: {}{hint}", one_line(error)));
    }
}

/// Largest text for standard error in bytes; a guest or an image can decide about its length.
const MAX_TEXT: usize = 256 << 10;

/// Writes lines to standard error. Control characters other than newlines and tabs are escaped: the
/// text may come from a guest or an image. A reader that takes nothing is not waited for (see
/// [`crate::stderr`]).
pub fn say(text: &str) {
    let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text);
    let mut text = printable(text, true);
    text.push('\n');
    stderr::say(text.as_bytes());
}
