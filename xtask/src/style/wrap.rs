//! Wraps comments that are too wide: the paragraphs and list items in which a line is, and nothing
//! else.

use super::prose::COLUMNS;

/// A line of comment: its indentation, its marker, and the text after that.
type Line<'a> = (&'a str, &'a str, &'a str);

/// The source, with comments of at most [`COLUMNS`] columns where words allow it.
pub(super) fn wrap(source: &str) -> String {
    let mut wrapped = Vec::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((indent, marker, first)) = comment(line) else {
            wrapped.push(line.to_owned());
            continue;
        };
        let mut texts = vec![first];
        while let Some((.., text)) = lines
            .peek()
            .copied()
            .and_then(comment)
            .filter(|next| (next.0, next.1) == (indent, marker))
        {
            texts.push(text);
            lines.next();
        }
        let head = format!("{indent}{marker}");
        let room = COLUMNS.saturating_sub(head.chars().count());
        wrapped.extend(block(&texts, room).into_iter().map(|text| format!("{head}{text}")));
    }
    let mut text = wrapped.join("\n");
    if source.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn comment(line: &str) -> Option<Line<'_>> {
    let text = line.trim_start();
    let (indent, _) = line.split_at(line.len() - text.len());
    let marker = ["//!", "///", "//"].into_iter().find(|marker| text.starts_with(marker))?;
    let (marker, text) = text.split_at(marker.len());
    (!text.starts_with('/')).then_some((indent, marker, text))
}

/// Wraps the lines of a comment, in which paragraphs, list items, tables and code are told apart.
fn block(texts: &[&str], room: usize) -> Vec<String> {
    let mut done = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    let mut in_code = false;
    for text in texts {
        let words = text.trim();
        let is_fence = words.starts_with("```");
        let is_apart = in_code || is_fence || words.is_empty() || words.starts_with(['#', '|']);
        let is_indented = paragraph.is_empty() && text.starts_with("     ");
        if is_apart || is_indented || bullet(words).is_some() {
            done.append(&mut fill(&std::mem::take(&mut paragraph), room));
        }
        in_code ^= is_fence;
        if is_apart || is_indented {
            done.push((*text).to_owned());
        } else {
            paragraph.push(text);
        }
    }
    done.append(&mut fill(&paragraph, room));
    done
}

/// Length of the sign with which a list item begins.
fn bullet(text: &str) -> Option<usize> {
    let sign = text.split(' ').next()?;
    let digits = sign.trim_end_matches('.');
    let is_number = sign.len() == digits.len() + 1
        && !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit());
    (is_number || sign == "*" || sign == "-").then_some(sign.len())
}

/// Fills the lines of one paragraph or list item anew, if one of them is too wide.
fn fill(paragraph: &[&str], room: usize) -> Vec<String> {
    if paragraph.iter().all(|text| text.chars().count() <= room) {
        return paragraph.iter().map(|text| (*text).to_owned()).collect();
    }
    let first = paragraph.first().copied().unwrap_or_default();
    let lead = first.len() - first.trim_start().len();
    let hang = lead + bullet(first.trim_start()).map_or(0, |length| length + 1);
    let mut lines = Vec::new();
    let mut line = " ".repeat(lead);
    let mut is_empty = true;
    for word in paragraph.iter().flat_map(|text| text.split_whitespace()) {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(std::mem::replace(&mut line, " ".repeat(hang)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_paragraph_is_filled_and_nothing_else() {
        let words = "word ".repeat(30);
        let source = format!(
            "    /// A short\n    /// one.\n    ///\n    /// {}\n    /// end.\n    fn a() {{}}\n",
            words.trim()
        );
        let wrapped = wrap(&source);
        assert!(
            wrapped.starts_with("    /// A short\n    /// one.\n    ///\n    /// word word"),
            "{wrapped}"
        );
        assert!(wrapped.ends_with(" word end.\n    fn a() {}\n"), "{wrapped}");
        assert!(wrapped.lines().all(|line| line.chars().count() <= COLUMNS), "{wrapped}");
        let flat = |text: &str| {
            text.replace("    ///", "").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(flat(&wrapped), flat(&source));
        assert_eq!(wrap(&wrapped), wrapped);
    }

    #[test]
    fn list_items_hang_and_code_stays() {
        let wide = "word ".repeat(25);
        let source = format!(
            "//! * {0}\n//! * b\n//!\n//! ```\n//! {0}\n//! ```\n//! 1. {0}\n",
            wide.trim()
        );
        let lines: Vec<String> = wrap(&source).lines().map(str::to_owned).collect();
        assert!(
            lines[0].starts_with("//! * word") && lines[1].starts_with("//!   word"),
            "{lines:?}"
        );
        assert_eq!(lines[2], "//! * b");
        assert_eq!(lines[5], format!("//! {}", wide.trim()));
        assert!(
            lines[7].starts_with("//! 1. word") && lines[8].starts_with("//!    word"),
            "{lines:?}"
        );
    }

    #[test]
    fn code_is_no_comment() {
        let source = format!("let a = \"{}\"; // {0}\n", "x ".repeat(60));
        assert_eq!(wrap(&source), source);
    }
}
