//! Registers of a virtual CPU, in a form that belongs to no hypervisor.

use std::fmt;

/// The general-purpose registers, the instruction pointer and the flags (Intel SDM vol. 1, 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Regs {
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI, the second argument of a System V function.
    pub rsi: u64,
    /// RDI, the first argument of a System V function.
    pub rdi: u64,
    /// RSP, the stack pointer.
    pub rsp: u64,
    /// RBP, the frame pointer.
    pub rbp: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// R10.
    pub r10: u64,
    /// R11.
    pub r11: u64,
    /// R12.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
    /// RIP, the instruction pointer.
    pub rip: u64,
    /// RFLAGS. Bit 1 always reads as one.
    pub rflags: u64,
}

impl Regs {
    /// RFLAGS.TF: a debug exception after each instruction (Intel SDM vol. 1, 3.4.3.3).
    pub const RFLAGS_TF: u64 = 1 << 8;
    /// RFLAGS.IF: maskable interrupts are taken (Intel SDM vol. 1, 3.4.3.3).
    pub const RFLAGS_IF: u64 = 1 << 9;
}

/// A segment register with its hidden part (Intel SDM vol. 3, 3.4.3 and 3.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, with the granularity already applied.
    pub limit: u32,
    /// The selector.
    pub selector: u16,
    /// The type field, 4 bits (Intel SDM vol. 3, tables 3-1 and 3-2).
    pub kind: u8,
    /// P: the segment is present.
    pub present: bool,
    /// DPL: the privilege level, 0 to 3.
    pub dpl: u8,
    /// D/B: 32-bit default operation size.
    pub db: bool,
    /// S: a code or data segment, as opposed to a system one.
    pub s: bool,
    /// L: 64-bit code.
    pub l: bool,
    /// G: the descriptor's limit counts 4 KiB pages.
    pub g: bool,
    /// AVL: free for software.
    pub avl: bool,
    /// The register holds no usable segment (Intel SDM vol. 3, 26.4.1).
    pub unusable: bool,
}

/// GDTR or IDTR (Intel SDM vol. 3, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DescriptorTable {
    /// Linear address of the table.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u16,
}

/// Segment, table and control registers (Intel SDM vol. 3, 2.4 and 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SpecialRegs {
    /// CS.
    pub cs: Segment,
    /// DS.
    pub ds: Segment,
    /// ES.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// SS.
    pub ss: Segment,
    /// TR, the task register.
    pub tr: Segment,
    /// LDTR.
    pub ldt: Segment,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR.
    pub idt: DescriptorTable,
    /// CR0.
    pub cr0: u64,
    /// CR2, the address of the last page fault.
    pub cr2: u64,
    /// CR3, the root of the page tables.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8, the task priority.
    pub cr8: u64,
    /// `IA32_EFER`.
    pub efer: u64,
    /// `IA32_APIC_BASE`.
    pub apic_base: u64,
}

/// A model-specific register and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Msr {
    /// The register's number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// The state of one vCPU at a kernel's first instruction. Its constructors are the ways to enter
/// one: [`BootState::hermit`], and [`BootState::linux_64`] and others for kernels that expect a PC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootState {
    /// General-purpose registers.
    pub regs: Regs,
    /// Segments and control registers.
    pub special: SpecialRegs,
    /// Model-specific registers.
    pub msrs: Vec<Msr>,
}

/// The names of the set bits of `value`, as in ` PE ET PG`.
fn bits(value: u64, names: &[(u32, &str)]) -> String {
    let set = |bit: u32| value.checked_shr(bit).unwrap_or(0) & 1 == 1;
    names
        .iter()
        .filter(|(bit, _)| set(*bit))
        .fold(String::new(), |text, (_, name)| text + " " + name)
}

const RFLAGS: &[(u32, &str)] = &[
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (21, "ID"),
];
const CR0: &[(u32, &str)] = &[
    (0, "PE"),
    (1, "MP"),
    (2, "EM"),
    (3, "TS"),
    (4, "ET"),
    (5, "NE"),
    (16, "WP"),
    (18, "AM"),
    (29, "NW"),
    (30, "CD"),
    (31, "PG"),
];
const CR4: &[(u32, &str)] = &[
    (0, "VME"),
    (2, "TSD"),
    (3, "DE"),
    (4, "PSE"),
    (5, "PAE"),
    (6, "MCE"),
    (7, "PGE"),
    (8, "PCE"),
    (9, "OSFXSR"),
    (10, "OSXMMEXCPT"),
    (11, "UMIP"),
    (12, "LA57"),
    (16, "FSGSBASE"),
    (17, "PCIDE"),
    (18, "OSXSAVE"),
    (20, "SMEP"),
    (21, "SMAP"),
    (22, "PKE"),
];
const EFER: &[(u32, &str)] = &[(0, "SCE"), (8, "LME"), (10, "LMA"), (11, "NXE"), (12, "SVME")];
const APIC_BASE: &[(u32, &str)] = &[(8, "BSP"), (10, "x2APIC"), (11, "on")];

