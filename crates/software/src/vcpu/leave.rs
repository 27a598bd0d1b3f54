//! Exits of the processor that the caller handles.

use nerite_hypervisor::Exit;
use nerite_x86 as x86;

use super::debug;

/// The exit as the caller sees it.
pub(super) fn leave(exit: &x86::Exit) -> Exit {
    match *exit {
        x86::Exit::PortIn { port, width } => Exit::PortIn { port, width },
        x86::Exit::PortOut { port, width, value } => Exit::PortOut { port, width, value },
        x86::Exit::MmioRead { address, width } => Exit::MmioRead { address, width },
        x86::Exit::MmioWrite { address, width, value } => Exit::MmioWrite { address, width, value },
        x86::Exit::MsrRead { index } => Exit::MsrRead { index },
        x86::Exit::MsrWrite { index, value } => Exit::MsrWrite { index, value },
        x86::Exit::Halt => Exit::Halt,
        x86::Exit::Shutdown => Exit::Shutdown,
        x86::Exit::InterruptWindow => Exit::InterruptWindow,
        x86::Exit::PriorityLowered => Exit::TprBelowThreshold,
        x86::Exit::Debug { rip, vector, dr6 } => {
            Exit::Debug { rip, cause: debug::cause(vector, dr6) }
        }
        _ => Exit::Kicked,
    }
}
