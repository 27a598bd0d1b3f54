//! States of a vCPU between its first and its last instruction.

use std::fmt;

/// State of a vCPU.
///
/// ```text
///                 +------------------------- kicked -------------------------+
///                 |                                                          v
///  Created --> Running --- exit ---> InService --- answer ---> ServiceToComplete
///                 ^  ^                |      |                     |      (entered with
///                 |  |                |      +-- end --> Stopped   |     immediate_exit)
///                 |  +--------------- | ------ next run -----------+         |
///                 |                   |                                      |
///                 |                   v held, with the access unanswered     v
///                 +--- release --- (InService)                            Paused
///                 |                                                          |
///                 +------------------------ release -------------------------+
///
/// Halted: as Running, but the vCPU waits for an interrupt. Every state leads to Stopped on `stop`.
/// ```
///
/// Guest instructions are executed in [`RunState::Running`] only. State may be *changed* or saved
/// in [`RunState::Paused`] only: there no access is half done. It may be *read* also while a vCPU
/// is held in [`RunState::InService`]; then it is the state before the instruction whose access is
/// being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum RunState {
    /// No thread has run it yet.
    Created,
    /// In the guest, or on the way there.
    Running,
    /// An exit is being answered.
    InService,
    /// The answer is known and not in the guest yet.
    ServiceToComplete,
    /// Held, with nothing half done.
    Paused,
    /// It executed HLT and waits for an interrupt.
    Halted,
    /// Its thread has left the loop. The last state.
    Stopped,
}

impl RunState {
    /// All states, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::InService,
        Self::ServiceToComplete,
        Self::Paused,
        Self::Halted,
        Self::Stopped,
    ];

    /// A name in lower case, for tables and the control socket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::InService => "in service",
            Self::ServiceToComplete => "service to complete",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn from_u8(value: u8) -> Self {
        Self::ALL.get(usize::from(value)).copied().unwrap_or(Self::Stopped)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_states() {
        for (number, state) in (0_u8..).zip(RunState::ALL) {
            assert_eq!(state as u8, number);
            assert_eq!(RunState::from_u8(number), state);
        }
        assert_eq!(RunState::from_u8(200), RunState::Stopped);
    }
}
