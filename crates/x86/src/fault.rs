//! Raising exceptions, and the delivery of those that follow from one.

use crate::core::{Core, Run, Stop};
use crate::exception::{AC_VECTOR, BP, DB, DE, DF, Exception, GP, NP, PF, SS, TS, UD};
use crate::flags::AC;
use crate::registers::CR0_AM;

/// Origin of an event (Intel SDM vol. 3, 6.3 and 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An interrupt, or an exception that the processor detected.
    Hardware,
    /// INT n, INT3 or INTO.
    Software,
}

impl Core {
    /// Raises an exception without an error code.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise<T>(&mut self, vector: u8) -> Run<T> {
        self.fault = Exception { vector, error: None, is_non_canonical: false };
        Err(Stop::Fault)
    }

    /// Raises an exception with an error code.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise_with<T>(&mut self, vector: u8, error: u32) -> Run<T> {
        self.fault = Exception { vector, error: Some(error), is_non_canonical: false };
        Err(Stop::Fault)
    }

    pub(crate) fn undefined<T>(&mut self) -> Run<T> {
        self.raise(UD)
    }

    pub(crate) fn protection_fault<T>(&mut self, error: u16) -> Run<T> {
        self.raise_with(GP, u32::from(error))
    }

    pub(crate) fn stack_fault<T>(&mut self, error: u16) -> Run<T> {
        self.raise_with(SS, u32::from(error))
    }

    /// An address whose bits 63:47 differ. The caller that knows the instruction makes #SS of it
    /// where it is one of the stack.
    pub(crate) fn non_canonical<T>(&mut self) -> Run<T> {
        self.fault = Exception { vector: GP, error: Some(0), is_non_canonical: true };
        Err(Stop::Fault)
    }

    pub(crate) fn alignment_fault<T>(&mut self) -> Run<T> {
        self.raise_with(AC_VECTOR, 0)
    }

    pub(crate) fn page_fault<T>(&mut self, linear: u64, error: u32) -> Run<T> {
        self.cr2 = linear;
        self.raise_with(PF, error)
    }

    /// `true` if accesses that are not aligned fault (Intel SDM vol. 3, 6.15, interrupt 17).
    pub(crate) fn checks_alignment(&self) -> bool {
        self.cpl == 3 && !self.is_implicit && self.cr0 & CR0_AM != 0 && self.flags.control & AC != 0
    }

    /// Delivers the exception in [`Core::fault`], or those that its delivery ends in.
    pub(crate) fn deliver_fault(&mut self) -> Run {
        let mut first = self.fault;
        // A fault, a double fault, and none after it.
        for _ in 0..3 {
            if self.intercepts(first.vector) {
                return Err(Stop::Exit);
            }
            match self.interrupt(first.vector, first.error, Source::Hardware) {
                Err(Stop::Fault) => {}
                other => return other,
            }
            let second = self.fault;
            if first.vector == DF {
                break;
            }
            first = if is_double(first.vector, second.vector) {
                Exception { vector: DF, error: Some(0), is_non_canonical: false }
            } else {
                second
            };
        }
        self.is_shut_down = true;
        Err(Stop::Shutdown)
    }

    /// Delivers an interrupt, or the exception that its delivery ends in.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8, source: Source) -> Run {
        match self.interrupt(vector, None, source) {
            Err(Stop::Fault) => self.deliver_fault(),
            other => other,
        }
    }

    /// `true` if the event is to be an exit, which is then due.
    fn intercepts(&mut self, vector: u8) -> bool {
        let is_wanted = match vector {
            DB => self.intercept_debug,
            BP => self.intercept_breakpoint,
            _ => false,
        };
        if is_wanted {
            let dr6 = std::mem::take(&mut self.events.debug);
            self.exit = crate::exit::Exit::Debug { rip: self.rip, vector, dr6 };
        }
        is_wanted
    }
}

/// Exceptions that become a double fault (Intel SDM vol. 3, table 6-5).
const fn is_double(first: u8, second: u8) -> bool {
    const fn is_contributory(vector: u8) -> bool {
        matches!(vector, DE | TS | NP | SS | GP)
    }
    is_contributory(first) && is_contributory(second)
        || first == PF && (is_contributory(second) || second == PF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exception::NM;

    #[test]
    fn double_faults_are_those_of_the_manual() {
        assert!(is_double(PF, PF) && is_double(PF, GP) && is_double(GP, NP) && is_double(DE, SS));
        assert!(
            !is_double(GP, PF) && !is_double(UD, GP) && !is_double(DB, PF) && !is_double(NM, NM)
        );
    }
}
