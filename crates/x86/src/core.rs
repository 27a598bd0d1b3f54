//! The processor's state, without decoded code.

use std::collections::HashSet;
use std::sync::Arc;

use nerite_arch::{DescriptorTable, Segment};
use nerite_x86_vector::VectorState;

use crate::code::CodePages;
use crate::cpuid::Cpuid;
use crate::exception::Exception;
use crate::exit::{Accesses, Entry, Exit};
use crate::flags::{self, Flags};
use crate::int::Int;
use crate::msrs::Msrs;
use crate::phys::Physical;
use crate::platform::Platform;
use crate::registers::{CR0_AM, CR0_PE, CR4_SMAP, CS, DS, EFER_LMA, ES, FS, GS, HIGH, SEGMENT, SS};
use crate::tlb::{self, Tlb};

/// Reason why an instruction, or the block it is in, is not carried on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// [`Core::fault`] happened; the instruction is not complete.
    Fault,
    /// There is a [`Core::exit`]; the instruction is not complete.
    Exit,
    /// The instruction is complete, and RIP is set.
    Jump,
    /// The instruction is complete, RIP is set, and there is a [`Core::exit`].
    JumpExit,
    /// A part of a repeated instruction is complete.
    Again,
    /// The instruction writes to code: it must be executed outside of a block.
    Alone,
    /// The processor has shut down.
    Shutdown,
}

pub(crate) type Run<T = ()> = Result<T, Stop>;

/// Size of code: of its default operands and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    #[default]
    Bits16,
    Bits32,
    Bits64,
}

/// Conditions that are looked at before an instruction, other than its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Events {
    /// An exception to deliver, which another hypervisor or the caller has raised.
    pub(crate) exception: Option<Exception>,
    /// An external interrupt to deliver.
    pub(crate) interrupt: Option<u8>,
    /// A non-maskable interrupt to deliver.
    pub(crate) nmi: bool,
    /// Non-maskable interrupts wait for an IRET.
    pub(crate) nmi_blocked: bool,
    /// The next instruction is executed before any interrupt.
    pub(crate) shadow: bool,
    /// The shadow is one of a load of SS, which debug traps wait for, too.
    pub(crate) ss_shadow: bool,
    /// An exit is due when an interrupt could be delivered.
    pub(crate) window: bool,
    /// Debug conditions of the last instruction, as bits of DR6.
    pub(crate) debug: u64,
    /// The next instruction is executed alone.
    pub(crate) alone: bool,
    /// The instruction entered the system, and cleared TF on its way: no trap follows it.
    pub(crate) no_trap: bool,
}

/// All that an instruction can reach.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) gpr: [u64; 32],
    pub(crate) flags: Flags,
    pub(crate) rip: u64,
    /// The successor of the block: 0 if its last instruction was not a taken branch, 1 if it was.
    pub(crate) link: usize,
    /// Instructions completed before the current block.
    pub(crate) retired: u64,
    /// [`Core::retired`] at the end of the budget.
    pub(crate) end: u64,
    pub(crate) mode: Mode,
    pub(crate) cpl: u8,
    pub(crate) tlb: Tlb,
    /// Changed when addresses of code may lead elsewhere.
    pub(crate) epoch: u32,
    /// The key of blocks: mode, privilege and gates of vector instructions, nine bits.
    pub(crate) key: u16,
    /// [`Core::events`] must be looked at before the next instruction.
    pub(crate) attention: bool,
    pub(crate) events: Events,
    pub(crate) fault: Exception,
    /// The last exit.
    pub(crate) exit: Exit,
    pub(crate) accesses: Accesses,
    pub(crate) segments: [Segment; 6],
    pub(crate) ldt: Segment,
    pub(crate) tr: Segment,
    pub(crate) gdt: DescriptorTable,
    pub(crate) idt: DescriptorTable,
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) cr8: u64,
    pub(crate) efer: u64,
    pub(crate) xcr0: u64,
    pub(crate) apic_base: u64,
    pub(crate) dr: [u64; 4],
    pub(crate) dr6: u64,
    pub(crate) dr7: u64,
    pub(crate) msrs: Msrs,
    pub(crate) cpuid: Cpuid,
    pub(crate) physical: Physical,
    pub(crate) code: Arc<CodePages>,
    /// Pages whose entries of the TLB look for code.
    pub(crate) protected: HashSet<u64>,
    /// An instruction translation: linear page and guest-physical page.
    pub(crate) fetch: crate::tlb::Fetch,
    /// x87, MMX, SSE and AVX registers.
    pub(crate) vector: VectorState,
    /// The host's MXCSR may have flags of [`Core::vector`].
    pub(crate) has_flags: bool,
    pub(crate) platform: Box<dyn Platform>,
    pub(crate) intercept_debug: bool,
    pub(crate) intercept_breakpoint: bool,
    /// Instructions that were reported as unknown.
    pub(crate) reported: HashSet<u32>,
    pub(crate) is_shut_down: bool,
    /// The instruction is the only one of its block, and may write to code.
    pub(crate) is_alone: bool,
    /// Accesses are the processor's own, to its tables, with the rights of privileged code.
    pub(crate) is_implicit: bool,
    /// A breakpoint register waits for data.
    pub(crate) watches_data: bool,
}

impl std::fmt::Debug for dyn Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Platform")
    }
}

impl Core {
    /// Register `number`, one of the constants of this module.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length of the array")]
    pub(crate) fn r(&self, number: u8) -> u64 {
        self.gpr[usize::from(number & 31)]
    }

