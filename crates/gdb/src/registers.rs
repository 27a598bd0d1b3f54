//! The registers of a vCPU as GDB sees them: a description for it, and their values in the same
//! order.

use std::fmt::Write as _;
use std::sync::LazyLock;

use gdbstub::arch::{Arch, Registers};
use nerite_arch::{Fpu, Regs, SpecialRegs};

/// x86-64 with SSE, AVX, segment bases and control registers.
#[derive(Debug)]
pub enum X86_64 {}

impl Arch for X86_64 {
    type Usize = u64;
    type Registers = State;
    type BreakpointKind = usize;
    type RegId = ();

    fn target_description_xml() -> Option<&'static str> {
        Some(&DESCRIPTION)
    }
}

/// All registers of a vCPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// General registers.
    pub regs: Regs,
    /// Segments and control registers.
    pub special: SpecialRegs,
    /// Vector and x87 registers.
    pub fpu: Fpu,
}

/// Features of GDB's own (GDB manual, "i386 Features") and one of ours. The order is that of
/// [`State::visit`].
static DESCRIPTION: LazyLock<String> = LazyLock::new(description);

fn description() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\
         <target version=\"1.0\"><architecture>i386:x86-64</architecture>\
         <feature name=\"org.gnu.gdb.i386.core\"><flags id=\"i386_eflags\" size=\"4\">",
    );
    for (name, bit) in [
        ("CF", 0),
        ("PF", 2),
        ("AF", 4),
        ("ZF", 6),
        ("SF", 7),
        ("TF", 8),
        ("IF", 9),
        ("DF", 10),
        ("OF", 11),
        ("NT", 14),
        ("RF", 16),
        ("VM", 17),
        ("AC", 18),
        ("VIF", 19),
        ("VIP", 20),
        ("ID", 21),
    ] {
        let _ = write!(xml, "<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
    }
    xml.push_str("</flags>");
    let mut add = |name: &str, bits: u32, kind: &str| {
        // Writing to a string does not fail.
        let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
    };
    for name in ["rax", "rbx", "rcx", "rdx", "rsi", "rdi"] {
        add(name, 64, "int64");
    }
    add("rbp", 64, "data_ptr");
    add("rsp", 64, "data_ptr");
    (8..16).for_each(|number| add(&format!("r{number}"), 64, "int64"));
    add("rip", 64, "code_ptr");
    add("eflags", 32, "i386_eflags");
    for name in ["cs", "ss", "ds", "es", "fs", "gs"] {
        add(name, 32, "int32");
    }
    (0..8).for_each(|number| add(&format!("st{number}"), 80, "i387_ext"));
    for name in ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"] {
        add(name, 32, "int");
    }
    xml.push_str("</feature><feature name=\"org.gnu.gdb.i386.sse\">");
    for (name, kind, count) in [
        ("v4f", "ieee_single", 4),
        ("v2d", "ieee_double", 2),
        ("v16i8", "int8", 16),
        ("v8i16", "int16", 8),
        ("v4i32", "int32", 4),
        ("v2i64", "int64", 2),
    ] {
        let _ = write!(xml, "<vector id=\"{name}\" type=\"{kind}\" count=\"{count}\"/>");
    }
    xml.push_str("<union id=\"vec128\">");
    for (name, kind) in [
        ("v4_float", "v4f"),
        ("v2_double", "v2d"),
        ("v16_int8", "v16i8"),
        ("v8_int16", "v8i16"),
        ("v4_int32", "v4i32"),
        ("v2_int64", "v2i64"),
        ("uint128", "uint128"),
    ] {
        let _ = write!(xml, "<field name=\"{name}\" type=\"{kind}\"/>");
    }
    xml.push_str("</union>");
    let mut add = |name: &str, bits: u32, kind: &str| {
        let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
    };
    (0..16).for_each(|number| add(&format!("xmm{number}"), 128, "vec128"));
    add("mxcsr", 32, "int");
    xml.push_str("</feature><feature name=\"org.gnu.gdb.i386.segments\">");
    xml.push_str("<reg name=\"fs_base\" bitsize=\"64\" type=\"int\"/><reg name=\"gs_base\" bitsize=\"64\" type=\"int\"/>");
    xml.push_str("</feature><feature name=\"org.gnu.gdb.i386.avx\">");
    for number in 0..16 {
        let _ = write!(xml, "<reg name=\"ymm{number}h\" bitsize=\"128\" type=\"uint128\"/>");
    }
    xml.push_str("</feature><feature name=\"org.nerite.x86-64.system\">");
    for name in [
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cr8",
        "efer",
        "apic_base",
        "gdt_base",
        "gdt_limit",
        "idt_base",
        "idt_limit",
    ] {
        let _ =
            write!(xml, "<reg name=\"{name}\" bitsize=\"64\" type=\"uint64\" group=\"system\"/>");
    }
    xml.push_str("</feature></target>");
    xml
}

