//! Errors of `vmm`, each one line on standard error.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use nerite_image::PackError;
use nerite_log_budget::Causes;
use nerite_machine::ErrorKind;

use crate::config_file::ConfigFileError;
use crate::exit_code;

/// Error that ends `vmm`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line or the environment is wrong.
    #[error("{0}")]
    Usage(String),
    /// The configuration file is wrong.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The image to inspect cannot be read or is malformed.
    #[error(transparent)]
    Image(#[from] nerite_loader::Error),
    /// The image of a layout cannot be read.
    #[error("{}", .name.display())]
    Layout {
        /// Name of the image.
        name: PathBuf,
        /// Cause.
        source: nerite_image::Error,
    },
    /// The image cannot be packed.
    #[error(transparent)]
    Pack(#[from] nerite_image::PackError),
    /// A file that is to be packed cannot be read.
    #[error("{}: cannot read it", .path.display())]
    PackedFile {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The image to inspect cannot be looked at confined.
    #[error(transparent)]
    Sandbox(#[from] nerite_sandbox::Error),
    /// The machine cannot be made, or the host failed while it ran.
    #[error(transparent)]
    Machine(#[from] nerite_machine::Error),
    /// The same, for a fault that the image has a part in and that does not name it.
    #[error("{}", .image.display())]
    OfImage {
        /// The image that was to run.
        image: PathBuf,
        /// Cause.
        source: nerite_machine::Error,
    },
    /// The guest's output cannot be written.
    #[error("{to}: cannot write the guest's output")]
    Output {
        /// Destination: a path, or the words "standard output".
        to: String,
        /// Cause.
        source: io::Error,
    },
    /// The signals that end a run cannot be listened to.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Descriptors of the parent process cannot be closed.
    #[error("cannot close inherited descriptors")]
    Descriptors(#[source] io::Error),
    /// There is no control socket.
    #[error(transparent)]
    ControlSocket(#[from] nerite_control::ServerError),
    /// There is no GDB server.
    #[error(transparent)]
    Debugger(#[from] nerite_gdb::ServerError),
    /// A running machine did not answer.
    #[error(transparent)]
    Control(#[from] nerite_control::ClientError),
    /// A snapshot cannot be written or read.
    #[error(transparent)]
    Snapshot(#[from] nerite_snapshot::Error),
    /// The terminal cannot be given to the guest.
    #[error("cannot give the terminal to the guest")]
    Terminal(#[source] io::Error),
    /// Clones cannot be served.
    #[error(transparent)]
    Clones(#[from] crate::clone_wire::ClonesError),
    /// The file of the log cannot be opened.
    #[error("{}: cannot open the log file", path.display())]
    LogFile {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

impl Error {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit_code::USAGE,
            Self::ConfigFile(_) => exit_code::CONFIG_FILE,
            Self::Image(_) | Self::Layout { .. } => exit_code::IMAGE,
            Self::Pack(error) => match error {
                PackError::Image(_) => exit_code::IMAGE,
                PackError::Write { .. } | PackError::Compress { .. } => exit_code::HOST,
                _ => exit_code::USAGE,
            },
            Self::PackedFile { .. } => exit_code::USAGE,
            Self::Snapshot(error) if error.is_bad_snapshot() => exit_code::IMAGE,
            Self::Stdout(error) | Self::Output { source: error, .. }
                if error.kind() == io::ErrorKind::BrokenPipe =>
            {
                exit_code::BROKEN_PIPE
            }
            Self::Machine(source) | Self::OfImage { source, .. } => match source.kind() {
                ErrorKind::Config => exit_code::USAGE,
                ErrorKind::Image => exit_code::IMAGE,
                _ => exit_code::HOST,
            },
            Self::Sandbox(_)
            | Self::Signals(_)
            | Self::Descriptors(_)
            | Self::Debugger(_)
            | Self::ControlSocket(_)
            | Self::Control(_)
            | Self::Snapshot(_)
            | Self::LogFile { .. }
            | Self::Terminal(_)
            | Self::Clones(_)
            | Self::Stdout(_)
            | Self::Output { .. } => exit_code::HOST,
        }
    }

    /// Returns `true` if the error needs no message: the reader of the output has gone, and knows
    /// it.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.exit_code() == exit_code::BROKEN_PIPE
    }
}

impl Error {
    /// The error of a machine that was to run `image`, which is named if it is part of the fault
    /// and the error does not name it: another image might fit into the memory, but no other image
    /// makes a disk or tap usable.
    pub(crate) fn of_machine(image: &Path, source: nerite_machine::Error) -> Self {
        use nerite_machine::Error::{CpuModel, Disk, DiskCount, Net, SameDisk, Vsock};
        let is_elsewhere = source.kind() == ErrorKind::Host
            || matches!(
                source,
                CpuModel(_) | Net(_) | Disk(_) | DiskCount { .. } | SameDisk { .. } | Vsock(_)
            );
        let path = image.to_string_lossy();
        // Errors of an image on standard input name that.
        if is_elsewhere || path == "-" || Causes(&source).to_string().contains(&*path) {
            return Self::Machine(source);
        }
        Self::OfImage { image: image.to_owned(), source }
    }
}

/// An error and its causes in one line of plain text.
///
/// Control characters are escaped, because paths, images and guests may bring some.
#[must_use]
pub fn one_line(error: &dyn StdError) -> String {
    printable(&Causes(error).to_string(), false)
}

/// `text` with control and invisible characters escaped; `lines` keeps newlines and tabs.
#[must_use]
pub fn printable(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' | '\t' if lines => out.push(c),
            c => nerite_loader::text::escape(c, &mut out),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn causes_follow_unless_already_told() {
        let last = Box::new(Link { text: "no such file", source: None });
        let middle = Box::new(Link { text: "cannot open x: no such file", source: Some(last) });
        let first = Link { text: "cannot start", source: Some(middle) };
        assert_eq!(one_line(&first), "cannot start: cannot open x: no such file");
    }

    #[test]
    fn one_line_stays_one_line() {
        let error = Link { text: "a\nb\x1b[31m\u{85}c", source: None };
        assert_eq!(one_line(&error), "a\\nb\\u{1b}[31m\\u{85}c");
        assert_eq!(printable("a\n\tb\x1b\u{202e}\n", true), "a\n\tb\\u{1b}\\u{202e}");
    }

    #[test]
    fn a_reader_that_went_away_is_not_told() {
        let gone = Error::Stdout(io::ErrorKind::BrokenPipe.into());
        assert_eq!((gone.exit_code(), gone.is_silent()), (141, true));
        let full = Error::Stdout(io::ErrorKind::StorageFull.into());
        assert_eq!((full.exit_code(), full.is_silent()), (243, false));
    }
}