    /// Sets register `number` as a whole.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the index is masked to the length of the array")]
    pub(crate) fn set_r(&mut self, number: u8, value: u64) {
        self.gpr[usize::from(number & 31)] = value;
    }

    /// The operand in a register.
    #[inline(always)]
    pub(crate) fn reg<T: Int>(&self, number: u8) -> T {
        if T::BYTES == 1 && number & HIGH != 0 {
            return T::of(self.r(number & 3) >> 8);
        }
        T::of(self.r(number))
    }

    /// Sets the operand in a register.
    #[inline(always)]
    pub(crate) fn set_reg<T: Int>(&mut self, number: u8, value: T) {
        if T::BYTES == 1 && number & HIGH != 0 {
            let old = self.r(number & 3);
            self.set_r(number & 3, old & !0xff00 | value.zx() << 8);
            return;
        }
        let old = self.r(number);
        self.set_r(number, value.merge(old));
    }

    /// Sets the low `size` bytes of a register as an instruction with operands of that size does.
    pub(crate) fn set_sized(&mut self, number: u8, size: u64, value: u64) {
        match size {
            1 => self.set_reg(number, u8::of(value)),
            2 => self.set_reg(number, u16::of(value)),
            4 => self.set_reg(number, u32::of(value)),
            _ => self.set_reg(number, value),
        }
    }

    /// The low `size` bytes of a register.
    pub(crate) fn sized(&self, number: u8, size: u64) -> u64 {
        match size {
            1 => self.reg::<u8>(number).zx(),
            2 => self.reg::<u16>(number).zx(),
            4 => self.reg::<u32>(number).zx(),
            _ => self.r(number),
        }
    }

    /// A segment register.
    pub(crate) fn segment(&self, number: u8) -> &Segment {
        let [es, cs, ss, ds, fs, gs] = &self.segments;
        match number {
            ES => es,
            CS => cs,
            SS => ss,
            DS => ds,
            FS => fs,
            _ => gs,
        }
    }

    /// A segment register.
    pub(crate) fn segment_mut(&mut self, number: u8) -> &mut Segment {
        let [es, cs, ss, ds, fs, gs] = &mut self.segments;
        match number {
            ES => es,
            CS => cs,
            SS => ss,
            DS => ds,
            FS => fs,
            _ => gs,
        }
    }

    #[inline(always)]
    pub(crate) fn is_64(&self) -> bool {
        self.mode == Mode::Bits64
    }

    /// `true` in 64-bit and compatibility mode.
    pub(crate) fn is_long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.cr0 & CR0_PE != 0
    }

    pub(crate) fn is_v86(&self) -> bool {
        self.flags.control & flags::VM != 0
    }

    /// `true` in real and virtual-8086 mode, where a selector is a base address.
    pub(crate) fn is_real(&self) -> bool {
        !self.is_protected() || self.is_v86()
    }

    /// Derives from the state what depends on several parts of it. To be called after each change
    /// of a segment, a control register, EFER, or the flags AC and VM.
    pub(crate) fn update_mode(&mut self) {
        let cs = *self.segment(CS);
        self.mode = match (self.is_long() && cs.l, cs.db) {
            (true, _) => Mode::Bits64,
            (false, true) => Mode::Bits32,
            (false, false) => Mode::Bits16,
        };
        for number in [ES, CS, SS, DS, FS, GS] {
            let is_used = self.mode != Mode::Bits64 || number >= FS;
            let base = if is_used { self.segment(number).base } else { 0 };
            self.set_r(SEGMENT.wrapping_add(number), base);
        }
        let user = self.cpl == 3;
        let ac = self.flags.control & flags::AC != 0;
        self.tlb.set = match user {
            _ if self.watches_data => tlb::CHECKED,
            true if ac && self.cr0 & CR0_AM != 0 => tlb::CHECKED,
            true => tlb::USER,
            false if ac && self.cr4 & CR4_SMAP != 0 => tlb::SUPERVISOR_AC,
            false => tlb::SUPERVISOR,
        };
        let mode = match self.mode {
            Mode::Bits16 => 0,
            Mode::Bits32 => 1,
            Mode::Bits64 => 2,
        };
        self.key = mode | u16::from(user) << 2 | self.gates() << 3;
    }

    /// Sets flags as a whole, and what depends on them.
    pub(crate) fn set_flags(&mut self, value: u64) {
        self.flags.set(value);
        self.update_mode();
        self.attention = true;
    }

    /// Drops translations: all, or all but global ones.
    pub(crate) fn flush(&mut self, global: bool) {
        self.tlb.flush(global);
        self.fetch.flush();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Reports an access to a device, or returns the answer to it.
    pub(crate) fn device(&mut self, exit: Exit) -> Run<Entry> {
        if self.accesses.is_full() {
            log::error!("x86: an instruction makes too many accesses to devices");
            self.is_shut_down = true;
            return Err(Stop::Shutdown);
        }
        if let Some(entry) = self.accesses.next() {
            return Ok(entry);
        }
        self.exit = exit;
        Err(Stop::Exit)
    }

    /// Calls the platform, which may compute with floating-point numbers.
    pub(crate) fn ask<R>(&mut self, question: impl FnOnce(&mut dyn Platform) -> R) -> R {
        self.collect();
        question(&mut *self.platform)
    }

    /// Takes the flags of the host's MXCSR, if there may be some.
    pub(crate) fn collect(&mut self) {
        if std::mem::take(&mut self.has_flags) {
            self.vector.collect();
        }
    }
}