/// An operation on each register in turn.
trait Visitor {
    /// A register of at most eight bytes, of which `bytes` are its size.
    fn word(&mut self, bytes: usize, value: u64) -> u64;

    /// A longer one.
    fn long<const N: usize>(&mut self, value: [u8; N]) -> [u8; N];
}

/// The full tag word, two bits a register, from the abridged one: what is not empty counts as
/// valid.
fn full_tags(abridged: u8) -> u16 {
    (0_u32..8).fold(0, |tags, register| {
        let is_empty = abridged & 1_u8.wrapping_shl(register) == 0;
        tags | if is_empty { 3_u16.wrapping_shl(register.wrapping_mul(2)) } else { 0 }
    })
}

/// The abridged tag word from the full one.
fn abridged_tags(full: u16) -> u8 {
    (0_u32..8).fold(0, |tags, register| {
        let is_empty = full.wrapping_shr(register.wrapping_mul(2)) & 3 == 3;
        tags | if is_empty { 0 } else { 1_u8.wrapping_shl(register) }
    })
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a register's value has been cut to its size by the visitor"
)]
const fn low16(value: u64) -> u16 {
    (value & 0xffff) as u16
}

impl State {
    /// Shows every register to `visitor`, in the order of the description, and takes over what it
    /// makes of it.
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let regs = &mut self.regs;
        for register in [
            &mut regs.rax,
            &mut regs.rbx,
            &mut regs.rcx,
            &mut regs.rdx,
            &mut regs.rsi,
            &mut regs.rdi,
            &mut regs.rbp,
            &mut regs.rsp,
            &mut regs.r8,
            &mut regs.r9,
            &mut regs.r10,
            &mut regs.r11,
            &mut regs.r12,
            &mut regs.r13,
            &mut regs.r14,
            &mut regs.r15,
            &mut regs.rip,
        ] {
            *register = visitor.word(8, *register);
        }
        regs.rflags = visitor.word(4, regs.rflags);
        let special = &mut self.special;
        for segment in [
            &mut special.cs,
            &mut special.ss,
            &mut special.ds,
            &mut special.es,
            &mut special.fs,
            &mut special.gs,
        ] {
            segment.selector = low16(visitor.word(4, segment.selector.into()));
        }
        let fpu = &mut self.fpu;
        for number in 0..8 {
            let value = visitor.long(fpu.st(number));
            fpu.set_st(number, value);
        }
        let control = low16(visitor.word(4, fpu.control().into()));
        let status = low16(visitor.word(4, fpu.status().into()));
        let tags = abridged_tags(low16(visitor.word(4, full_tags(fpu.tags()).into())));
        fpu.set_x87(control, status, tags);
        // Where the last x87 instruction and its operand were is not kept.
        for value in [0, 0, 0, 0, u64::from(fpu.opcode())] {
            visitor.word(4, value);
        }
        for number in 0..16 {
            let value = visitor.long(fpu.xmm(number));
            fpu.set_xmm(number, value);
        }
        let mxcsr = visitor.word(4, fpu.mxcsr().into());
        fpu.set_mxcsr(low16(mxcsr).into());
        special.fs.base = visitor.word(8, special.fs.base);
        special.gs.base = visitor.word(8, special.gs.base);
        for number in 0..16 {
            let value = visitor.long(fpu.ymm_high(number));
            fpu.set_ymm_high(number, value);
        }
        for register in [
            &mut special.cr0,
            &mut special.cr2,
            &mut special.cr3,
            &mut special.cr4,
            &mut special.cr8,
            &mut special.efer,
            &mut special.apic_base,
        ] {
            *register = visitor.word(8, *register);
        }
        for table in [&mut special.gdt, &mut special.idt] {
            table.base = visitor.word(8, table.base);
            table.limit = low16(visitor.word(8, table.limit.into()));
        }
    }
}

