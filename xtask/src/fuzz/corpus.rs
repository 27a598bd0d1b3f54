//! The corpus in the tree: a text file for each target, with an input a line in hexadecimal digits,
//! so that a review sees what changes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

/// Bytes of inputs that are kept of a target: small ones first.
const KEPT: usize = 24 << 10;

/// The file of a target.
pub(super) fn file(target: &str) -> PathBuf {
    paths::root().join("fuzz/corpus").join(target).with_extension("txt")
}

/// The inputs in a corpus file; lines that begin with `#` say something about them.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<u8>>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            decode(line).with_context(|| format!("line {}: not hexadecimal digits", at + 1))
        })
        .collect()
}

fn decode(line: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = line.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Text of a corpus file with these inputs.
pub(super) fn render(target: &str, inputs: &BTreeSet<(usize, Vec<u8>)>) -> String {
    let mut text = format!(
        "# Inputs of the fuzz target {target}, made by `cargo xtask fuzz --keep {target}`.\n"
    );
    for (_, input) in inputs {
        for byte in input {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// Writes each input of a target's corpus into a file of its own in `folder`, as libFuzzer wants
/// them. How many there are.
pub(super) fn unpack(target: &str, folder: &Path) -> Result<usize> {
    let path = file(target);
    if !path.exists() {
        return Ok(0);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let inputs = parse(&text).with_context(|| format!("bad corpus {}", path.display()))?;
    for (number, input) in inputs.iter().enumerate() {
        let file = folder.join(format!("kept-{number}"));
        fs::write(&file, input).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(inputs.len())
}

/// Keeps the smallest of the inputs in `folder`. How many these are.
pub(super) fn keep(target: &str, folder: &Path) -> Result<usize> {
    let mut inputs = BTreeSet::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let input = fs::read(entry?.path())?;
        inputs.insert((input.len(), input));
    }
    let mut room = KEPT;
    inputs.retain(|(size, _)| {
        let left = room.checked_sub(size + 1);
        room = left.unwrap_or(0);
        left.is_some()
    });
    let path = file(target);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(&path, render(target, &inputs))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(inputs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_parsed() {
        let inputs = BTreeSet::from([(0, vec![]), (2, vec![0, 0xff]), (1, b"a".to_vec())]);
        let text = render("some", &inputs);
        assert!(text.starts_with("# ") && text.ends_with("\n\n61\n00ff\n"), "{text}");
        assert_eq!(parse(&text).unwrap(), [vec![], b"a".to_vec(), vec![0, 0xff]]);
        for bad in ["0", "0g", "é", "+1"] {
            assert_eq!(
                parse(bad).unwrap_err().to_string(),
                "line 1: not hexadecimal digits",
                "{bad}"
            );
        }
    }

    #[test]
    fn every_target_has_a_corpus_that_can_be_read() {
        for target in super::super::targets().unwrap() {
            let text = fs::read_to_string(file(&target))
                .unwrap_or_else(|error| panic!("{target}: {error}"));
            assert!(!parse(&text).unwrap().is_empty(), "{target}");
        }
    }
}
