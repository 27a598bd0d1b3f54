//! A hypervisor that plays back exits: for tests of everything above the seam.

mod vm;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_memory::GuestRam;
use parking_lot::{Condvar, Mutex};

use crate::{
    Activity, DebugControl, Entry, Error, Exit, GuestDebug, Kick, KickTimer, Kicker, STATE_VERSION,
    Vcpu, VcpuState,
};

pub use vm::{Interrupt, ScriptedHypervisor, ScriptedInterrupts};

/// A guest in Rust: called at each step that no listed exit ends, with the answer to the last
/// exit. `None` waits for a kick, as a guest in an endless loop does.
pub type Program = Box<dyn FnMut(&mut Scripted, Entry) -> Option<Exit> + Send>;

/// A vCPU that plays back exits in order and records the entries. After the last one it calls its
/// program, and reports [`Exit::Shutdown`] if it has none.
#[derive(Default)]
pub struct Scripted {
    /// Index of the vCPU.
    pub index: u32,
    /// Exits that are still to come.
    pub exits: VecDeque<Exit>,
    /// Entries so far, the first being the one the first step began with.
    pub entries: Vec<Entry>,
    /// General registers.
    pub regs: Regs,
    /// Segments, descriptor tables and control registers.
    pub special_regs: SpecialRegs,
    /// Registers of x87, SSE and AVX.
    pub fpu: Fpu,
    /// Debugging that was asked for last.
    pub guest_debug: GuestDebug,
    /// Non-maskable interrupts so far.
    pub nmis: u32,
    /// `true` if the vCPU reports itself as halted.
    pub halted: bool,
    /// The state restored last, of which [`Scripted::regs`], [`Scripted::special_regs`] and
    /// [`Scripted::fpu`] may have changed since.
    pub state: VcpuState,
    /// RAM of the VM, if there is one.
    pub ram: Option<Arc<GuestRam>>,
    program: Option<Program>,
    kicked: Arc<Flag>,
}

/// Bit 1 of RFLAGS, which is always set.
const RFLAGS_ONE: u64 = 2;

#[derive(Debug, Default)]
struct Flag {
    kicked: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn take(&self) -> bool {
        std::mem::take(&mut *self.kicked.lock())
    }

    /// Waits for a kick and takes it.
    fn wait(&self) {
        let mut kicked = self.kicked.lock();
        while !std::mem::take(&mut *kicked) {
            self.changed.wait(&mut kicked);
        }
    }
}

impl Kick for Flag {
    fn kick(&self) {
        *self.kicked.lock() = true;
        self.changed.notify_all();
    }
}

/// A timer that never kicks.
#[derive(Debug)]
struct NeverKicks;

impl KickTimer for NeverKicks {
    fn set(&self, _: Duration, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn stop(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Scripted {
    /// A vCPU with these exits, one a step.
    pub fn new(exits: impl IntoIterator<Item = Exit>) -> Self {
        Self { exits: exits.into_iter().collect(), ..Self::default() }
    }

    /// A vCPU that runs `program`.
    pub fn with_program(program: Program) -> Self {
        Self { program: Some(program), ..Self::default() }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted")
            .field("index", &self.index)
            .field("exits", &self.exits)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl Vcpu for Scripted {
    fn index(&self) -> u32 {
        self.index
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.entries.push(entry);
        if self.kicked.take() {
            return Ok(Exit::Kicked);
        }
        if let Some(exit) = self.exits.pop_front() {
            return Ok(exit);
        }
        let Some(mut program) = self.program.take() else { return Ok(Exit::Shutdown) };
        let exit = program(self, entry);
        self.program = Some(program);
        Ok(exit.unwrap_or_else(|| {
            self.kicked.wait();
            Exit::Kicked
        }))
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.entries.push(entry);
        Ok(None)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        Ok(self.regs)
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.regs = *regs;
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        Ok(self.special_regs)
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.special_regs = *regs;
        Ok(())
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        Ok(self.fpu.clone())
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.fpu = fpu.clone();
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(self.kicked.clone())
    }

    fn take_kick(&mut self) -> bool {
        self.kicked.take()
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        Ok(Box::new(NeverKicks))
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.nmis = self.nmis.saturating_add(1);
        Ok(())
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(self.halted)
    }

    /// The state restored last, with the registers of now.
    fn save(&mut self) -> Result<VcpuState, Error> {
        let mut xsave = self.fpu.to_xsave().to_vec();
        // The parts that a script does not know of.
        xsave.extend(self.state.xsave.get(Fpu::SIZE..).unwrap_or_default());
        Ok(VcpuState {
            version: STATE_VERSION,
            regs: Regs { rflags: self.regs.rflags | RFLAGS_ONE, ..self.regs },
            special: self.special_regs,
            xcr0: self.state.xcr0 | 1,
            xsave,
            run_state: if self.halted { Activity::Halted } else { self.state.run_state },
            ..self.state.clone()
        })
    }

    fn restore(&mut self, state: &VcpuState) -> Result<(), Error> {
        state.check().map_err(|source| Error::State { index: self.index, source })?;
        self.regs = state.regs;
        self.special_regs = state.special;
        self.fpu = Fpu::from_xsave(&state.xsave);
        self.halted = state.run_state == Activity::Halted;
        self.state = VcpuState { run_state: Activity::Runnable, ..state.clone() };
        if state.run_state == Activity::WaitForSipi {
            self.state.run_state = state.run_state;
        }
        Ok(())
    }

    fn restore_registers(&mut self, state: &VcpuState) -> Result<(), Error> {
        state.check().map_err(|source| Error::State { index: self.index, source })?;
        self.regs = state.regs;
        self.special_regs = state.special;
        self.fpu = Fpu::from_xsave(&state.xsave);
        self.state.xsave.clone_from(&state.xsave);
        (self.state.debug, self.state.xcr0) = (state.debug, state.xcr0);
        self.state.events.exception = state.events.exception;
        self.state.events.shadow = state.events.shadow;
        for msr in &state.msrs {
            self.state.msrs.retain(|old| old.index != msr.index);
            self.state.msrs.push(*msr);
        }
        Ok(())
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        Some(self)
    }
}

impl DebugControl for Scripted {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        self.guest_debug = *debug;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_before_the_step_ends_the_step_once() {
        let write = Exit::PortOut { port: 1, width: 1, value: 0 };
        let mut vcpu = Scripted::new([write]);
        vcpu.kicker().kick();
        vcpu.kicker().kick();
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), write);
    }

    #[test]
    fn a_program_sees_answers_and_waits_for_kicks() {
        let mut seen = Vec::new();
        let mut vcpu = Scripted::with_program(Box::new(move |vcpu, entry| {
            seen.push(entry);
            vcpu.regs.rax = entry.data();
            if seen.len() == 1 {
                return Some(Exit::PortIn { port: 1, width: 1 });
            }
            // As from another thread while the guest loops.
            vcpu.kicker().kick();
            None
        }));
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 1, width: 1 });
        assert_eq!(vcpu.run(Entry::Data(5)).unwrap(), Exit::Kicked);
        assert_eq!(vcpu.regs.rax, 5);
    }
}
