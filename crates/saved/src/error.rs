//! Errors of saving and restoring.

use std::error::Error;

/// A part that cannot be saved now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The part still works on its own.
    #[error("{part} cannot be saved: it is not paused")]
    NotPaused {
        /// The part.
        part: &'static str,
    },
    /// Output of the guest cannot leave the machine.
    #[error("{part} cannot be saved: its output is blocked")]
    OutputBlocked {
        /// The part.
        part: &'static str,
    },
    /// The host failed.
    #[error("{part} cannot be saved")]
    Host {
        /// The part.
        part: &'static str,
        /// Cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An error of a part of another one.
    #[error("{part}")]
    Within {
        /// The outer part.
        part: String,
        /// The error.
        source: Box<Self>,
    },
}

impl SaveError {
    /// Names the part that the host failed for.
    pub fn host<E: Into<Box<dyn Error + Send + Sync>>>(
        part: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { part, source: source.into() }
    }

    /// Names the outer part.
    #[must_use]
    pub fn within(self, part: impl Into<String>) -> Self {
        Self::Within { part: part.into(), source: Box::new(self) }
    }
}

/// A saved state that a part cannot have, or cannot resume from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state was saved by another version.
    #[error("saved state of the {part}: version {found}, expected {expected}")]
    Version {
        /// The part.
        part: &'static str,
        /// Version of the state.
        found: u32,
        /// The version that can be restored.
        expected: u32,
    },
    /// A field has a value that the part never has.
    #[error("saved state of the {part}: {field} is impossible")]
    Field {
        /// The part.
        part: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that the part has in a machine with another configuration.
    #[error("saved state of the {part}: {field} is not this machine's")]
    Mismatch {
        /// The part.
        part: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The part cannot resume from the state.
    #[error("saved state of the {part}")]
    Failed {
        /// The part.
        part: &'static str,
        /// Cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An error of a part of another one.
    #[error("{part}")]
    Within {
        /// The outer part.
        part: String,
        /// The error.
        source: Box<Self>,
    },
}

impl RestoreError {
    /// Names the part that refuses its state.
    pub fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
        part: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { part, source: source.into() }
    }

    /// Names the outer part.
    #[must_use]
    pub fn within(self, part: impl Into<String>) -> Self {
        Self::Within { part: part.into(), source: Box::new(self) }
    }
}

/// Checks the version of a saved state.
///
/// # Errors
/// Fails if it is not `expected`.
pub const fn check_version(
    part: &'static str,
    found: u32,
    expected: u32,
) -> Result<(), RestoreError> {
    if found == expected { Ok(()) } else { Err(RestoreError::Version { part, found, expected }) }
}

/// Refuses an impossible value.
///
/// # Errors
/// Fails if `is_impossible`.
pub const fn refuse(
    part: &'static str,
    field: &'static str,
    is_impossible: bool,
) -> Result<(), RestoreError> {
    if is_impossible { Err(RestoreError::Field { part, field }) } else { Ok(()) }
}

/// Refuses a value that another machine has.
///
/// # Errors
/// Fails unless `is_same`.
pub const fn require_same(
    part: &'static str,
    field: &'static str,
    is_same: bool,
) -> Result<(), RestoreError> {
    if is_same { Ok(()) } else { Err(RestoreError::Mismatch { part, field }) }
}
