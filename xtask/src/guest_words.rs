//! The words after `vmm run`, looked at before anything is built for them or booted: `vmm` itself
//! is asked.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{kernels, progress};

/// Image that is read from standard input.
const STDIN: &str = "-";

/// Result of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// There is an image, at this index.
    Image(usize),
    /// There are only options.
    NoImage,
    /// `vmm` refuses them with this exit code, and has said why.
    Wrong(i32),
}

/// Looks for wrong options, and for the image and whether it can be read. A test kernel that is not
/// built yet is built.
pub(crate) fn check(vmm: &Path, words: &[String]) -> Result<Words> {
    let Some(image) =
        position_of_image(words, &mut |options| Ok(ask(vmm, options)?.status.success()))?
    else {
        let answer = ask(vmm, words)?;
        return Ok(if answer.status.success() { Words::NoImage } else { refused(&answer) });
    };
    if let Some(path) = words.get(image).filter(|word| *word != STDIN).map(Path::new)
        && std::fs::File::open(path).is_err()
        && !kernels::build_named(path)?
    {
        let inspect = Command::new(vmm).arg("inspect").arg("--").args(words.get(image)).output();
        return Ok(refused(&inspect.context("cannot run vmm")?));
    }
    Ok(Words::Image(image))
}

/// Asks for the options' help, which `vmm` gives only if it understands all options before. It runs
/// nothing.
fn ask(vmm: &Path, options: &[String]) -> Result<Output> {
    let mut command = Command::new(vmm);
    command.arg("run").args(options).arg("--help").stdin(Stdio::null());
    command.output().context("cannot run vmm")
}

/// Hands on what `vmm` says of wrong words.
fn refused(answer: &Output) -> Words {
    progress::tell(String::from_utf8_lossy(&answer.stderr).trim_end());
    Words::Wrong(answer.status.code().unwrap_or(1))
}

/// Returns an error if no word can be an image, before a `vmm` is built that could tell words from
/// options.
pub(crate) fn ensure_image_may_exist(words: &[String]) -> Result<()> {
    let may_be_image = |name: &str| {
        name == STDIN || Path::new(name).exists() || kernels::is_named(Path::new(name))
    };
    if words.iter().any(|word| is_plain(word) && may_be_image(word)) {
        return Ok(());
    }
    // A word after an option may be its value, and there need not be an image.
    let before = std::iter::once(true).chain(words.iter().map(|word| is_plain(word)));
    let names: Vec<_> = words
        .iter()
        .zip(before)
        .filter(|(word, after_plain)| *after_plain && is_plain(word))
        .map(|(word, _)| word.as_str())
        .collect();
    ensure!(names.is_empty(), "no image: {} does not exist", names.join(", "));
    Ok(())
}

/// Returns `true` if a word is no option.
fn is_plain(word: &str) -> bool {
    !word.starts_with('-') || word == STDIN
}

/// Index of the image: the first word that is no option, after options that are complete. Otherwise
/// it would be the value of the option before.
fn position_of_image(
    words: &[String],
    complete: &mut dyn FnMut(&[String]) -> Result<bool>,
) -> Result<Option<usize>> {
    for (index, word) in words.iter().enumerate() {
        if is_plain(word) && complete(words.get(..index).unwrap_or_default())? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_is_noticed_without_a_vmm() {
        let check = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            ensure_image_may_exist(&words).map_err(|error| error.to_string())
        };
        assert_eq!(check("-m 1G nosuch a"), Err("no image: nosuch, a does not exist".to_owned()));
        assert_eq!(check("nosuch"), Err("no image: nosuch does not exist".to_owned()));
        assert_eq!(check("-m 1G Cargo.toml"), Ok(()));
        assert_eq!(check("-m 1G - a"), Ok(()));
        // A demo guest, with options of any kind.
        assert_eq!(check("-v --stats"), Ok(()));
        assert_eq!(check("--time-limit 60s -m 1G"), Ok(()));
    }

    #[test]
    fn an_image_is_told_from_the_value_of_an_option() {
        // "-m" takes a value, "-v" does not.
        let mut complete = |options: &[String]| Ok(options.last().is_none_or(|last| last != "-m"));
        let mut position = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            position_of_image(&words, &mut complete).unwrap()
        };
        assert_eq!(position("a b"), Some(0));
        assert_eq!(position("-m 1G a -m b"), Some(2));
        assert_eq!(position("-v a -- b"), Some(1));
        assert_eq!(position("-m=1G -v"), None);
        assert_eq!(position("-m a"), None);
        assert_eq!(position(""), None);
    }
}
