use nerite_arch::Msr;
use nerite_hypervisor::scripted::{Scripted, ScriptedHypervisor};
use nerite_hypervisor::{DebugCause, InstructionBytes, PendingException};
use nerite_memory::{Backing, Region};

use super::*;

const UNKNOWN: Exit = Exit::InternalError(InternalError {
    suberror: 1,
    instruction: InstructionBytes::EMPTY,
    data: [0; 4],
});
const STEP: Exit = Exit::Debug { rip: 0, cause: DebugCause::STEP };
const WRITE: Exit = Exit::PortOut { port: 0x80, width: 1, value: 7 };
const READ: Exit = Exit::MmioRead { address: 0x30_0000, width: 8 };

fn ram() -> Arc<GuestRam> {
    Arc::new(GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default()).unwrap())
}

/// A first vCPU that fails at one instruction and then writes a port, and a second one that reads
/// MMIO in that instruction.
fn assisted(
    second: impl Fn(&mut Scripted, Entry) -> Option<Exit> + Send + Sync + Clone + 'static,
) -> Assisted {
    let mut first = Scripted::new([UNKNOWN, WRITE]);
    first.index = 1;
    first.regs.rip = 0x1000;
    first.state.xsave = vec![0; 1024];
    first.state.xsave[1000] = 9;
    first.state.events.nmis = 1;
    first.state.events.exception = Some(PendingException { vector: 6, error: None });
    first.state.msrs = vec![Msr { index: 0x277, value: 5 }];
    first.special_regs.cr4 = 1 << 17 | 1 << 5;
    let assistance = Assistance::new(ram(), 2, move || {
        let second = second.clone();
        Ok(Arc::new(ScriptedHypervisor::new(move |_| Box::new(second.clone())))
            as Arc<dyn Hypervisor>)
    });
    Assisted::new(Box::new(first), Arc::new(assistance))
}

/// Executes the instruction: reads MMIO into RAX.
fn load(vcpu: &mut Scripted, entry: Entry) -> Option<Exit> {
    if let Entry::Data(value) = entry {
        vcpu.regs.rax = value;
        vcpu.regs.rip += 4;
        vcpu.fpu.set_xmm(3, [8; 16]);
        return Some(STEP);
    }
    assert!(vcpu.guest_debug.single_step && vcpu.guest_debug.block_interrupts);
    assert_eq!((vcpu.regs.rip, vcpu.special_regs.cr4), (0x1000, 1 << 5));
    assert_eq!(vcpu.state.events, PendingEvents::default());
    Some(READ)
}

#[test]
fn an_unknown_instruction_is_executed_elsewhere() {
    let mut vcpu = assisted(load);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), READ);
    assert_eq!(vcpu.run(Entry::Data(77)).unwrap(), WRITE);
    let state = vcpu.save().unwrap();
    assert_eq!((state.regs.rax, state.regs.rip), (77, 0x1004));
    assert_eq!(Fpu::from_xsave(&state.xsave).xmm(3), [8; 16]);
    // What the second vCPU does not have, and what belongs to the first one alone.
    assert_eq!((state.special.cr4, state.xsave[1000]), (1 << 17 | 1 << 5, 9));
    assert_eq!((state.events.nmis, state.events.exception), (1, None));
    assert_eq!(state.msrs, [Msr { index: 0x277, value: 5 }]);
}

#[test]
fn a_drain_completes_the_instruction() {
    let mut vcpu = assisted(load);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), READ);
    // The scripted vCPU completes without its program.
    assert_eq!(vcpu.complete(Entry::Data(1)).unwrap(), None);
    assert_eq!(vcpu.save().unwrap().events.exception, None);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), WRITE);
}

#[test]
fn a_shutdown_in_the_instruction_is_the_guests() {
    let mut vcpu = assisted(|_, _| Some(Exit::Shutdown));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
}

#[test]
fn without_assistance_the_failure_is_the_exit() {
    let first = || Box::new(Scripted::new([UNKNOWN]));
    let none = Assistance::new(ram(), 1, || Err(Error::Lacks { capability: "assistance" }));
    let mut vcpu = Assisted::new(first(), Arc::new(none));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), UNKNOWN);
    // Instructions of AVX-512 are unknown everywhere.
    let instruction = InstructionBytes::new(&[0x66, 0x62, 0xf1, 0x7c, 0x48]);
    let evex = Exit::InternalError(InternalError { suberror: 1, instruction, data: [0; 4] });
    let mut vcpu = assisted(load);
    vcpu.inner = Box::new(Scripted::new([evex]));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), evex);
    // Code that is not in RAM: the tables are empty.
    let mut elsewhere = Scripted::new([UNKNOWN]);
    elsewhere.special_regs.cr0 = 1 << 31;
    elsewhere.special_regs.efer = 1 << 10;
    vcpu.inner = Box::new(elsewhere);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), UNKNOWN);
    // And other failures are no instructions.
    let other = Exit::InternalError(InternalError { suberror: 3, ..InternalError::default() });
    vcpu.inner = Box::new(Scripted::new([other]));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), other);
}
