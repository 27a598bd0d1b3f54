//! Texts of an image in messages.

/// Most characters of a text in a message.
const SHORT: usize = 200;

/// The beginning of a text, which may be as long as a document.
pub(crate) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHORT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
