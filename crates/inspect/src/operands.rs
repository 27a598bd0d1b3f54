//! Memory operands of instructions, for watchpoints on hosts that have none.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, Register};
use nerite_arch::{Regs, SpecialRegs};
use nerite_hypervisor::{Access, Error, OperandDecoder, Vcpu};
use nerite_memory::GuestRam;

use crate::read_virtual;

/// The longest instruction there is (Intel SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;

/// Decodes the memory operands of instructions in the guest's memory.
pub struct CodeReader {
    ram: Arc<GuestRam>,
    factory: InstructionInfoFactory,
}

impl CodeReader {
    /// Reads instructions from `ram`.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        Self { ram, factory: InstructionInfoFactory::new() }
    }
}

impl std::fmt::Debug for CodeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeReader")
    }
}

impl OperandDecoder for CodeReader {
    fn accesses(
        &mut self,
        vcpu: &mut dyn Vcpu,
        regs: &Regs,
        accesses: &mut Vec<Access>,
    ) -> Result<(), Error> {
        let special = vcpu.special_regs()?;
        let mut code = [0; LONGEST];
        let length = read_virtual(&self.ram, &special, regs.rip, &mut code);
        let code = code.get(..length).unwrap_or_default();
        let bits = if special.cs.l { 64 } else { 32 };
        accesses_of(&mut self.factory, code, bits, regs, &special, accesses);
        Ok(())
    }

    fn is_repeated(&mut self, vcpu: &mut dyn Vcpu, regs: &Regs) -> Result<bool, Error> {
        let special = vcpu.special_regs()?;
        let mut code = [0; LONGEST];
        let length = read_virtual(&self.ram, &special, regs.rip, &mut code);
        let bits = if special.cs.l { 64 } else { 32 };
        let code = code.get(..length).unwrap_or_default();
        let instruction = Decoder::with_ip(bits, code, regs.rip, DecoderOptions::NONE).decode();
        let has_prefix = instruction.has_rep_prefix() || instruction.has_repne_prefix();
        Ok(has_prefix && instruction.is_string_instruction())
    }
}

fn accesses_of(
    factory: &mut InstructionInfoFactory,
    code: &[u8],
    bits: u32,
    regs: &Regs,
    special: &SpecialRegs,
    accesses: &mut Vec<Access>,
) {
    let instruction = Decoder::with_ip(bits, code, regs.rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return;
    }
    for memory in factory.info(&instruction).used_memory() {
        // A repeated string instruction is stepped once for each element.
        let address = memory.virtual_address(0, |register, _, _| value(register, regs, special));
        let Some(address) = address else { continue };
        let (reads, writes) = match memory.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            OpAccess::None | OpAccess::NoMemAccess => continue,
        };
        let length = memory.memory_size().size().max(1) as u64;
        accesses.push(Access { address, length, writes, reads });
    }
}

/// Value of a register that takes part in an address.
fn value(register: Register, regs: &Regs, special: &SpecialRegs) -> Option<u64> {
    let full = register.full_register();
    let value = match full {
        Register::RAX => regs.rax,
        Register::RBX => regs.rbx,
        Register::RCX => regs.rcx,
        Register::RDX => regs.rdx,
        Register::RSI => regs.rsi,
        Register::RDI => regs.rdi,
        Register::RSP => regs.rsp,
        Register::RBP => regs.rbp,
        Register::R8 => regs.r8,
        Register::R9 => regs.r9,
        Register::R10 => regs.r10,
        Register::R11 => regs.r11,
        Register::R12 => regs.r12,
        Register::R13 => regs.r13,
        Register::R14 => regs.r14,
        Register::R15 => regs.r15,
        Register::FS => special.fs.base,
        Register::GS => special.gs.base,
        // In 64-bit mode they have no base (Intel SDM vol. 3, 3.4.4).
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        // The index of a vector gather, which this does not foresee.
        _ => return None,
    };
    Some(match register.size() {
        4 if register != full => value & u64::from(u32::MAX),
        2 if register.is_gpr() => value & u64::from(u16::MAX),
        1 => value & u64::from(u8::MAX),
        _ => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreseen(code: &[u8]) -> Vec<(u64, u64, bool, bool)> {
        let regs = Regs {
            rip: 0x1000,
            rax: 0x10,
            rbx: 0x2000,
            rsp: 0x9000,
            rdi: 0x3000,
            rsi: 0x4000,
            ..Regs::default()
        };
        let special = SpecialRegs {
            fs: nerite_arch::Segment { base: 0x7000, ..Default::default() },
            ..Default::default()
        };
        let mut accesses = Vec::new();
        accesses_of(&mut InstructionInfoFactory::new(), code, 64, &regs, &special, &mut accesses);
        accesses.iter().map(|a| (a.address, a.length, a.reads, a.writes)).collect()
    }

    #[test]
    fn accesses_are_foreseen() {
        for (code, expected) in [
            // mov [rbx+rax*4+8], ecx
            (&[0x89, 0x4c, 0x83, 0x08][..], &[(0x2048, 4, false, true)][..]),
            // mov rcx, [rip+0x10]
            (&[0x48, 0x8b, 0x0d, 0x10, 0, 0, 0], &[(0x1017, 8, true, false)]),
            // lock inc dword ptr [rbx]
            (&[0xf0, 0xff, 0x03], &[(0x2000, 4, true, true)]),
            // push rax; call
            (&[0x50], &[(0x8ff8, 8, false, true)]),
            (&[0xe8, 0, 0, 0, 0], &[(0x8ff8, 8, false, true)]),
            // mov eax, fs:[0x20]
            (&[0x64, 0x8b, 0x04, 0x25, 0x20, 0, 0, 0], &[(0x7020, 4, true, false)]),
            // movaps [rbx], xmm0
            (&[0x0f, 0x29, 0x03], &[(0x2000, 16, false, true)]),
            // lea and nop access nothing, nor does what is no instruction
            (&[0x48, 0x8d, 0x03], &[]),
            (&[0x90], &[]),
            (&[0x06], &[]),
            (&[], &[]),
        ] {
            assert_eq!(foreseen(code), expected, "{code:x?}");
        }
    }

    #[test]
    fn string_instructions_access_both_ends() {
        // movsq
        let mut both = foreseen(&[0x48, 0xa5]);
        both.sort_unstable();
        assert_eq!(both, [(0x3000, 8, false, true), (0x4000, 8, true, false)]);
    }
}
