//! Errors of restoring a saved state.

/// A saved state that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The state was saved by another version.
    #[error("saved {chip} state has version {found}, expected {expected}")]
    Version {
        /// The chip.
        chip: &'static str,
        /// Version of the state.
        found: u32,
        /// The version that can be restored.
        expected: u32,
    },
    /// A field has a value that the chip never has.
    #[error("saved {chip} state has an impossible {field}")]
    Field {
        /// The chip.
        chip: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Checks the version of a saved state.
pub(crate) fn check_version(
    chip: &'static str,
    found: u32,
    expected: u32,
) -> Result<(), RestoreError> {
    if found == expected { Ok(()) } else { Err(RestoreError::Version { chip, found, expected }) }
}

/// An error for `field` of `chip` if it is bad.
pub(crate) fn refuse(
    chip: &'static str,
    field: &'static str,
    is_bad: bool,
) -> Result<(), RestoreError> {
    if is_bad { Err(RestoreError::Field { chip, field }) } else { Ok(()) }
}
