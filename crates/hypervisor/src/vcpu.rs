//! A virtual CPU.

use std::fmt;

use nerite_arch::{Fpu, Regs, SpecialRegs};

use crate::{
    DebugControl, Debugger, DirectInterrupts, Entry, Error, Exit, GuestCounter, InstructionCounter,
    KickTimer, Kicker, Statistics, VcpuState,
};

/// A virtual CPU: **one step, plain data in, plain data out.**
///
/// [`Vcpu::run`] enters the guest and returns an [`Exit`]; the answer travels in with the next
/// [`Entry`]. Neither borrows from the vCPU. A vCPU belongs to one thread; other threads reach it
/// only through its [`Kicker`].
pub trait Vcpu: fmt::Debug + Send {
    /// Index of this vCPU in its VM, from 0; also its APIC id.
    fn index(&self) -> u32;

    /// Passes the answer to the last exit, then runs the guest until the next exit.
    ///
    /// # Errors
    /// Fails only if the hypervisor does. Everything a guest does is an [`Exit`].
    fn run(&mut self, entry: Entry) -> Result<Exit, Error>;

    /// Passes the answer to the last exit *without executing a further guest instruction*.
    ///
    /// After a port or MMIO exit the instruction that caused it is half done. Registers may be
    /// read, saved or changed only once it is complete. Returns `None` when the vCPU is drained,
    /// and an exit if the same instruction needs another answer first (a string input, an access
    /// that is split): answer that one, and call again.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error>;

    /// General registers.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn regs(&mut self) -> Result<Regs, Error>;

    /// Sets the general registers.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error>;

    /// Segment, descriptor table and control registers.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn special_regs(&mut self) -> Result<SpecialRegs, Error>;

    /// Sets segment, descriptor table and control registers.
    ///
    /// # Errors
    /// Fails if the hypervisor does, for example because it finds the combination invalid.
    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error>;

    /// Registers of x87, SSE and AVX.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn fpu(&mut self) -> Result<Fpu, Error>;

    /// Sets the registers of x87, SSE and AVX.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error>;

    /// Handle by which any thread ends the running (or else the next) step of this vCPU.
    fn kicker(&self) -> Kicker;

    /// Takes back a kick that has not ended a step yet. Returns `true` if there was one.
    fn take_kick(&mut self) -> bool;

    /// Creates a timer that kicks this vCPU. To be called on the thread that runs it.
    ///
    /// # Errors
    /// Fails if the host has no timer left.
    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error>;

    /// Kicks this vCPU when `counter`, which has a period, overflows. To be called on the thread
    /// that runs it.
    ///
    /// # Errors
    /// Fails if the host refuses, or the hypervisor has no such counters.
    fn kick_at_overflow(&mut self, _counter: &dyn GuestCounter) -> Result<(), Error> {
        Err(Error::Unsupported {
            index: self.index(),
            operation: "kicking at a counter's overflow",
        })
    }

    /// Makes a non-maskable interrupt pending.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn inject_nmi(&mut self) -> Result<(), Error>;

    /// Returns `true` if the vCPU waits for an interrupt in the hypervisor after HLT.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn is_halted(&mut self) -> Result<bool, Error>;

    /// The whole state. The vCPU must be drained ([`Vcpu::complete`]).
    ///
    /// # Errors
    /// Fails if an instruction is not complete, the hypervisor does, or it cannot save.
    fn save(&mut self) -> Result<VcpuState, Error> {
        Err(Error::Unsupported { index: self.index(), operation: "saving the state" })
    }

    /// Sets the whole state of a vCPU that was created with the state's CPUID leaves and has no
    /// access pending.
    ///
    /// The state may come from anywhere: each field is checked. After an error the vCPU's state is
    /// undefined, and it must not be run before another restore.
    ///
    /// # Errors
    /// Fails with [`Error::State`], which names the field, if this hypervisor cannot have the
    /// state, and if the hypervisor fails.
    fn restore(&mut self, _state: &VcpuState) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), operation: "restoring a state" })
    }

    /// Sets the processor's own part of a state: general, special, debug and extended registers,
    /// the MSRs that the state lists, the exception and the shadow that are pending. Everything
    /// else stays: local APIC, time-stamp counter, pending interrupts, run state.
    ///
    /// For a guest of which another processor has executed some instructions, while interrupts went
    /// on to arrive here.
    ///
    /// # Errors
    /// As [`Vcpu::restore`].
    fn restore_registers(&mut self, _state: &VcpuState) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), operation: "restoring registers" })
    }

    /// Rate of the guest's time stamp counter in kHz, if known.
    fn tsc_khz(&self) -> Option<u32> {
        None
    }

    /// Adds the hypervisor's own counters to [`Vcpu::statistics`]. Returns `false` if it has none.
    fn count_in_kernel(&mut self) -> bool {
        false
    }

    /// Measurements so far, if there are any.
    fn statistics(&self) -> Option<Statistics> {
        None
    }

    /// The ability to end steps at addresses or after one instruction.
    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        None
    }

    /// The ability to follow a debugger's plan.
    fn debugger(&mut self) -> Option<&mut dyn Debugger> {
        None
    }

    /// The ability to count instructions.
    fn instruction_counter(&mut self) -> Option<&mut dyn InstructionCounter> {
        None
    }

    /// The ability to take interrupts from the VMM.
    fn direct_interrupts(&mut self) -> Option<&mut dyn DirectInterrupts> {
        None
    }
}
