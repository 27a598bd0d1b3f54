//! Text from an image, made fit for a terminal and for one line.

use std::fmt::{self, Write};

/// The most characters of an image's text that are shown.
const MAX_CHARS: usize = 256;

/// Bytes of an image as text that is safe to print: control characters escaped, invalid UTF-8 replaced, at most
/// [`MAX_CHARS`] characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    // A character has at most 4 bytes; what is cut off here is not shown anyway.
    let limit = MAX_CHARS.saturating_mul(4).saturating_add(1).min(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes));
    let mut writer = Printable::default();
    // The writer fails when it is full, which is no error here.
    let _ = writer.write_str(&text);
    writer.finish()
}

/// A [`fmt::Write`] that escapes control characters and stops after [`MAX_CHARS`] characters.
#[derive(Default)]
pub(crate) struct Printable {
    text: String,
    count: usize,
    full: bool,
}

impl Printable {
    /// The text, with an ellipsis where it was cut.
    pub(crate) fn finish(mut self) -> String {
        if self.full {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Printable {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.count >= MAX_CHARS {
                self.full = true;
                return Err(fmt::Error);
            }
            self.count = self.count.saturating_add(1);
            // Beside control characters, those that reorder or hide text in a terminal.
            let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if c.is_control() || hidden {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(printable(b"a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(printable("gr\u{fc}n \u{202e}x".as_bytes()), "gr\u{fc}n \\u{202e}x");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn cuts_long_text() {
        let text = printable("\u{1f980}".repeat(5000).as_bytes());
        assert_eq!(text.chars().count(), MAX_CHARS + 1);
        assert!(text.ends_with('…'));
        assert_eq!(printable(&[b'x'; MAX_CHARS]).len(), MAX_CHARS);
    }
}
