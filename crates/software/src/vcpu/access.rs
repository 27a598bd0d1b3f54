//! Accesses of what the VM has itself: interrupt controllers, timers, doorbells, registers.

use nerite_hypervisor::CoalescedWrite;
use nerite_irqchip::{
    Effect, IOAPIC_ADDRESS, IOAPIC_SIZE, PIC_PORTS, PIT_PORTS, Refused, X2APIC_MSRS,
};
use nerite_x86::Entry;

use super::{Next, SoftwareVcpu};
use crate::msr::{APIC_BASE, TSC_DEADLINE};
use crate::shared::Chips;

/// Size of the local APIC's registers in memory.
const APIC_SIZE: u64 = 0x1000;

const RESUME: Next = Next::Go(Entry::Resume);

impl Chips {
    fn has_port(&self, port: u16) -> bool {
        PIC_PORTS.contains(&port) || self.pit && PIT_PORTS.contains(&port)
    }
}

/// Bytes of an access of `width`, with the port of each.
fn ports(first: u16, width: u8) -> impl Iterator<Item = (u32, u16)> {
    (0..u16::from(width))
        .map(move |offset| (u32::from(offset).saturating_mul(8), first.wrapping_add(offset)))
}

impl SoftwareVcpu {
    pub(super) fn port_in(&self, port: u16, width: u8) -> Next {
        let Some(chips) = self.shared.chips.as_ref().filter(|chips| chips.has_port(port)) else {
            return Next::Leave;
        };
        let now = self.now();
        let value = ports(port, width).fold(0, |value, (shift, port)| {
            let byte = chips.shared.read_port(port, now).unwrap_or(0xff);
            value | u64::from(byte).wrapping_shl(shift)
        });
        Next::Go(Entry::Data(value))
    }

    pub(super) fn port_out(&self, port: u16, width: u8, value: u32) -> Next {
        let Some(chips) = self.shared.chips.as_ref().filter(|chips| chips.has_port(port)) else {
            return if self.shared.ring.push(CoalescedWrite { port, width, value }) {
                Next::Resume
            } else {
                Next::Leave
            };
        };
        for (shift, port) in ports(port, width) {
            let [byte, ..] = value.wrapping_shr(shift).to_le_bytes();
            chips.controller.write_port(port, byte, self.now());
        }
        if PIT_PORTS.contains(&port) {
            let next =
                chips.shared.next_board_event().and_then(|next| self.shared.clock.moment(next));
            self.shared.set_board_timer(next);
        }
        RESUME
    }

    /// Offset of an address in the local APIC's registers.
    fn apic_offset(&self, address: u64) -> Option<u64> {
        let base = self.with_apic(|apic| apic.mmio_base())??;
        address.checked_sub(base).filter(|offset| *offset < APIC_SIZE)
    }

    pub(super) fn mmio_read(&mut self, address: u64, width: u8) -> Next {
        if let Some(offset) = self.apic_offset(address) {
            let time = self.time();
            let value =
                self.with_apic(|apic| apic.read_mmio(offset, width, time)).unwrap_or(u32::MAX);
            return Next::Go(Entry::Data(value.into()));
        }
        match (self.chips(), ioapic_offset(address)) {
            (Some(chips), Some(offset)) => {
                Next::Go(Entry::Data(chips.read_ioapic(offset, width).into()))
            }
            _ => Next::Leave,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "registers of interrupt controllers have 32 bits"
    )]
    pub(super) fn mmio_write(&mut self, address: u64, width: u8, value: u64) -> Next {
        if let Some(offset) = self.apic_offset(address) {
            let time = self.time();
            let effect = self.with_apic(|apic| apic.write_mmio(offset, width, value as u32, time));
            self.carry_out(effect.flatten());
            return RESUME;
        }
        if let (Some(chips), Some(offset)) = (self.chips(), ioapic_offset(address)) {
            chips.write_ioapic(offset, value as u32);
            return RESUME;
        }
        if self.shared.bells.ring(address) {
            return Next::Resume;
        }
        Next::Leave
    }

    /// Carries out the consequence of an access of the local APIC, and takes its task priority
    /// over.
    fn carry_out(&mut self, effect: Option<Effect>) {
        if let (Some(effect), Some(chips)) = (effect, &self.shared.chips) {
            chips.controller.carry_out(effect);
        }
        if let Some(class) = self.with_apic(|apic| apic.priority_class()) {
            self.priority = class.into();
            self.cpu.set_cr8(class.into());
        }
    }

    pub(super) fn read_msr(&mut self, index: u32) -> Next {
        if self.shared.chips.is_some() && X2APIC_MSRS.contains(&index) {
            let time = self.time();
            let value = self.with_apic(|apic| apic.read_msr(index, time)).unwrap_or(Err(Refused));
            return Next::Go(value.map_or(Entry::Fault, Entry::Data));
        }
        let value = match index {
            TSC_DEADLINE => self.with_apic(|apic| apic.tsc_deadline()),
            _ => self.msrs.read(index),
        };
        match value {
            Some(value) => Next::Go(Entry::Data(value)),
            None if self.shared.msr_exits => Next::Leave,
            None => Next::Go(Entry::Fault),
        }
    }

    pub(super) fn write_msr(&mut self, index: u32, value: u64) -> Next {
        if self.shared.chips.is_some() && X2APIC_MSRS.contains(&index) {
            let time = self.time();
            let effect =
                self.with_apic(|apic| apic.write_msr(index, value, time)).unwrap_or(Err(Refused));
            let Ok(effect) = effect else { return Next::Go(Entry::Fault) };
            self.carry_out(effect);
            return RESUME;
        }
        let written = match index {
            APIC_BASE => self.write_apic_base(value),
            TSC_DEADLINE => {
                let time = self.time();
                self.with_apic(|apic| apic.set_tsc_deadline(value, time)).is_some()
            }
            _ => self.msrs.write(index, value),
        };
        match written {
            true => RESUME,
            false if self.shared.msr_exits && index != APIC_BASE => Next::Leave,
            false => Next::Go(Entry::Fault),
        }
    }

    fn write_apic_base(&mut self, value: u64) -> bool {
        let is_taken = match self.with_apic(|apic| apic.write_base(value)) {
            Some(written) => written.is_ok(),
            // Without local APICs here, the caller looks at the register.
            None => true,
        };
        if is_taken {
            self.cpu.set_apic_base(value);
        }
        is_taken
    }
}

fn ioapic_offset(address: u64) -> Option<u64> {
    address.checked_sub(IOAPIC_ADDRESS).filter(|offset| *offset < IOAPIC_SIZE)
}
