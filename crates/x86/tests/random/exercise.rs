//! Any bytes as state, tables and code of a processor.

use nerite_arch::{DescriptorTable, Fpu, Regs};
use nerite_x86::{Entry, Exit};

use crate::machine::{
    CODE, DATA, GDT, IDT, KERNEL_CS_16, KERNEL_CS_32, KERNEL_DS_16, Level, Machine, PT, TSS,
    segment,
};

/// Instructions of an input at most, and exits.
const INSTRUCTIONS: u64 = 500;
const EXITS: usize = 50;

/// The input, read piece by piece; zeros after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// An address that leads somewhere more often than not, or any value.
    fn value(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..=99 => DATA + u64::from(kind) * 41,
            kind @ 100..=119 => CODE + u64::from(kind) - 100,
            120..=139 => [GDT, IDT, TSS, PT][usize::from(self.byte() & 3)],
            kind @ 140..=179 => u64::from(kind) - 140,
            kind @ 180..=199 => (1_u64 << (kind - 180 + 44)).wrapping_neg(),
            _ => self.word(),
        }
    }
}

/// Vector registers of any contents, with any modes and exceptions, by a number.
fn vector_state(seed: u8) -> Fpu {
    let mut area: [u8; 832] = std::array::from_fn(|index| {
        (index as u8).wrapping_mul(seed).rotate_left(u32::from(seed) & 7)
    });
    // All components, in the standard format.
    area[512..576].fill(0);
    area[512] = 7;
    Fpu::from_xsave(&area)
}

/// Executes the bytes. Returns how many instructions were completed.
pub(crate) fn run(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let mode = input.byte();
    let level = if mode & 1 == 0 { Level::Kernel } else { Level::User };
    let mut machine = Machine::at(level, &[]);
    // Pages of 4 KiB with rights of the input's choice.
    let rights = u64::from(input.byte());
    for page in 0..512_u64 {
        let user = if rights >> (page & 3) & 1 == 0 { 3 } else { 7 };
        machine.put(PT + page * 8, &(page << 12 | user).to_le_bytes());
    }
    machine.put(crate::machine::PD, &(PT | 7).to_le_bytes());
    for _ in 0..input.byte() & 3 {
        let page = u64::from(input.byte());
        let entry = input.word();
        machine.put(PT + (page & 511) * 8, &entry.to_le_bytes());
    }
    for _ in 0..input.byte() & 3 {
        let (table, index, entry) = (input.byte(), u64::from(input.byte() & 31), input.word());
        let table = [GDT, IDT, IDT + 0xd0, TSS][usize::from(table & 3)];
        machine.put(table + index * 8, &entry.to_le_bytes());
    }
    let mut registers: [u64; 16] = std::array::from_fn(|_| input.value());
    registers[4] = registers[4] & 0xff8 | 0x2_f000;
    let [rax, rbx, rcx, rdx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = registers;
    let rflags = input.word() & 0x3f_ffff;
    machine.set_special(|special| {
        special.cr4 |= input.word() & 0x31_0000;
        special.cr0 ^= input.word() & 0x4_000e;
        match mode >> 1 & 3 {
            // Compatibility mode, real mode, protected mode with 16 and 32 bits.
            1 if level == Level::Kernel => special.cs = segment(KERNEL_CS_32),
            2 => {
                (special.cr0, special.efer) = (0x10, 0);
                (special.cs, special.ss) = (segment(KERNEL_CS_16), segment(KERNEL_DS_16));
                (special.cs.base, special.cs.selector) = (CODE, 0x1000);
                special.idt = DescriptorTable { base: 0, limit: 0x3ff };
            }
            3 => {
                let cs = if mode & 1 == 0 { KERNEL_CS_32 } else { KERNEL_CS_16 };
                (special.cs, special.ss) = (segment(cs), segment(KERNEL_DS_16));
                (special.cr0, special.efer) = (0x11, 0);
            }
            _ => {}
        }
    });
    let rip = if machine.cpu.special_regs().cs.base == 0 { CODE } else { 0 };
    machine.cpu.set_regs(&Regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    });
    if input.byte() < 40 {
        machine.cpu.inject_interrupt(0x20 | mode);
        machine.cpu.inject_nmi();
    }
    let seed = input.byte();
    machine.cpu.set_fpu(&vector_state(seed));
    machine.put(CODE, input.0.get(..2048).unwrap_or(input.0));
    let mut entry = Entry::Resume;
    for number in 0..EXITS {
        let before = machine.cpu.instructions();
        if before >= INSTRUCTIONS {
            break;
        }
        let exit = machine.cpu.run(entry, INSTRUCTIONS - before);
        assert!(machine.cpu.instructions() <= INSTRUCTIONS);
        assert_eq!(machine.cpu.regs().rflags & 0xffc0_8028, 0, "bits that are always clear");
        assert_ne!(machine.cpu.regs().rflags & 2, 0);
        entry = match exit {
            Exit::Shutdown | Exit::Budget => break,
            _ if number & 7 == 7 => Entry::Fault,
            _ => Entry::Data(u64::from(seed).wrapping_mul(0x0101_0101_0101_0101) ^ number as u64),
        };
    }
    machine.cpu.instructions()
}
