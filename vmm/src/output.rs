//! Writing to standard output and standard error without a panic when nobody reads them.

use std::io::{self, Write as _};

use crate::error::{Error, one_line, printable};

/// Writes text to standard output.
///
/// # Errors
///
/// [`Error::Stdout`] if it cannot be written, which includes a reader that went away.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Stdout)
}

/// Writes the one line that says why the program failed to standard error, unless there is nobody to tell.
pub fn report(error: &Error) {
    if !error.is_silent() {
        say(&format!("vmm: error: {}", one_line(error)));
    }
}

/// Writes lines to standard error. Control characters other than newlines and tabs are escaped: the text may come from
/// a guest or an image. There is nowhere to say that standard error cannot be written.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text, true));
}
