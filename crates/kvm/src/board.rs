//! Saving and restoring the chips that all vCPUs of a VM share.

mod pit;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data,
    kvm_ioapic_state, kvm_irqchip, kvm_pic_state,
};
use nerite_hypervisor::{Error, STATE_VERSION, StateError, VmState};
use nerite_irqchip::{
    BOARD_VERSION, Board, IOAPIC_VERSION, IoApicVersion, NextWord, PIC_VERSION, Routes, SavedBoard,
    SavedIoApic, SavedPic, SavedPicPair,
};

use self::pit::{monotonic, pit_from_kvm, pit_to_kvm};
use crate::KvmVm;
use crate::error::failed;

/// Bits of a redirection entry that are state (82093AA, 3.2.4): not the delivery status, which is
/// over.
const ENTRY: u64 = 0xff00_0000_0001_efff;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;

impl KvmVm {
    pub(crate) fn save_state(&self) -> Result<VmState, Error> {
        let clock = self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))?.clock;
        let board = if self.interrupt_chips() { Some(self.save_board()?) } else { None };
        Ok(VmState { version: STATE_VERSION, board, clock })
    }

    fn save_board(&self) -> Result<SavedBoard, Error> {
        let chips = [self.pic(KVM_IRQCHIP_PIC_MASTER)?, self.pic(KVM_IRQCHIP_PIC_SLAVE)?];
        let pit = if self.has_pit {
            let pit = self.fd.get_pit2().map_err(failed("KVM_GET_PIT2"))?;
            pit_from_kvm(&pit, monotonic()?)
        } else {
            Board::new(IoApicVersion::Original, Routes::Identity).save(0).pit
        };
        Ok(SavedBoard {
            version: BOARD_VERSION,
            ioapic: ioapic_from_kvm(&self.ioapic()?),
            pics: SavedPicPair {
                version: PIC_VERSION,
                chips: chips.map(|chip| pic_from_kvm(&chip)),
            },
            pit,
            routes: Routes::Identity,
            lines: [0; 24],
        })
    }

    pub(crate) fn restore_state(&self, state: &VmState) -> Result<(), Error> {
        state.check().map_err(Error::VmState)?;
        self.parts.forget_restored_tsc();
        if state.board.is_some() != self.interrupt_chips() {
            let value = "not where the interrupt controllers are".to_owned();
            return Err(Error::VmState(StateError::Field { field: "board", value }));
        }
        // Before the chips: what the timer raises at its start is overwritten.
        if let Some(mut board) = state.board {
            board.lower_lines();
            check(&board).map_err(Error::VmState)?;
            if self.has_pit {
                let mut pit = self.fd.get_pit2().map_err(failed("KVM_GET_PIT2"))?;
                pit_to_kvm(&board.pit, &mut pit, monotonic()?);
                self.fd.set_pit2(&pit).map_err(failed("KVM_SET_PIT2"))?;
            }
            let clock = kvm_clock_data { clock: state.clock, ..Default::default() };
            self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))?;
            // A chip is read, changed and written: the rest is KVM's own.
            let [first, second] = &board.pics.chips;
            for (chip, saved) in [(KVM_IRQCHIP_PIC_MASTER, first), (KVM_IRQCHIP_PIC_SLAVE, second)]
            {
                let mut pic = self.pic(chip)?;
                pic_to_kvm(saved, &mut pic);
                self.set_chip(chip, |state| state.pic = pic)?;
            }
            // Last of the chips: it sends what is due to the local APICs.
            let mut ioapic = self.ioapic()?;
            ioapic_to_kvm(&board.ioapic, &mut ioapic);
            return self.set_chip(KVM_IRQCHIP_IOAPIC, |state| state.ioapic = ioapic);
        }
        let clock = kvm_clock_data { clock: state.clock, ..Default::default() };
        self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))
    }

    fn chip(&self, chip_id: u32) -> Result<kvm_irqchip, Error> {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        self.fd.get_irqchip(&mut chip).map_err(failed("KVM_GET_IRQCHIP"))?;
        Ok(chip)
    }

    fn pic(&self, chip_id: u32) -> Result<kvm_pic_state, Error> {
        let chip = self.chip(chip_id)?;
        // SAFETY: KVM has filled in the member of the chip that was asked for; it is integers only.
        Ok(unsafe { chip.chip.pic })
    }

    fn ioapic(&self) -> Result<kvm_ioapic_state, Error> {
        let chip = self.chip(KVM_IRQCHIP_IOAPIC)?;
        // SAFETY: as above.
        Ok(unsafe { chip.chip.ioapic })
    }

    fn set_chip(
        &self,
        chip_id: u32,
        set: impl FnOnce(&mut kvm_bindings::kvm_irqchip__bindgen_ty_1),
    ) -> Result<(), Error> {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        set(&mut chip.chip);
        self.fd.set_irqchip(&chip).map_err(failed("KVM_SET_IRQCHIP"))
    }
}

