//! Numbers of registers, and bits of control registers.

use iced_x86::Register;

/// Registers 0 to 15 are RAX to R15.
pub(crate) const RAX: u8 = 0;
pub(crate) const RCX: u8 = 1;
pub(crate) const RDX: u8 = 2;
pub(crate) const RBX: u8 = 3;
pub(crate) const RSP: u8 = 4;
pub(crate) const RBP: u8 = 5;
pub(crate) const RSI: u8 = 6;
pub(crate) const RDI: u8 = 7;
/// A register that is always zero.
pub(crate) const ZERO: u8 = 16;
/// RIP of the first instruction of the block.
pub(crate) const RIP: u8 = 17;
/// The first of the segment bases, as they are added to an address: ES, CS, SS, DS, FS, GS.
pub(crate) const SEGMENT: u8 = 18;
/// Added to the number of AH, CH, DH and BH, which is 0 to 3.
pub(crate) const HIGH: u8 = 32;

pub(crate) const ES: u8 = 0;
pub(crate) const CS: u8 = 1;
pub(crate) const SS: u8 = 2;
pub(crate) const DS: u8 = 3;
pub(crate) const FS: u8 = 4;
pub(crate) const GS: u8 = 5;

pub(crate) const CR0_PE: u64 = 1;
pub(crate) const CR0_MP: u64 = 1 << 1;
pub(crate) const CR0_EM: u64 = 1 << 2;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR0_WP: u64 = 1 << 16;
pub(crate) const CR0_AM: u64 = 1 << 18;
pub(crate) const CR0_NW: u64 = 1 << 29;
pub(crate) const CR0_CD: u64 = 1 << 30;
pub(crate) const CR0_PG: u64 = 1 << 31;
pub(crate) const CR4_TSD: u64 = 1 << 2;
pub(crate) const CR4_DE: u64 = 1 << 3;
pub(crate) const CR4_PSE: u64 = 1 << 4;
pub(crate) const CR4_PAE: u64 = 1 << 5;
pub(crate) const CR4_PGE: u64 = 1 << 7;
pub(crate) const CR4_PCE: u64 = 1 << 8;
pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(crate) const CR4_UMIP: u64 = 1 << 11;
pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
pub(crate) const CR4_SMEP: u64 = 1 << 20;
pub(crate) const CR4_SMAP: u64 = 1 << 21;
pub(crate) const EFER_SCE: u64 = 1;
pub(crate) const EFER_LME: u64 = 1 << 8;
pub(crate) const EFER_LMA: u64 = 1 << 10;
pub(crate) const EFER_NXE: u64 = 1 << 11;

/// The number of a general register, as in [`Core::reg`]; of another register, its number among its
/// kind.
pub(crate) fn register(register: Register) -> u8 {
    let number = |register: Register| u8::try_from(register.number()).unwrap_or(ZERO);
    match register {
        Register::AH => HIGH,
        Register::CH => HIGH | 1,
        Register::DH => HIGH | 2,
        Register::BH => HIGH | 3,
        Register::None => ZERO,
        _ if register.is_gpr() => number(register.full_register()),
        _ => number(register),
    }
}

/// The number of a segment register.
pub(crate) fn segment(register: Register) -> u8 {
    u8::try_from(register.number()).unwrap_or(0)
}
