//! Interrupt lines of PCI functions.

use nerite_hypervisor::{Error, Vm};
use nerite_loader::KernelVersion;
use nerite_pci::Bridge;

/// Vector that Hermit kernels use for line 0.
const FIRST_VECTOR: u64 = 0x20;
/// Bit of a redirection entry: level-triggered (82093AA, 3.2.4).
const LEVEL: u64 = 1 << 15;

/// The first kernel that has a driver of the I/O APIC on this platform.
const FIRST_WITH_IO_APIC: KernelVersion = KernelVersion::new(0, 13, 0);

/// `true` if a kernel expects interrupts of lines that it has not set up. Later kernels may have no
/// handler until they do that. Those that do not say their version drive no function.
pub(crate) fn are_routed_for(version: Option<KernelVersion>) -> bool {
    version.is_some_and(|version| version < FIRST_WITH_IO_APIC)
}

/// Sets the I/O APIC up for the functions' lines, as firmware does. Without an I/O APIC nothing is
/// done.
pub(crate) fn route(vm: &dyn Vm, bridge: &Bridge) -> Result<(), Error> {
    let mut state = vm.save()?;
    let Some(board) = &mut state.board else { return Ok(()) };
    for line in bridge.lines() {
        if let Some(entry) = board.ioapic.entries.get_mut(usize::from(line)) {
            *entry = LEVEL | FIRST_VECTOR.saturating_add(line.into());
        }
    }
    vm.restore(&state)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nerite_hypervisor::nerite_irqchip::{Board, IoApicVersion, Routes};
    use nerite_hypervisor::scripted::ScriptedHypervisor;
    use nerite_hypervisor::{Hypervisor, VmOptions, VmState};
    use nerite_memory::{Backing, GuestRam, Region};
    use nerite_pci::Function;

    use super::*;

    /// Its interrupt line, and its pin.
    struct Card(u8, u8);

    impl Function for Card {
        fn read_config(&self, offset: u8, width: u8) -> u32 {
            assert_eq!((offset, width), (0x3c, 4));
            u32::from_le_bytes([self.0, self.1, 0, 0])
        }

        fn write_config(&self, _: u8, _: u8, _: u32) {}

        fn read_memory(&self, _: u64, _: u8) -> Option<u64> {
            None
        }

        fn write_memory(&self, _: u64, _: u8, _: u64) -> bool {
            false
        }
    }

    #[test]
    fn kernels_with_a_driver_of_the_io_apic_find_it_masked() {
        let version = |minor| are_routed_for(Some(KernelVersion::new(0, minor, 0)));
        assert_eq!([10, 11, 12, 13, 14].map(version), [true, true, true, false, false]);
        assert!(!are_routed_for(None));
    }

    #[test]
    fn lines_of_functions_with_a_pin_reach_the_kernel() {
        let ram = GuestRam::new(&[Region { start: 0, size: 1 << 20 }], &Backing::default());
        let hypervisor = ScriptedHypervisor::new(|_| unreachable!("there are no vCPUs"));
        let vm = hypervisor.create_vm(Arc::new(ram.unwrap()), &VmOptions::default()).unwrap();
        let mut bridge = Bridge::new();
        for card in [Card(11, 1), Card(9, 0), Card(10, 1), Card(0xff, 1)] {
            bridge.add(Arc::new(card)).unwrap();
        }
        route(&*vm, &bridge).unwrap();
        assert_eq!(vm.save().unwrap(), VmState::default(), "there are no chips");
        let mut board = Board::new(IoApicVersion::Original, Routes::Identity).save(0);
        vm.restore(&VmState { board: Some(board), ..VmState::default() }).unwrap();
        route(&*vm, &bridge).unwrap();
        board.ioapic.entries[10] = 0x802a;
        board.ioapic.entries[11] = 0x802b;
        assert_eq!(vm.save().unwrap().board, Some(board));
    }
}
