//! The processor, for its owner.

mod state;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nerite_arch::{CpuidEntry, Regs, reset};
use nerite_x86_vector::VectorState;

use crate::cache::Cache;
use crate::code::CodePages;
use crate::core::{Core, Mode};
use crate::count::{Counter, Executions};
use crate::cpuid::Cpuid;
use crate::debug::{DR6_ONES, DR7_RESET};
use crate::exception::Exception;
use crate::exit::{Accesses, Exit};
use crate::flags::Flags;
use crate::msrs::Msrs;
use crate::phys::Physical;
use crate::platform::{Memory, Platform};
use crate::tlb::Fetch;
use crate::tlb::Tlb;

/// Surroundings and properties of a processor.
pub struct Config {
    /// Guest-physical memory.
    pub memory: Box<dyn Memory>,
    /// Time and chance.
    pub platform: Box<dyn Platform>,
    /// The record that all processors of the guest share.
    pub code: Arc<CodePages>,
    /// CPUID leaves, as a rule those of [`crate::supported_cpuid`] and some about the machine. A
    /// feature that they do not show cannot be enabled by control registers.
    pub cpuid: Vec<CpuidEntry>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("cpuid", &self.cpuid).finish_non_exhaustive()
    }
}

/// Ends the present or next run of a processor, from any thread.
#[derive(Debug, Clone)]
pub struct Kicker {
    kick: Arc<AtomicBool>,
}

impl Kicker {
    /// Makes [`Cpu::run`] return [`crate::Exit::Kicked`] after the present block of instructions. A
    /// kick is never lost, and ends one run.
    pub fn kick(&self) {
        self.kick.store(true, Ordering::Release);
    }
}

/// Interrupts and conditions between instructions (KVM API, `KVM_GET_VCPU_EVENTS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// Vector and error code of an exception that is delivered before the next instruction. CR2 or
    /// DR6 are set for it already.
    pub exception: Option<(u8, Option<u32>)>,
    /// External interrupt that waits for delivery.
    pub interrupt: Option<u8>,
    /// `true` if a non-maskable interrupt waits for delivery.
    pub nmi: bool,
    /// `true` if non-maskable interrupts wait for an IRET.
    pub nmi_blocked: bool,
    /// `true` if the next instruction is executed before any interrupt, because the last one was
    /// STI or loaded SS.
    pub shadow: bool,
    /// Debug conditions that wait for delivery, as bits of DR6.
    pub debug: u64,
}

/// Debug registers (Intel SDM vol. 3, 17.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DebugRegs {
    /// DR0 to DR3, linear addresses of breakpoints.
    pub addresses: [u64; 4],
    /// DR6, the status.
    pub dr6: u64,
    /// DR7, the control.
    pub dr7: u64,
}

/// A processor.
#[derive(Debug)]
pub struct Cpu {
    pub(crate) core: Box<Core>,
    pub(crate) cache: Cache,
    pub(crate) kick: Arc<AtomicBool>,
}

impl Cpu {
    /// A processor after a reset.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let core = Core {
            gpr: [0; 32],
            flags: Flags::default(),
            rip: 0,
            link: 0,
            retired: 0,
            end: 0,
            mode: Mode::Bits16,
            cpl: 0,
            tlb: Tlb::default(),
            epoch: 1,
            key: 0,
            attention: true,
            events: events_default(),
            fault: Exception::default(),
            exit: Exit::Budget,
            accesses: Accesses::default(),
            segments: Default::default(),
            ldt: Default::default(),
            tr: Default::default(),
            gdt: Default::default(),
            idt: Default::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            efer: 0,
            xcr0: 1,
            apic_base: 0xfee0_0900,
            dr: [0; 4],
            dr6: DR6_ONES,
            dr7: DR7_RESET,
            msrs: Msrs::default(),
            cpuid: Cpuid::new(config.cpuid),
            physical: Physical::new(config.memory),
            code: config.code,
            protected: HashSet::new(),
            fetch: Fetch::default(),
            vector: VectorState::default(),
            has_flags: false,
            platform: config.platform,
            intercept_debug: false,
            intercept_breakpoint: false,
            reported: HashSet::new(),
            is_shut_down: false,
            is_alone: false,
            is_implicit: false,
            watches_data: false,
        };
        let mut cpu = Self { core: Box::new(core), cache: Cache::default(), kick: Arc::default() };
        cpu.init();
        cpu
    }

    /// Puts the processor into the state after INIT (Intel SDM vol. 3, table 10-1). The time-stamp
    /// counter and model-specific registers stay.
    pub fn init(&mut self) {
        self.set_regs(&reset::regs());
        self.set_special_regs(&reset::special_regs(self.core.apic_base));
        self.set_events(&Events::default());
        self.set_debug_regs(&DebugRegs { addresses: [0; 4], dr6: DR6_ONES, dr7: DR7_RESET });
        self.core.accesses.clear();
        self.core.is_shut_down = false;
    }

    /// Starts the processor at the beginning of this page of 4 KiB, as a start-up message to a
    /// processor after INIT does (Intel SDM vol. 3, 10.4.4.1).
    pub fn start(&mut self, page: u8) {
        self.init();
        let mut special = self.special_regs();
        reset::start_at(&mut special, page);
        self.set_special_regs(&special);
        let regs = Regs { rip: 0, ..self.regs() };
        self.set_regs(&regs);
    }

    /// `true` if an external interrupt would be delivered before the next instruction.
    #[must_use]
    pub fn can_interrupt(&self) -> bool {
        self.core.can_interrupt()
    }

    /// Makes an external interrupt pending, in the place of one that still is. It is delivered as
    /// soon as the guest can take it: RFLAGS.IF is set, and its priority is above CR8.
    pub fn inject_interrupt(&mut self, vector: u8) {
        self.core.events.interrupt = Some(vector);
        self.core.attention = true;
    }

    /// Makes a non-maskable interrupt pending.
    pub fn inject_nmi(&mut self) {
        self.core.events.nmi = true;
        self.core.attention = true;
    }

    /// Asks for [`crate::Exit::InterruptWindow`], or takes that back.
    pub fn request_interrupt_window(&mut self, wanted: bool) {
        self.core.events.window = wanted;
        self.core.attention = true;
    }

    /// Makes debug exceptions (#DB) and breakpoints (#BP) exits instead of events of the guest.
    pub fn intercept_debug(&mut self, debug: bool, breakpoint: bool) {
        self.core.intercept_debug = debug;
        self.core.intercept_breakpoint = breakpoint;
    }

    /// Number of instructions completed since the processor was made.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.core.retired
    }

    /// Counts how often each instruction is executed from now on, and reports that in parts: when a
    /// block of code is dropped, and when [`Self::report_executions`] is called. The sum is
    /// [`Self::instructions`] since now.
    pub fn count_executions(&mut self, report: Executions) {
        self.cache.counter = Some(Box::new(Counter::new(report)));
    }

    /// Reports the executions that have not been reported.
    pub fn report_executions(&mut self) {
        self.cache.report(self.core.retired);
    }

    /// A handle that ends a run.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        Kicker { kick: Arc::clone(&self.kick) }
    }

    /// `true` if the last exit was an access that is not complete: a state read now is the one
    /// before its instruction, and setting registers gives the access up.
    #[must_use]
    pub fn has_pending_access(&self) -> bool {
        !self.core.accesses.is_empty()
    }
}

fn events_default() -> crate::core::Events {
    crate::core::Events::default()
}
