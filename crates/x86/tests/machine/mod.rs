//! A processor in 64-bit mode with memory, tables and handlers.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use nerite_arch::{DescriptorTable, Regs, Segment, SpecialRegs};
use nerite_memory::{Backing, GuestRam, Pages, Region};
use nerite_x86::{CodePages, Config, Cpu, Deterministic, Entry, Exit, supported_cpuid};

/// Size of RAM, which begins at 0. The lowest 2 MiB are mapped to themselves, for privileged code.
pub(crate) const RAM: u64 = 4 << 20;
pub(crate) const PML4: u64 = 0x1000;
pub(crate) const PDPT: u64 = 0x2000;
pub(crate) const PD: u64 = 0x3000;
/// A free page for a page table.
pub(crate) const PT: u64 = 0x4000;
pub(crate) const IDT: u64 = 0x5000;
pub(crate) const GDT: u64 = 0x6000;
pub(crate) const TSS: u64 = 0x7000;
/// Stack for exceptions of unprivileged code.
pub(crate) const STACK: u64 = 0x9000;
/// Handlers: a HLT for each vector, 16 bytes apart.
pub(crate) const HANDLERS: u64 = 0xa000;
/// Code of tests.
pub(crate) const CODE: u64 = 0x1_0000;
/// Data of tests.
pub(crate) const DATA: u64 = 0x2_0000;
/// RSP at the start.
pub(crate) const RSP: u64 = 0x3_0000;

/// Selectors of the descriptor table.
pub(crate) const KERNEL_CS: u16 = 8;
pub(crate) const KERNEL_SS: u16 = 0x10;
pub(crate) const USER_SS: u16 = 0x1b;
pub(crate) const USER_CS: u16 = 0x23;
pub(crate) const KERNEL_CS_32: u16 = 0x28;
pub(crate) const TSS_SELECTOR: u16 = 0x30;
pub(crate) const KERNEL_CS_16: u16 = 0x40;
pub(crate) const KERNEL_DS_16: u16 = 0x48;
pub(crate) const USER_CS_32: u16 = 0x53;

const DESCRIPTORS: [u64; 11] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x00cf_9b00_0000_ffff,
    0x0000_8900_7000_0067,
    0,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
];

/// Segment register of a descriptor of [`DESCRIPTORS`].
pub(crate) fn segment(selector: u16) -> Segment {
    let raw = DESCRIPTORS[usize::from(selector >> 3)];
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    let g = raw >> 55 & 1 != 0;
    Segment {
        base: raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000,
        limit: if g { limit << 12 | 0xfff } else { limit },
        selector,
        kind: (raw >> 40 & 15) as u8,
        present: true,
        dpl: (raw >> 45 & 3) as u8,
        db: raw >> 54 & 1 != 0,
        s: raw >> 44 & 1 != 0,
        l: raw >> 53 & 1 != 0,
        g,
        avl: false,
        unusable: false,
    }
}

/// A machine of one processor.
pub(crate) struct Machine {
    pub(crate) ram: GuestRam,
    pub(crate) code: Arc<CodePages>,
    pub(crate) cpu: Cpu,
}

/// Privilege level.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Kernel,
    User,
}

impl Machine {
    /// Memory with tables, and a processor after a reset.
    pub(crate) fn new() -> Self {
        let ram = GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default()).unwrap();
        let code = CodePages::new();
        let cpu = Self::processor(&ram, &code);
        let machine = Self { ram, code, cpu };
        machine.put(PML4, &(PDPT | 7).to_le_bytes());
        machine.put(PDPT, &(PD | 7).to_le_bytes());
        machine.put(PD, &0x83_u64.to_le_bytes());
        for (index, descriptor) in (0..).zip(DESCRIPTORS) {
            machine.put(GDT + index * 8, &descriptor.to_le_bytes());
        }
        for vector in 0..256 {
            let handler = HANDLERS + vector * 16;
            let low = handler & 0xffff
                | u64::from(KERNEL_CS) << 16
                | 0x8e00 << 32
                | (handler >> 16) << 48;
            machine.put(IDT + vector * 16, &low.to_le_bytes());
            machine.put(handler, &[0xf4]);
        }
        machine.put(TSS + 4, &STACK.to_le_bytes());
        // The bitmap of ports is outside of the task state.
        machine.put(TSS + 102, &0x68_u16.to_le_bytes());
        machine
    }

    /// Another processor of the same memory.
    pub(crate) fn processor(ram: &GuestRam, code: &Arc<CodePages>) -> Cpu {
        Cpu::new(Config {
            memory: Box::new(Pages::new(ram)),
            platform: Box::new(Deterministic::default()),
            code: Arc::clone(code),
            cpuid: supported_cpuid(),
        })
    }

    /// A processor in 64-bit mode at [`CODE`] with these bytes there.
    pub(crate) fn at(level: Level, code: &[u8]) -> Self {
        let mut machine = Self::new();
        machine.put(CODE, code);
        machine.long_mode(level);
        machine
    }

    /// Enters 64-bit mode at [`CODE`]. Code at user level needs pages of its own.
    pub(crate) fn long_mode(&mut self, level: Level) {
        let (cs, ss) =
            if level == Level::User { (USER_CS, USER_SS) } else { (KERNEL_CS, KERNEL_SS) };
        let stack = segment(ss);
        let tr = Segment { kind: 11, ..segment(TSS_SELECTOR) };
        self.cpu.set_regs(&Regs { rip: CODE, rflags: 2, rsp: RSP, ..Regs::default() });
        self.cpu.set_special_regs(&SpecialRegs {
            cs: segment(cs),
            ss: stack,
            ds: stack,
            es: stack,
            fs: stack,
            gs: stack,
            tr,
            gdt: DescriptorTable { base: GDT, limit: 0x57 },
            idt: DescriptorTable { base: IDT, limit: 0xfff },
            cr0: 0x8001_0033,
            cr3: PML4,
            cr4: 0x4_0620,
            efer: 0xd01,
            ..self.cpu.special_regs()
        });
        assert!(self.cpu.set_xcr0(7) || self.cpu.set_xcr0(3));
    }

    /// Writes memory as a device does.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.ram.write(address, bytes).unwrap();
        self.code.written(address, bytes.len() as u64);
    }

    pub(crate) fn get(&self, address: u64) -> u64 {
        self.ram.read_obj(address).unwrap()
    }

    /// Sets registers by a function.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut Regs)) {
        let mut regs = self.cpu.regs();
        change(&mut regs);
        self.cpu.set_regs(&regs);
    }

    /// Sets special registers by a function.
    pub(crate) fn set_special(&mut self, change: impl FnOnce(&mut SpecialRegs)) {
        let mut special = self.cpu.special_regs();
        change(&mut special);
        self.cpu.set_special_regs(&special);
    }

    /// Runs up to so many instructions.
    pub(crate) fn run(&mut self, instructions: u64) -> Exit {
        self.cpu.run(Entry::Resume, instructions)
    }

    /// Runs to the next HLT. The vector of the handler that it is in, if it is in one.
    pub(crate) fn run_to_halt(&mut self) -> Option<u8> {
        assert_eq!(
            self.run(100_000),
            Exit::Halt,
            "{}\n{}",
            self.cpu.regs(),
            self.cpu.special_regs()
        );
        self.handler()
    }

    /// The vector of the handler that the processor is in.
    pub(crate) fn handler(&self) -> Option<u8> {
        let at = self.cpu.regs().rip.checked_sub(HANDLERS).filter(|offset| *offset < 0x1000)? / 16;
        u8::try_from(at).ok()
    }
}
