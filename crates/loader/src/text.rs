//! Text from an image or a guest, made fit for a terminal and for one line.

use std::fmt::{self, Write};

/// The most characters of an image's text that are shown.
const MAX_CHARS: usize = 256;

/// Bytes of an image as text that is safe to print: control characters escaped, invalid UTF-8
/// replaced, at most 256 characters.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    // A character has at most 4 bytes; what is cut off here is not shown anyway.
    let limit = MAX_CHARS.saturating_mul(4).saturating_add(1).min(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes));
    let mut writer = Printable::default();
    // The writer fails when it is full, which is no error here.
    let _ = writer.write_str(&text);
    writer.finish()
}

/// Appends a character to a text, escaped (`\u{1b}`) if a terminal would obey it, or a reader not
/// see it.
pub fn escape(c: char, text: &mut String) {
    if c.is_control() || is_hidden(c) {
        text.extend(c.escape_default());
    } else {
        text.push(c);
    }
}

/// `true` for characters besides control characters that reorder, hide or join text: bidirectional
/// formatting, line and paragraph separators, and what is invisible by default (Unicode 16, UAX #9
/// and `Default_Ignorable_Code_Point`, without variation selectors).
const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A few of many texts, for one line of a log: `"a", "b", "c" and 5 more`.
///
/// At most three of them, each as [`printable`] makes it.
pub fn few<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut texts = texts.into_iter();
    let shown: Vec<String> =
        texts.by_ref().take(3).map(|text| format!("\"{}\"", printable(text.as_ref()))).collect();
    match texts.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
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
            escape(c, &mut self.text);
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
        for c in [
            '\u{7f}',
            '\u{85}',
            '\u{61c}',
            '\u{200f}',
            '\u{2028}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert!(
                printable(c.to_string().as_bytes()).starts_with("\\u{"),
                "{}",
                c.escape_unicode()
            );
        }
        assert_eq!(printable("\u{1f980}\u{fe0f} \u{5d0}".as_bytes()), "\u{1f980}\u{fe0f} \u{5d0}");
    }

    #[test]
    fn a_few_of_many_are_shown() {
        assert_eq!(few(["a"]), "\"a\"");
        assert_eq!(few(["a", "\x1b", "c"]), "\"a\", \"\\u{1b}\", \"c\"");
        assert_eq!(few(["a", "b", "c", "d", "e"]), "\"a\", \"b\", \"c\" and 2 more");
        assert!(few(vec![vec![0x1b; 65_005]; 16_000]).len() < 3 * 300 * 8);
    }

    #[test]
    fn cuts_long_text() {
        let text = printable("\u{1f980}".repeat(5000).as_bytes());
        assert_eq!(text.chars().count(), MAX_CHARS + 1);
        assert!(text.ends_with('…'));
        assert_eq!(printable(&[b'x'; MAX_CHARS]).len(), MAX_CHARS);
    }
}
