use std::io::Read;
use std::os::unix::net::UnixStream;

use nerite_devices::{Console, Sink};
use nerite_hypervisor::scripted::Scripted;
use nerite_pci::Bridge;

use super::*;
use crate::load;
use crate::plan::PcPlan;
use crate::platform::Parts;
use nerite_platform::{ResetKind, StopToken};

fn machine(pci: &Bridge) -> (PcDispatcher, UnixStream) {
    let (ours, output) = UnixStream::pair().unwrap();
    let parts = Parts {
        console: Arc::new(Console::new(Sink::Fd(ours.into()))),
        serial_interrupt: nerite_pci::Event::new().unwrap(),
        rate: None,
        stop: StopToken::new().unwrap(),
        debug_exit: Some(0xf4),
        interrupts: Arc::new(|_, _| ()),
        time: Arc::new(nerite_devices::HostTime::new()),
    };
    let plan = PcPlan {
        memory: 5 << 30,
        cpus: 3,
        command_line: String::new(),
        generation: [0; 16],
        lines: Vec::new(),
    };
    let platform = Arc::new(Devices::new(&plan, parts, pci).unwrap());
    (PcDispatcher::new(platform, None), output)
}

fn out(
    dispatcher: &mut PcDispatcher,
    port: u16,
    width: u8,
    value: u32,
) -> ControlFlow<Stop, Entry> {
    dispatcher.handle(&mut Scripted::default(), &Exit::PortOut { port, width, value })
}

fn read_port(dispatcher: &mut PcDispatcher, port: u16, width: u8) -> u64 {
    match dispatcher.handle(&mut Scripted::default(), &Exit::PortIn { port, width }) {
        ControlFlow::Continue(Entry::Data(value)) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_way_to_end_is_told_apart() {
    type IsRight = fn(&End) -> bool;
    let ends: [(u16, u8, u32, IsRight); 5] = [
        (0x604, 2, 5 << 10 | 1 << 13, |end| matches!(end, End::System(SystemEvent::PowerOff))),
        (0xcf9, 1, 6, |end| matches!(end, End::Reset(ResetKind::Register))),
        (0x64, 1, 0xfe, |end| matches!(end, End::Reset(ResetKind::Keyboard))),
        (0x505, 1, 1, |end| matches!(end, End::Crashed(Exit::System(SystemEvent::Crash)))),
        (0xf4, 4, 20, |end| matches!(end, End::Exited(41))),
    ];
    for (port, width, value, expected) in ends {
        let (mut dispatcher, _output) = machine(&Bridge::new());
        match out(&mut dispatcher, port, width, value) {
            ControlFlow::Break(Ok(end)) => assert!(expected(&end), "{end:?}"),
            other => panic!("port {port:#x}: {other:?}"),
        }
    }
    let (mut dispatcher, _output) = machine(&Bridge::new());
    let crashed = dispatcher.handle(&mut Scripted::default(), &Exit::Shutdown);
    assert!(matches!(crashed, ControlFlow::Break(Ok(End::Crashed(Exit::Shutdown)))));
}

#[test]
fn hypercall_ports_are_a_pcs_here() {
    let (mut dispatcher, _output) = machine(&Bridge::new());
    // Hermit's exit calls of both interfaces.
    for port in [0x540, 0x1010] {
        assert!(matches!(out(&mut dispatcher, port, 4, 0), ControlFlow::Continue(Entry::Resume)));
    }
    assert_eq!(read_port(&mut dispatcher, 0x540, 1), 0xff);
}

#[test]
fn the_devices_of_a_pc_answer() {
    let (mut dispatcher, mut output) = machine(&load::bridge());
    for byte in *b"hello\n" {
        assert!(out(&mut dispatcher, 0x3f8, 1, byte.into()).is_continue());
    }
    let mut text = [0; 6];
    output.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello\n");
    let _ = out(&mut dispatcher, 0x510, 2, 5);
    assert_eq!(
        (read_port(&mut dispatcher, 0x511, 1), read_port(&mut dispatcher, 0x511, 1)),
        (3, 0)
    );
    let _ = out(&mut dispatcher, 0x70, 1, 0x5f);
    assert_eq!(read_port(&mut dispatcher, 0x71, 1), 2);
    let _ = out(&mut dispatcher, 0xcf8, 4, 0x8000_0008);
    assert_eq!(read_port(&mut dispatcher, 0xcfe, 2), 0x0600, "a host bridge");
    let read = Exit::MmioRead { address: 0xfef0_000a, width: 2 };
    match dispatcher.handle(&mut Scripted::default(), &read) {
        ControlFlow::Continue(Entry::Data(class)) => assert_eq!(class, 0x0600),
        other => panic!("{other:?}"),
    }
}
