use std::io::Write as _;

use nerite_hypercall::v1::ExitParams;
use nerite_hypervisor::scripted::Scripted;
use nerite_vcpu::{InstructionBytes, InternalError, SystemEvent, drive};

use super::*;
use crate::testing::{Guest, HIGH, PARAMS};
use nerite_testkit::log::{line_of, lines_of};

const fn port_in(port: u16, width: u8) -> Exit {
    Exit::PortIn { port, width }
}

const fn port_out(port: u16, width: u8, value: u32) -> Exit {
    Exit::PortOut { port, width, value }
}

/// Plays back these exits, which must not end the machine before the triple fault at the end of
/// every script. Gives what the guest was told after each.
fn answers(guest: &mut Guest, exits: &[Exit]) -> Vec<Entry> {
    guest.vcpu.exits = exits.iter().copied().collect();
    guest.vcpu.entries.clear();
    let mut dispatcher = guest.dispatcher();
    let end = drive(&mut guest.vcpu, &mut dispatcher).unwrap();
    assert!(matches!(end, Ok(End::Crashed(Exit::Shutdown))), "{end:?}");
    guest.vcpu.entries.split_off(1)
}

/// Reason why the machine ends at this exit.
fn end(guest: &mut Guest, exit: Exit) -> Stop {
    match guest.dispatcher().handle(&mut guest.vcpu, &exit) {
        ControlFlow::Break(end) => end,
        ControlFlow::Continue(entry) => panic!("{exit:?}: {entry:?}"),
    }
}

#[test]
fn unknown_addresses_read_all_ones_in_every_width() {
    let mut guest = Guest::new();
    for (width, ones) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff)] {
        assert_eq!(answers(&mut guest, &[port_in(0x60, width)]), [Entry::Data(ones)]);
    }
    for width in 1..=8 {
        let ones = u64::MAX >> (64 - 8 * u32::from(width));
        let read = |address| Exit::MmioRead { address, width };
        let expected = [Entry::Data(ones); 3];
        assert_eq!(answers(&mut guest, &[read(0xd000_0000), read(0), read(u64::MAX)]), expected);
    }
}

#[test]
fn unknown_addresses_are_told_once() {
    let mut guest = Guest::new();
    let exits = [
        port_in(0x60, 1),
        port_out(0x60, 1, 3),
        port_in(0x60, 1),
        port_out(0x64, 1, 3),
        Exit::MmioRead { address: 0x60, width: 4 },
        Exit::MmioWrite { address: 0x60, width: 8, value: u64::MAX },
    ];
    let (answers, lines) = lines_of(|| answers(&mut guest, &exits));
    let told = [
        ("read", "port address 0x60,"),
        ("write", "port address 0x64,"),
        ("read", "MMIO address 0x60,"),
    ];
    assert_eq!(lines.len(), told.len(), "{lines:?}");
    for (line, (what, place)) in lines.iter().zip(told) {
        assert!(line.contains(what) && line.contains(place), "{line}");
    }
    for position in [1, 3, 5] {
        assert_eq!(answers[position], Entry::Resume, "a write has no answer");
    }
}

#[test]
fn accesses_of_no_known_width_harm_nobody() {
    let mut guest = Guest::new();
    for width in [0, 9, 255] {
        let exits = [
            port_in(0x60, width),
            port_out(0x60, width, 1),
            Exit::MmioRead { address: 0, width },
            Exit::MmioWrite { address: 0, width, value: 1 },
        ];
        assert_eq!(answers(&mut guest, &exits), [Entry::Resume; 4]);
    }
}

#[test]
fn the_pci_host_is_there_and_empty() {
    let mut guest = Guest::new();
    let address = 0x8000_f800;
    let exits = [
        port_out(0xcf8, 4, address),
        port_in(0xcf8, 4),
        port_in(0xcfc, 4),
        port_in(0xcfe, 2),
        port_out(0xcfc, 4, 1),
        port_in(0xcff, 1),
    ];
    let (answers, lines) = lines_of(|| answers(&mut guest, &exits));
    let data = Entry::Data;
    let expected = [
        Entry::Resume,
        data(address.into()),
        data(0xffff_ffff),
        data(0xffff),
        Entry::Resume,
        data(0xff),
    ];
    assert_eq!(answers, expected);
    assert_eq!(lines, Vec::<String>::new());
    // An access that leaves the device's ports is nobody's.
    line_of(|| {
        assert!(matches!(
            self::answers(&mut guest, &[port_in(0xcfe, 4)])[..],
            [Entry::Data(0xffff_ffff)]
        ))
    });
}