/// Checks the chips by restoring them into those of `nerite_irqchip`, and the wiring against KVM's.
fn check(board: &SavedBoard) -> Result<(), StateError> {
    Board::restore(board, 0)?;
    let impossible =
        |value: &str| Err(StateError::Field { field: "board", value: value.to_owned() });
    if board.ioapic.kind != IoApicVersion::Original {
        return impossible("an I/O APIC with an EOI register, which KVM does not have");
    }
    if board.routes != Routes::Identity {
        return impossible("a timer on pin 2, which KVM does not have");
    }
    Ok(())
}

fn ioapic_from_kvm(state: &kvm_ioapic_state) -> SavedIoApic {
    let entries = state.redirtbl.map(|entry| {
        // SAFETY: both members of the union are the same 64 bits.
        let bits = unsafe { entry.bits } & ENTRY;
        if bits & LEVEL == 0 { bits & !REMOTE_IRR } else { bits }
    });
    let [select, ..] = state.ioregsel.to_le_bytes();
    let [id, ..] = state.id.to_le_bytes();
    SavedIoApic {
        version: IOAPIC_VERSION,
        kind: IoApicVersion::Original,
        id: id & 0xf,
        select,
        entries,
        asserted: state.irr & 0x00ff_ffff,
    }
}

fn ioapic_to_kvm(saved: &SavedIoApic, state: &mut kvm_ioapic_state) {
    state.ioregsel = saved.select.into();
    state.id = saved.id.into();
    state.irr = saved.asserted;
    for (entry, bits) in state.redirtbl.iter_mut().zip(saved.entries) {
        entry.bits = bits;
    }
}

fn pic_from_kvm(state: &kvm_pic_state) -> SavedPic {
    SavedPic {
        requested: state.irr,
        in_service: state.isr,
        masked: state.imr,
        level: state.elcr & state.elcr_mask,
        asserted: state.last_irr,
        base: state.irq_base & 0xf8,
        // KVM has the pin with the highest priority.
        lowest: state.priority_add.wrapping_sub(1) & 7,
        next_word: match state.init_state {
            1 => NextWord::Icw2,
            2 => NextWord::Icw3,
            3 => NextWord::Icw4,
            _ => NextWord::Operation,
        },
        is_single: false,
        needs_icw4: state.init4 != 0,
        auto_end: state.auto_eoi != 0,
        rotates: state.rotate_on_auto_eoi != 0,
        special_nested: state.special_fully_nested_mode != 0,
        special_mask: state.special_mask != 0,
        reads_in_service: state.read_reg_select != 0,
        polls: state.poll != 0,
    }
}

fn pic_to_kvm(saved: &SavedPic, state: &mut kvm_pic_state) {
    state.irr = saved.requested;
    state.isr = saved.in_service;
    state.imr = saved.masked;
    state.elcr = saved.level;
    state.last_irr = saved.asserted;
    state.irq_base = saved.base;
    state.priority_add = saved.lowest.wrapping_add(1) & 7;
    state.init_state = match saved.next_word {
        NextWord::Operation => 0,
        NextWord::Icw2 => 1,
        NextWord::Icw3 => 2,
        NextWord::Icw4 => 3,
    };
    state.init4 = saved.needs_icw4.into();
    state.auto_eoi = saved.auto_end.into();
    state.rotate_on_auto_eoi = saved.rotates.into();
    state.special_fully_nested_mode = saved.special_nested.into();
    state.special_mask = saved.special_mask.into();
    state.read_reg_select = saved.reads_in_service.into();
    state.poll = saved.polls.into();
}

#[cfg(test)]
mod tests {
    use nerite_irqchip::PicPair;

    use super::*;

    #[test]
    fn a_pic_comes_back_as_it_went() {
        let mut pair = PicPair::new();
        for (port, value) in
            [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 3), (0x20, 0xc3), (0x4d0, 0x20)]
        {
            assert!(pair.write_port(port, value));
        }
        for (port, value) in [(0xa0, 0x11), (0xa1, 0x38)] {
            assert!(pair.write_port(port, value));
        }
        pair.set_pin(1, true);
        pair.acknowledge();
        for saved in pair.save().chips {
            let mut state = kvm_pic_state { elcr_mask: 0xff, ..Default::default() };
            pic_to_kvm(&saved, &mut state);
            assert_eq!(pic_from_kvm(&state), saved);
        }
    }

    #[test]
    fn an_io_apic_comes_back_as_it_went() {
        let mut saved = Board::new(IoApicVersion::Original, Routes::Identity).save(0).ioapic;
        (saved.id, saved.select, saved.asserted) = (3, 0x12, 0x100);
        saved.entries[8] = 0x0100_0000_0000_c031;
        let mut state = kvm_ioapic_state::default();
        ioapic_to_kvm(&saved, &mut state);
        assert_eq!(ioapic_from_kvm(&state), saved);
        // Bits that are no state are dropped.
        state.redirtbl[9].bits = 0xffff_ffff_ffff_5031;
        assert_eq!(
            ioapic_from_kvm(&state).entries[9],
            0xff00_0000_0001_0031 & !0x1_0000 | 0x1_0000
        );
    }
}
