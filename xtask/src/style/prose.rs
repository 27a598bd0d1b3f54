//! The words of comments, messages and documents.

use anyhow::{Result, ensure};

/// Columns that a line of comment may have.
pub(super) const COLUMNS: usize = 100;
/// Words between the parts of a phrase with a gap, at most.
const GAP: usize = 3;
/// Sign of the gap.
const ELLIPSIS: &str = "...";

/// Words that are not used.
#[derive(Debug)]
pub(crate) struct Words {
    /// First words of a doc comment.
    openings: Vec<String>,
    /// Phrases anywhere, in lower case, as lists of words.
    phrases: Vec<Vec<String>>,
}

impl Words {
    pub(crate) fn new(openings: Vec<String>, phrases: &[String]) -> Result<Self> {
        ensure!(!openings.is_empty() && !phrases.is_empty(), "xtask/style.toml names no words");
        let phrases = phrases.iter().map(|phrase| split(phrase)).collect();
        Ok(Self { openings, phrases })
    }
}

/// Faults of a file: rule, line number, and what it is.
pub(crate) fn faults(text: &str, name: &str, words: &Words) -> Vec<(&'static str, usize, String)> {
    let mut faults = Vec::new();
    let is_rust = name.ends_with(".rs");
    let mut before = None;
    for (number, line) in (1..).zip(text.lines()) {
        let doc = is_rust.then(|| doc_comment(line)).flatten();
        // The first line of a comment is the one after something else.
        if let Some((marker, comment)) = doc
            && before != Some(marker)
            && let Some(first) = split_words(comment).next()
            && words.openings.iter().any(|opening| opening == first)
        {
            faults.push(("openings", number, format!("a doc comment that begins with {first}")));
        }
        before = doc.map(|(marker, _)| marker);
        if is_rust && line.trim_start().starts_with("//") {
            let columns = line.chars().count();
            if columns > COLUMNS {
                faults.push(("width", number, format!("a comment of {columns} columns")));
            }
        }
        if is_rust || name.ends_with(".md") {
            let lower = split(line);
            for phrase in words.phrases.iter().filter(|phrase| contains(&lower, phrase)) {
                faults.push(("words", number, format!("\"{}\"", phrase.join(" "))));
            }
        }
    }
    faults
}

/// Marker and text of a line of a doc comment.
fn doc_comment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let marker = ["///", "//!"].into_iter().find(|marker| line.starts_with(marker))?;
    let (marker, text) = line.split_at(marker.len());
    (!text.starts_with('/')).then_some((marker, text))
}

fn split_words(text: &str) -> impl Iterator<Item = &str> {
    // An underscore makes a name of code out of words.
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    text.split(move |c: char| !is_part(c)).filter(|word| !word.is_empty())
}

fn split(text: &str) -> Vec<String> {
    let gaps = text.replace(ELLIPSIS, "\u{2026}").to_lowercase();
    let mut words = Vec::new();
    for piece in gaps.split_inclusive('\u{2026}') {
        words.extend(split_words(piece).map(str::to_owned));
        if piece.ends_with('\u{2026}') {
            words.push(ELLIPSIS.to_owned());
        }
    }
    words
}

/// `true` if the words have the phrase in them; a gap is one to three words.
fn contains(words: &[String], phrase: &[String]) -> bool {
    (0..words.len()).any(|at| words.get(at..).is_some_and(|rest| begins(rest, phrase)))
}

fn begins(words: &[String], phrase: &[String]) -> bool {
    match phrase.split_first() {
        None => true,
        Some((first, rest)) if first == ELLIPSIS => {
            (1..=GAP).any(|gap| words.get(gap..).is_some_and(|words| begins(words, rest)))
        }
        Some((first, rest)) => {
            words.split_first().is_some_and(|(word, words)| word == first && begins(words, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, name: &str) -> Vec<(&'static str, usize)> {
        let phrases = ["anyone", "as it were", "makes ... sad"].map(str::to_owned);
        let words = Words::new(vec!["What".to_owned(), "Who".to_owned()], &phrases).unwrap();
        faults(text, name, &words).into_iter().map(|(rule, line, _)| (rule, line)).collect()
    }

    #[test]
    fn only_the_first_word_of_a_comment_opens_it() {
        assert_eq!(
            found("/// What it is.\n/// Who it is.\nfn a();\n\n    /// Who else.\n", "a.rs"),
            [("openings", 1), ("openings", 5)]
        );
        assert_eq!(found("//! What it is.\n", "a.rs"), [("openings", 1)]);
        assert_eq!(found("//! A.\n/// What it is.\n", "a.rs"), [("openings", 2)]);
        assert_eq!(found("/// Whatever.\n// What it is.\n//// What\n", "a.rs"), []);
        assert_eq!(found("/// What it is.\n", "a.md"), []);
    }

    #[test]
    fn phrases_are_found_as_words() {
        assert_eq!(
            found("// Tell Anyone.\nlet anyone_is = 1;\n\"as it\nwere\"\nas it were\n", "a.rs"),
            [("words", 1), ("words", 5)]
        );
        assert_eq!(
            found(
                "It makes the very old sad.\nIt makes sad.\nIt makes one two three four sad.\n",
                "a.md"
            ),
            [("words", 1)]
        );
        assert_eq!(found("# anyone\n", "a.toml"), []);
    }

    #[test]
    fn comments_have_a_width() {
        let line = |length: usize| format!("// {}\n", "x".repeat(length - 3));
        assert_eq!(found(&format!("{}{}", line(100), line(101)), "a.rs"), [("width", 2)]);
        assert_eq!(found(&format!("let a = 1; {}", line(101)), "a.rs"), []);
    }
}