#[test]
fn hypercalls_of_both_interfaces_take_their_own_register() {
    let mut guest = Guest::new();
    guest.vcpu.regs.rdi = 0xffff_ffff_ffff_ff41;
    let exits = [port_out(0x1020, 4, u32::from(b'x')), port_out(0x800, 1, u32::from(b'B'))];
    assert_eq!(answers(&mut guest, &exits), [Entry::Resume; 2]);
    assert_eq!(guest.shown(), b"AB");
    guest.vcpu.regs.rdi = HIGH + 7;
    assert!(matches!(end(&mut guest, port_out(0x1010, 4, 99)), Ok(End::Exited(0x4000_0007))));
    guest.ram.write_obj(PARAMS, &ExitParams { arg: -5 }).unwrap();
    let exit = port_out(0x540, 4, u32::try_from(PARAMS).unwrap());
    assert!(matches!(end(&mut guest, exit), Ok(End::Exited(-5))));
}

#[test]
fn a_byte_of_input_is_read_from_its_port() {
    let mut guest = Guest::new();
    guest.keyboard.as_mut().unwrap().write_all(b"\xe4").unwrap();
    assert_eq!(answers(&mut guest, &[port_in(0x1040, 4)]), [Entry::Data(0xe4)]);
    guest.keyboard = None;
    assert_eq!(answers(&mut guest, &[port_in(0x1040, 4)]), [Entry::Data(0xffff_ffff)]);
    // Reading a call's port that has nothing to give is as any unknown port.
    assert_eq!(answers(&mut guest, &[port_in(0x1020, 2)]), [Entry::Data(0xffff)]);
}

#[test]
fn a_kick_ends_the_machine_only_if_it_is_being_stopped() {
    let mut guest = Guest::new();
    assert_eq!(answers(&mut guest, &[Exit::Kicked]), [Entry::Resume]);
    guest.stop();
    assert!(matches!(end(&mut guest, Exit::Kicked), Ok(End::Stopped)));
    let mut vcpu = Scripted::new([port_in(0x60, 1); 3]);
    vcpu.kicker().kick();
    assert!(matches!(drive(&mut vcpu, &mut guest.dispatcher()).unwrap(), Ok(End::Stopped)));
}

#[test]
fn a_stopped_machine_waits_for_no_input() {
    let mut guest = Guest::new();
    guest.stop();
    assert!(matches!(end(&mut guest, port_in(0x1040, 1)), Ok(End::Stopped)));
}

#[test]
fn what_a_guest_cannot_go_on_from_is_a_crash() {
    let mut guest = Guest::new();
    let error =
        InternalError { suberror: 1, instruction: InstructionBytes::new(&[0x0f]), data: [0; 4] };
    let crashes = [
        Exit::Shutdown,
        Exit::EntryFailed { hardware_reason: 0x8000_0021 },
        Exit::InternalError(error),
        Exit::Unknown { reason: 77 },
        Exit::Halt,
        Exit::InterruptWindow,
        Exit::Debug { rip: 1, cause: nerite_vcpu::DebugCause::TRAP },
        Exit::Hypercall { number: 1, arguments: [0; 6] },
        Exit::System(SystemEvent::Crash),
        Exit::System(SystemEvent::Other(9)),
    ];
    for exit in crashes {
        assert!(matches!(end(&mut guest, exit), Ok(End::Crashed(why)) if why == exit), "{exit:?}");
    }
    for event in [SystemEvent::PowerOff, SystemEvent::Reset] {
        assert!(
            matches!(end(&mut guest, Exit::System(event)), Ok(End::System(why)) if why == event)
        );
    }
}

#[test]
fn output_that_nobody_takes_ends_the_machine() {
    let mut guest = Guest::new();
    let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
    guest.screen = other;
    let end = end(&mut guest, port_out(0x800, 1, u32::from(b'\n')));
    assert!(matches!(end, Err(Error::Output(_))), "{end:?}");
}
