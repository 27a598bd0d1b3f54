use std::ops::ControlFlow;

use nerite_hypervisor::scripted::Scripted;

use crate::{Counted, Entry, Exit, ExitKind, Handler, InstructionBytes, Vcpu, drive};

/// Answers reads with the port's number, ends at the first shutdown or kick.
struct Echo(Vec<Exit>);

impl Handler for Echo {
    type End = Exit;

    fn handle(&mut self, _vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Exit, Entry> {
        self.0.push(*exit);
        match *exit {
            Exit::PortIn { port, .. } => ControlFlow::Continue(Entry::Data(u64::from(port))),
            Exit::Shutdown | Exit::Kicked => ControlFlow::Break(*exit),
            _ => ControlFlow::Continue(Entry::Resume),
        }
    }
}

#[test]
fn answers_travel_with_the_next_entry() {
    let read = Exit::PortIn { port: 0x60, width: 1 };
    let write = Exit::PortOut { port: 0x61, width: 1, value: 7 };
    let mut vcpu = Counted::new(Box::new(Scripted::new([read, write, read])));
    let mut echo = Echo(Vec::new());
    assert_eq!(drive(&mut vcpu, &mut echo).unwrap(), Exit::Shutdown);
    assert_eq!(echo.0, [read, write, read, Exit::Shutdown]);
    let mut bare = Scripted::new([read, write, read]);
    drive(&mut bare, &mut Echo(Vec::new())).unwrap();
    assert_eq!(bare.entries, [Entry::Resume, Entry::Data(0x60), Entry::Resume, Entry::Data(0x60)]);
    assert_eq!(vcpu.counts().of(ExitKind::PortIn), 2);
    assert_eq!(vcpu.counts().total(), 4);
    assert_eq!(vcpu.counts().to_string(), "4 exits, 2 port in, 1 port out, 1 shutdown");
}

#[test]
fn kinds_are_numbered_as_listed() {
    for (position, kind) in ExitKind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, position, "{}", kind.name());
    }
}

#[test]
fn an_unanswered_read_is_all_ones() {
    assert_eq!(Entry::Resume.data(), u64::MAX);
    assert_eq!(Entry::Fault.data(), u64::MAX);
    assert_eq!(Entry::Data(5).data(), 5);
}

#[test]
fn instruction_bytes_keep_at_most_fifteen() {
    assert_eq!(InstructionBytes::default().to_string(), "not known");
    assert_eq!(InstructionBytes::new(&[0x0f, 0x0b]).to_string(), "0f 0b");
    assert_eq!(InstructionBytes::new(&[0x90; 20]).as_slice().len(), 15);
}