struct Writer<F>(F);

impl<F: FnMut(Option<u8>)> Visitor for Writer<F> {
    fn word(&mut self, bytes: usize, value: u64) -> u64 {
        value.to_le_bytes().into_iter().take(bytes).for_each(|byte| (self.0)(Some(byte)));
        value
    }

    fn long<const N: usize>(&mut self, value: [u8; N]) -> [u8; N] {
        value.into_iter().for_each(|byte| (self.0)(Some(byte)));
        value
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    is_short: bool,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let Some((head, tail)) = self.bytes.split_at_checked(length) else {
            self.is_short = true;
            return None;
        };
        self.bytes = tail;
        Some(head)
    }
}

impl Visitor for Reader<'_> {
    fn word(&mut self, bytes: usize, value: u64) -> u64 {
        let Some(given) = self.take(bytes) else { return value };
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(given) {
            *to = *from;
        }
        u64::from_le_bytes(word)
    }

    fn long<const N: usize>(&mut self, value: [u8; N]) -> [u8; N] {
        self.take(N).and_then(|given| given.try_into().ok()).unwrap_or(value)
    }
}

impl Registers for State {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.regs.rip
    }

    fn gdb_serialize(&self, write_byte: impl FnMut(Option<u8>)) {
        // The writer changes nothing.
        self.clone().visit(&mut Writer(write_byte));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut reader = Reader { bytes, is_short: false };
        let mut state = self.clone();
        state.visit(&mut reader);
        if reader.is_short {
            return Err(());
        }
        *self = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        let mut state = State::default();
        state.regs.rax = 0x1122_3344_5566_7788;
        state.regs.rip = 0xffff_8000_0000_1000;
        state.regs.rflags = 0x246;
        state.special.cs.selector = 8;
        state.special.gs.base = 0xdead_0000;
        state.special.cr3 = 0x1_0000;
        state.special.idt.limit = 0xfff;
        state.fpu.set_xmm(3, [3; 16]);
        state.fpu.set_ymm_high(15, [15; 16]);
        state.fpu.set_x87(0x37f, 0x3800, 0x81);
        state
    }

    fn bytes(state: &State) -> Vec<u8> {
        let mut bytes = Vec::new();
        state.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        bytes
    }

    #[test]
    fn registers_come_back_as_they_went() {
        let state = sample();
        let bytes = bytes(&state);
        let mut again = State::default();
        again.gdb_deserialize(&bytes).unwrap();
        assert_eq!(again, state);
        assert_eq!(again.gdb_deserialize(&bytes[1..]), Err(()));
    }

    #[test]
    fn the_description_and_the_values_have_the_same_size() {
        let bits: usize = DESCRIPTION
            .split("bitsize=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(bits / 8, bytes(&sample()).len());
        for name in ["\"rip\"", "\"xmm15\"", "\"ymm15h\"", "\"gs_base\"", "\"cr3\"", "\"efer\""] {
            assert!(DESCRIPTION.contains(name), "{name}");
        }
    }

    #[test]
    fn tags_have_one_bit_or_two() {
        assert_eq!(full_tags(0), 0xffff);
        assert_eq!(full_tags(0x81), 0x3ffc);
        assert_eq!(abridged_tags(0x3ffc), 0x81);
    }
}
