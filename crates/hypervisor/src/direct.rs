//! Injecting interrupts into a vCPU directly: for machines whose interrupt controllers are not the
//! hypervisor's.

use crate::Error;

/// State that decides if a vCPU can take an interrupt, as of its last exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterruptState {
    /// It can take one before its next instruction: none is on its way, and nothing holds it back.
    pub accepts: bool,
    /// RFLAGS.IF.
    pub enabled: bool,
    /// CR8: interrupts of this class and those below are not to be injected (Intel SDM vol. 3,
    /// 12.8.6). The caller that injects observes that; the processor does not check.
    pub priority_class: u8,
    /// `IA32_APIC_BASE`, which the hypervisor keeps.
    pub apic_base: u64,
}

/// A vCPU whose interrupts come from the caller.
///
/// Between two runs, ask for its state, inject at most one interrupt if it is accepted, and
/// otherwise ask for a window: then a run ends with [`crate::Exit::InterruptWindow`] as soon as one
/// is accepted. A non-maskable interrupt needs no window of the caller's: the hypervisor keeps it
/// until it can be taken.
pub trait DirectInterrupts {
    /// Returns the state that decides if it can take an interrupt.
    fn interrupt_state(&mut self) -> InterruptState;

    /// Injects an interrupt, which it [accepts](InterruptState::accepts).
    ///
    /// # Errors
    /// If the hypervisor fails, for example because an interrupt is on its way already.
    fn inject_interrupt(&mut self, vector: u8) -> Result<(), Error>;

    /// Makes the next runs end when it can take an interrupt (`true`), or not.
    fn request_interrupt_window(&mut self, wanted: bool);

    /// Sets CR8, for the guest to read.
    fn set_priority_class(&mut self, class: u8);
}
