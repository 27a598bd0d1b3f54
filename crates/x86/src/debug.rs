//! Debug registers (Intel SDM vol. 3, chapter 17).

use crate::core::Core;
use crate::registers::CR4_DE;

/// Kinds of breakpoints in DR7.
const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const PORT: u64 = 2;

/// DR6.B0 to B3: breakpoints that were met.
pub(crate) const BREAKPOINTS: u64 = 0xf;
/// DR6.BS: a single step.
pub(crate) const SINGLE_STEP: u64 = 1 << 14;
/// DR6.BD: an access to a debug register.
pub(crate) const DETECTED: u64 = 1 << 13;
/// Bits of DR6 that are always set.
pub(crate) const DR6_ONES: u64 = 0xffff_0ff0;
/// DR7 after a reset.
pub(crate) const DR7_RESET: u64 = 0x400;

impl Core {
    /// The enabled breakpoints: number, kind, address and length.
    fn breakpoints(&self) -> impl Iterator<Item = (u64, u64, u64, u64)> + use<> {
        let dr7 = self.dr7;
        (0_u32..4).zip(self.dr).filter_map(move |(number, address)| {
            let is_enabled = dr7.wrapping_shr(number.wrapping_mul(2)) & 3 != 0;
            let bits = dr7.wrapping_shr(number.wrapping_mul(4).wrapping_add(16)) & 15;
            let length = match bits >> 2 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            is_enabled.then_some((1_u64.wrapping_shl(number), bits & 3, address, length))
        })
    }

    /// Takes note of what DR7 asks for.
    pub(crate) fn update_breakpoints(&mut self) {
        self.watches_data = self.breakpoints().any(|(_, kind, ..)| kind & WRITE != 0);
        self.update_mode();
        self.attention = true;
    }

    /// `true` if there are breakpoints on instructions.
    pub(crate) fn has_code_breakpoints(&self) -> bool {
        self.dr7 & 0xff != 0 && self.breakpoints().any(|(_, kind, ..)| kind == EXECUTE)
    }

    /// The breakpoints on an instruction, as bits of DR6.
    pub(crate) fn code_breakpoints(&self, linear: u64) -> u64 {
        self.breakpoints()
            .filter(|(_, kind, address, _)| *kind == EXECUTE && *address == linear)
            .fold(0, |bits, (bit, ..)| bits | bit)
    }

    /// Takes note of an access to data. The exception follows the instruction.
    pub(crate) fn watch(&mut self, linear: u64, size: u64, write: bool) {
        if !self.watches_data || self.is_implicit {
            return;
        }
        let last = linear.wrapping_add(size).wrapping_sub(1);
        for (bit, kind, address, length) in self.breakpoints() {
            let start = address & !length.wrapping_sub(1);
            let overlaps = start <= last && linear <= start.wrapping_add(length.wrapping_sub(1));
            if overlaps && (kind == 3 || kind == WRITE && write) {
                self.events.debug |= bit;
                self.attention = true;
            }
        }
    }

    /// Takes note of an access to ports.
    pub(crate) fn watch_port(&mut self, port: u16, size: u64) {
        if self.cr4 & CR4_DE == 0 || self.dr7 & 0xff == 0 {
            return;
        }
        let (first, last) = (u64::from(port), u64::from(port).wrapping_add(size).wrapping_sub(1));
        for (bit, kind, address, length) in self.breakpoints() {
            let start = address & !length.wrapping_sub(1);
            if kind == PORT && start <= last && first <= start.wrapping_add(length.wrapping_sub(1))
            {
                self.events.debug |= bit;
                self.attention = true;
            }
        }
    }
}
