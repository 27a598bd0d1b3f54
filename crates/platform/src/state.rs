//! Saved states of platforms.

use nerite_saved::{RestoreError, SaveError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const PART: &str = "platform";

/// Saved state of a platform, which only a platform of its kind can read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformState(Value);

impl PlatformState {
    /// The state as data.
    ///
    /// # Errors
    /// Fails if it cannot be expressed.
    pub fn new(state: &impl Serialize) -> Result<Self, SaveError> {
        serde_json::to_value(state).map(Self).map_err(SaveError::host(PART))
    }

    /// The state of a platform's own type. Its values are not checked.
    ///
    /// # Errors
    /// Fails if it is that of another platform or version.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, RestoreError> {
        T::deserialize(&self.0).map_err(RestoreError::failed(PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_platforms_state_is_refused() {
        let state = PlatformState::new(&(1_u32, "x")).unwrap();
        assert_eq!(state.read::<(u32, String)>().unwrap(), (1, "x".to_owned()));
        let error = crate::Error::from(state.read::<[u8; 3]>().unwrap_err());
        assert_eq!(error.kind(), crate::ErrorKind::Image, "{error}");
    }
}
