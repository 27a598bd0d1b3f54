//! Interrupt controllers of a VM.

use std::fmt;

use nerite_event::Event;

use crate::Error;

/// Number of lines of the usual controllers: the pins of an I/O APIC (82093AA, 3.2).
pub const LINES: u32 = 24;

/// Slot of a message in an [`InterruptController`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u32);

/// Interrupt controllers of a VM: lines (PIC, I/O APIC) and messages (MSI).
///
/// Devices connect events. A signal of a connected event, also one that was pending before, raises
/// the interrupt without the help of a vCPU's thread.
pub trait InterruptController: fmt::Debug + Send + Sync {
    /// Number of lines; 0 if there are only messages.
    fn lines(&self) -> u32;

    /// Raises (`true`) or lowers a line. A line that a device has, too, is high as long as one of
    /// them raises it.
    ///
    /// # Errors
    /// Fails if there is no such line, or the hypervisor refuses.
    fn set_line(&self, line: u32, level: bool) -> Result<(), Error>;

    /// Sends a message once, as a device does by writing `data` to `address` (Intel SDM vol. 3,
    /// 12.11). Returns `true` if a processor took it.
    ///
    /// # Errors
    /// Fails if the hypervisor refuses.
    fn send_message(&self, address: u64, data: u32) -> Result<bool, Error>;

    /// Makes each signal of `event` a rising edge of `line`.
    ///
    /// # Errors
    /// Fails if there is no such line, or the hypervisor refuses.
    fn connect_edge(&self, line: u32, event: &Event) -> Result<(), Error>;

    /// Makes a signal of `raise` raise `line` until the guest has ended the interrupt (EOI). Then
    /// the line is lowered and `lowered` signalled; a device that still wants the interrupt signals
    /// `raise` again.
    ///
    /// # Errors
    /// Fails if there is no such line, or the hypervisor refuses.
    fn connect_level(&self, line: u32, raise: &Event, lowered: &Event) -> Result<(), Error>;

    /// Reserves a slot for a message; `None` if there are no more.
    fn reserve_message(&self) -> Option<MessageId>;

    /// Makes each signal of `event` send `data` to `address`. A slot that is connected already
    /// changes its message; its event must be the same.
    ///
    /// # Errors
    /// Fails if the hypervisor refuses; what was connected before then stays.
    fn connect_message(
        &self,
        id: MessageId,
        event: &Event,
        address: u64,
        data: u32,
    ) -> Result<(), Error>;

    /// Disconnects the event of a slot: signals stay in the event.
    ///
    /// # Errors
    /// Fails if the hypervisor refuses.
    fn disconnect_message(&self, id: MessageId, event: &Event) -> Result<(), Error>;
}
