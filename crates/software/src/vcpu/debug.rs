//! Ending steps for a debugger.

use nerite_hypervisor::{DebugCause, DebugControl, DebugPoint, Error, GuestDebug, PointKind};
use nerite_x86::DebugRegs;

use super::SoftwareVcpu;

/// Vector of a breakpoint (#BP).
const BREAKPOINT: u8 = 3;
/// DR6.BS: one instruction was executed (Intel SDM vol. 3, 18.2.3).
const SINGLE_STEP: u64 = 1 << 14;

/// The cause of an exit of the processor.
pub(super) fn cause(vector: u8, dr6: u64) -> DebugCause {
    if vector == BREAKPOINT {
        return DebugCause::Breakpoint;
    }
    let [low, ..] = dr6.to_le_bytes();
    DebugCause::Trap { points: low & 0xf, single_step: dr6 & SINGLE_STEP != 0 }
}

/// Enable, type and length of point number `number` in DR7 (Intel SDM vol. 3, 18.2.4).
fn control(number: u32, point: &DebugPoint) -> u64 {
    let (kind, length): (u64, u8) = match point.kind {
        PointKind::Execute => (0, 1),
        PointKind::Write { length } => (1, length),
        PointKind::Access { length } => (3, length),
    };
    let length: u64 = match length {
        2 => 1,
        8 => 2,
        4 => 3,
        _ => 0,
    };
    let enable = 1_u64.wrapping_shl(number.saturating_mul(2));
    enable | (kind | length << 2).wrapping_shl(number.saturating_mul(4).saturating_add(16))
}

fn registers(debug: &GuestDebug) -> DebugRegs {
    let mut registers = DebugRegs { addresses: [0; 4], dr6: 0xffff_0ff0, dr7: 0x400 };
    for (number, (point, address)) in (0..).zip(debug.points.iter().zip(&mut registers.addresses)) {
        if let Some(point) = point {
            *address = point.address;
            registers.dr7 |= control(number, point);
        }
    }
    registers
}

impl DebugControl for SoftwareVcpu {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        let has_points = debug.trap && debug.points.iter().any(Option::is_some);
        match (has_points, self.guest_debug.take()) {
            (true, saved) => {
                self.guest_debug = Some(saved.unwrap_or_else(|| self.cpu.debug_regs()));
                self.cpu.set_debug_regs(&registers(debug));
            }
            (false, Some(saved)) => self.cpu.set_debug_regs(&saved),
            (false, None) => {}
        }
        self.cpu.intercept_debug(debug.trap, debug.software);
        self.debug = *debug;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_in_the_debug_registers() {
        let point = |address, kind| Some(DebugPoint { address, kind });
        let debug = GuestDebug {
            points: [
                point(0x1000, PointKind::Execute),
                None,
                point(0x2000, PointKind::Write { length: 4 }),
                point(0x3000, PointKind::Access { length: 8 }),
            ],
            ..GuestDebug::default()
        };
        let registers = registers(&debug);
        assert_eq!(registers.addresses, [0x1000, 0, 0x2000, 0x3000]);
        assert_eq!(registers.dr7, 0x400 | 1 | 1 << 4 | 1 << 6 | 0b1101 << 24 | 0b1011 << 28);
    }

    #[test]
    fn causes_are_those_of_the_status_register() {
        assert_eq!(cause(3, 0), DebugCause::Breakpoint);
        assert_eq!(cause(1, 0x4002), DebugCause::Trap { points: 2, single_step: true });
    }
}