/// A dump of several lines, without a trailing newline.
impl fmt::Display for Regs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            [("rax", self.rax), ("rbx", self.rbx), ("rcx", self.rcx), ("rdx", self.rdx)],
            [("rsi", self.rsi), ("rdi", self.rdi), ("rsp", self.rsp), ("rbp", self.rbp)],
            [("r8", self.r8), ("r9", self.r9), ("r10", self.r10), ("r11", self.r11)],
            [("r12", self.r12), ("r13", self.r13), ("r14", self.r14), ("r15", self.r15)],
        ];
        for row in rows {
            for (column, (name, value)) in row.into_iter().enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                write!(f, "{gap}{name:<3} {value:016x}")?;
            }
            writeln!(f)?;
        }
        let flags = bits(self.rflags, RFLAGS);
        write!(f, "rip {:016x}  rflags {:08x}{flags}", self.rip, self.rflags)
    }
}

/// One line: selector, base, limit and what the segment is.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x} base {:016x} limit {:08x} ", self.selector, self.base, self.limit)?;
        if self.unusable {
            return f.write_str("unusable");
        }
        let size = match (self.l, self.db) {
            (true, _) => "64",
            (false, true) => "32",
            (false, false) => "16",
        };
        match (self.s, self.kind & 8 != 0) {
            (true, true) => write!(f, "code{size}")?,
            (true, false) => f.write_str("data")?,
            (false, _) => f.write_str("system")?,
        }
        write!(
            f,
            " type {:x} dpl {}{}",
            self.kind,
            self.dpl,
            if self.present { "" } else { " not present" }
        )
    }
}

impl SpecialRegs {
    /// The segment registers, TR and LDTR with their names in lower case.
    #[must_use]
    pub const fn segments(&self) -> [(&'static str, Segment); 8] {
        [
            ("cs", self.cs),
            ("ds", self.ds),
            ("es", self.es),
            ("fs", self.fs),
            ("gs", self.gs),
            ("ss", self.ss),
            ("tr", self.tr),
            ("ldt", self.ldt),
        ]
    }
}

/// A dump of several lines, without a trailing newline.
impl fmt::Display for SpecialRegs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cr0 {:016x}{}", self.cr0, bits(self.cr0, CR0))?;
        writeln!(f, "cr2 {:016x}  cr3 {:016x}  cr8 {:x}", self.cr2, self.cr3, self.cr8)?;
        writeln!(f, "cr4 {:016x}{}", self.cr4, bits(self.cr4, CR4))?;
        writeln!(f, "efer {:08x}{}", self.efer, bits(self.efer, EFER))?;
        writeln!(f, "apic base {:08x}{}", self.apic_base, bits(self.apic_base, APIC_BASE))?;
        for (name, segment) in self.segments() {
            writeln!(f, "{name:<3} {segment}")?;
        }
        writeln!(f, "gdt base {:016x} limit {:04x}", self.gdt.base, self.gdt.limit)?;
        write!(f, "idt base {:016x} limit {:04x}", self.idt.base, self.idt.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_print_all_sixteen_and_the_flags() {
        let regs = Regs { rax: 1, r15: 0xf, rip: 0x1_0004_1000, rflags: 0x246, ..Regs::default() };
        let text = regs.to_string();
        for name in "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"
            .split_whitespace()
        {
            assert!(text.split_whitespace().any(|word| word == name), "{name} is missing:\n{text}");
        }
        assert!(text.ends_with("rip 0000000100041000  rflags 00000246 PF ZF IF"), "{text}");
        assert_eq!(text.lines().count(), 5);
        assert_eq!(text.lines().next().map(str::len), Some(4 * 20 + 3 * 2));
    }

    #[test]
    fn special_registers_name_their_bits() {
        let special = SpecialRegs {
            cr0: 0x8000_0031,
            cr4: 0x20,
            efer: 0xd00,
            apic_base: 0xfee0_0900,
            ..Default::default()
        };
        let text = special.to_string();
        assert!(text.contains("cr0 0000000080000031 PE ET NE PG\n"), "{text}");
        assert!(text.contains("cr4 0000000000000020 PAE\n"), "{text}");
        assert!(text.contains("efer 00000d00 LME LMA NXE\n"), "{text}");
        assert!(text.contains("apic base fee00900 BSP on\n"), "{text}");
        assert!(!text.ends_with('\n'));
    }

    #[test]
    fn segments_say_what_they_are() {
        let code = Segment {
            selector: 8,
            kind: 11,
            s: true,
            l: true,
            present: true,
            ..Default::default()
        };
        assert!(code.to_string().ends_with("code64 type b dpl 0"), "{code}");
        assert!(Segment { unusable: true, ..code }.to_string().ends_with("unusable"));
        assert!(Segment { kind: 3, l: false, ..code }.to_string().contains("data"));
        assert!(
            Segment { s: false, present: false, ..code }.to_string().ends_with("dpl 0 not present")
        );
    }
}
