//! Writes that a hypervisor takes without leaving the guest.

use std::fmt;
use std::ops::ControlFlow;

/// A port write that the guest went on after at once. It carries no vCPU state: only ports whose
/// writes need none can be treated so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoalescedWrite {
    /// The port.
    pub port: u16,
    /// Width of the access in bytes: 1, 2 or 4.
    pub width: u8,
    /// Value written, zero-extended.
    pub value: u32,
}

/// The writes of all vCPUs of a machine that a hypervisor collects, in the order in which they were
/// made.
///
/// An exit handler takes the collected writes *before* each exit, because the guest made them
/// before. A write raises no signal: the writes of a guest that leaves for no other reason are
/// found by periodic checks.
pub trait CoalescedWrites: fmt::Debug + Send + Sync {
    /// Returns `true` if there are none. Takes no lock: it is called at every exit.
    ///
    /// A write counts until [`CoalescedWrites::take`] is through with it, so that `true` means that
    /// all are done.
    fn is_empty(&self) -> bool;

    /// Hands over the writes that are there now, oldest first, until `each` ends that. The one it
    /// ended at stays.
    ///
    /// Waits while another thread takes writes, so that none overtakes another.
    fn take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>);

    /// Number of writes handed over so far.
    fn taken(&self) -> u64;

    /// As [`CoalescedWrites::take`], but returns at once if another thread is at it.
    fn try_take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>);
}
