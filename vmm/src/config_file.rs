//! Configuration files: `nerite.toml`, and the peer's `uhyve.toml`.
//!
//! Both have the tables of [`Options`]; a key that the peer spells differently (`memory_size` for
//! `size`) is one key with two names. An unknown key is an error. The table `[uhyve]` is the peer's
//! own: its keys load, and those without effect here are warned about.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::options::Options;

/// Maximum size of a configuration file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Contents of a configuration file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// The options.
    pub options: Options,
    /// One line for each key that has no effect.
    pub warnings: Vec<String>,
}

/// A configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is larger than any configuration is.
    #[error("{} is larger than {MAX_FILE} bytes: not a configuration file", .0.display())]
    TooLarge(PathBuf),
    /// The file is not UTF-8.
    #[error("{} is not a configuration file: byte {offset} is not UTF-8 text", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Length of the text before it in bytes.
        offset: usize,
    },
    /// The contents are wrong.
    #[error("{}:{line}:{column}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The fault, with the line.
        reason: String,
    },
    /// The file was found by itself in the current folder, and says what only one that is named may
    /// say.
    #[error(
        "{}: {key} would widen what the guest may touch, and this file was found by itself: it may have come with the \
         image; pass --config {} if it is yours", .path.display(), .path.display()
    )]
    NotNamed {
        /// The file.
        path: PathBuf,
        /// The key, as in `[table]` or in words.
        key: &'static str,
    },
    /// The contents are well-formed, but contradict each other or the host.
    #[error("{}: {reason}", .path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
}

/// Paths of configuration files that are read when none is named, in order of precedence.
///
/// The second is in the folder of the XDG Base Directory Specification: `$XDG_CONFIG_HOME`, unless
/// it is unset, empty or relative, and `~/.config` otherwise.
#[must_use]
pub fn search_path(xdg_config_home: Option<&OsStr>, home: Option<&OsStr>) -> Vec<PathBuf> {
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let mut paths = vec![PathBuf::from("nerite.toml")];
    let folder =
        absolute(xdg_config_home).or_else(|| absolute(home).map(|home| home.join(".config")));
    paths.extend(folder.map(|folder| folder.join("nerite/nerite.toml")));
    paths
}

/// Reads a configuration file.
///
/// # Errors
///
/// If the file cannot be read, is not TOML, or says something that is not understood.
pub fn load(path: &Path) -> Result<Loaded, ConfigFileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigFileError::TooLarge(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| ConfigFileError::NotText {
        path: path.to_owned(),
        offset: error.valid_up_to(),
    })?;
    parse(path, text)
}

/// Reads the text of a configuration file; `path` is only for messages.
///
/// # Errors
///
/// If it is not TOML, or says something that is not understood.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, ConfigFileError> {
    let mut options: Options =
        toml::from_str(text).map_err(|error| content_error(path, text, &error))?;
    let warnings = options
        .normalize()
        .map_err(|reason| ConfigFileError::Meaning { path: path.to_owned(), reason })?;
    let warnings = warnings.into_iter().map(|text| format!("{}: {text}", path.display())).collect();
    Ok(Loaded { options, warnings })
}

/// A parser's error with its place, and the line it is about, so that the key is always named.
fn content_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigFileError {
    /// Maximum length of the line in the message, in characters.
    const MAX_SNIPPET: usize = 60;
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let snippet =
        text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().trim();
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let mut reason = message;
    if !snippet.is_empty() {
        let short: String = snippet.chars().take(MAX_SNIPPET).collect();
        let dots = if short.len() < snippet.len() { "..." } else { "" };
        reason = format!("{reason}, in `{short}{dots}`");
    }
    ConfigFileError::Content {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        reason,
    }
}

#[cfg(test)]
#[path = "config_file_test.rs"]
mod tests;
