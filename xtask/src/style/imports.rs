//! Paths that a source file names, read from its text: enough to know which module needs which.

use std::collections::HashMap;

/// A path in a source, such as `crate::a::B`, as its parts.
pub(super) type Parts = Vec<String>;

/// Modules that a source names.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// Paths of `use` declarations, and those that begin with `crate`, `super` or `self` elsewhere.
    pub(super) paths: Vec<Parts>,
    /// Paths behind the names that the source exports by `pub use`.
    pub(super) exports: HashMap<String, Parts>,
}

/// Reads a source, without what is only for tests.
pub(super) fn read(text: &str) -> Imports {
    let tokens = without_tests(tokens(text));
    let mut imports = Imports::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let before =
            at.checked_sub(1).and_then(|before| tokens.get(before)).map_or("", String::as_str);
        let followed = tokens.get(at + 1).is_some_and(|next| next == "::");
        if token == "use" {
            let end = tokens.get(at..).unwrap_or_default().iter().position(|token| token == ";");
            let end = end.map_or(tokens.len(), |length| at + length);
            let mut found = Vec::new();
            tree(tokens.get(at + 1..end).unwrap_or_default(), &[], &mut found);
            let is_export = before == "pub" || before == ")";
            for (path, name) in found {
                if is_export {
                    imports.exports.insert(name, path);
                } else {
                    imports.paths.push(path);
                }
            }
            at = end;
        } else if ["crate", "super", "self"].contains(&token.as_str())
            && followed
            && !["::", "$"].contains(&before)
        {
            let mut path = vec![token.clone()];
            while tokens.get(at + 1).is_some_and(|next| next == "::")
                && let Some(part) = tokens.get(at + 2).filter(|part| is_name(part))
            {
                path.push(part.clone());
                at += 2;
            }
            imports.paths.push(path);
        }
        at += 1;
    }
    imports
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes a tree such as `a::{b, c::{self, D as E}}` apart, into paths and the names that they get.
fn tree(tokens: &[String], prefix: &[String], found: &mut Vec<(Parts, String)>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                let inside = tokens.get(at + 1..tokens.len().saturating_sub(1)).unwrap_or_default();
                branches(inside).into_iter().for_each(|branch| tree(branch, &path, found));
                return;
            }
            "as" => break,
            "*" => break,
            "self" if !path.is_empty() => break,
            name if is_name(name) => path.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    let name = match tokens.get(at..) {
        Some([word, name, ..]) if word == "as" => name.clone(),
        _ => path.last().cloned().unwrap_or_default(),
    };
    if !path.is_empty() {
        found.push((path, name));
    }
}

/// Splits at the commas that are in no braces.
fn branches(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0_usize;
    let commas = tokens.split(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token == ","
    });
    commas.filter(|branch| !branch.is_empty()).collect()
}

/// Leaves out the items after `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut left = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let is_mark = tokens.get(at..at + MARK.len()).is_some_and(|found| found == MARK);
        if !is_mark {
            left.push(token.clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        // An item ends with a semicolon or with its last brace.
        let mut depth = 0_usize;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (token == ";" || token == "}") {
                break;
            }
        }
    }
    left
}

/// Names, `::` and single signs, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = skipped(rest) {
            rest = rest.get(length..).unwrap_or_default();
        } else if is_name(rest) {
            let length =
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(length);
            tokens.push(name.to_owned());
            rest = after;
        } else if let Some(after) = rest.strip_prefix("::") {
            tokens.push("::".to_owned());
            rest = after;
        } else {
            tokens.push(first.to_string());
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    tokens
}

/// Length of the white space, comment or literal with which the text begins.
fn skipped(text: &str) -> Option<usize> {
    let until = |from: usize, end: &str| {
        let rest = text.get(from..).unwrap_or_default();
        rest.find(end).map_or(text.len(), |at| from + at + end.len())
    };
    let space = text.len() - text.trim_start().len();
    if space > 0 {
        return Some(space);
    }
    if text.starts_with("//") {
        return Some(until(2, "\n"));
    }
    if text.starts_with("/*") {
        return Some(until(2, "*/"));
    }
    let literal = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - literal.len();
    if prefix <= 1 && literal.starts_with('"') {
        return Some(prefix + quoted(literal, '"'));
    }
    if let Some(raw) = literal.strip_prefix('r').filter(|_| prefix <= 1) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw.get(hashes..).is_some_and(|rest| rest.starts_with('"')) {
            let begin = prefix + 1 + hashes + 1;
            return Some(until(begin, &format!("\"{}", "#".repeat(hashes))));
        }
    }
    if text.starts_with('\'') {
        let mut after = text.chars().skip(1);
        // Otherwise it is a lifetime.
        let is_character = after.next() == Some('\\') || after.next() == Some('\'');
        return Some(if is_character { quoted(text, '\'') } else { 1 });
    }
    None
}

/// Length of the literal between two of these quotes with which the text begins.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        read(text).paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn trees_are_taken_apart() {
        let text = "use crate::{a::{self, B as C, d::*}, e};\nuse std::fmt;\nuse super::f::G;";
        assert_eq!(
            paths(text),
            ["crate::a", "crate::a::B", "crate::a::d", "crate::e", "std::fmt", "super::f::G"]
        );
    }

    #[test]
    fn paths_in_code_count_as_well() {
        assert_eq!(
            paths("fn f() { crate::a::b(self::c::D); self.x(); $crate::m!(); }"),
            ["crate::a::b", "self::c::D"]
        );
        assert_eq!(paths("pub(crate) fn f() -> crate::a::B<'a> { }"), ["crate::a::B"]);
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "// crate::a::b\n/* use crate::c; */ \"crate::d::e \\\" crate::f::g\" r#\"\" crate::h::i\"# '\"' b'\\'' 'a crate::x::y \"";
        assert_eq!(paths(text), ["crate::x::y"]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "#[cfg(test)]\nmod tests { use crate::a; fn f() { { } } }\n#[cfg(test)]\nuse crate::b;\n\
                    #[cfg(test)] #[path = \"x.rs\"] mod c;\nuse crate::d;";
        assert_eq!(paths(text), ["crate::d"]);
    }

    #[test]
    fn exports_are_known_by_their_names() {
        let exports = read("pub use a::B;\npub(crate) use self::c::{D, E as F};").exports;
        assert_eq!(exports["B"], ["a", "B"]);
        assert_eq!(exports["D"], ["self", "c", "D"]);
        assert_eq!(exports["F"], ["self", "c", "E"]);
    }
}
