//! Exits: devices, ports, registers that the processor does not have, budgets, kicks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use nerite_arch::Msr;
use nerite_memory::Pages;
use nerite_x86::{Config, Cpu, Entry, Exit, Kicker, Platform, supported_cpuid};

use crate::machine::{CODE, DATA, Level, Machine, PD};

/// Linear address of a device: guest-physical 0x4000_0000.
const DEVICE: u64 = 0x20_0000;

fn machine(code: &[u8]) -> Machine {
    let mut machine = Machine::at(Level::Kernel, code);
    machine.put(PD + 8, &0x4000_0083_u64.to_le_bytes());
    machine.set(|regs| {
        regs.rbx = DEVICE;
        regs.rdi = DATA;
        regs.rsi = DEVICE;
    });
    machine
}

#[test]
fn ports_are_read_and_written() {
    // in eax, dx; out 0x80, al; hlt
    let mut machine = machine(&[0xed, 0xe6, 0x80, 0xf4]);
    machine.set(|regs| regs.rdx = 0xcf8);
    assert_eq!(machine.run(10), Exit::PortIn { port: 0xcf8, width: 4 });
    assert!(machine.cpu.has_pending_access() && machine.cpu.regs().rip == CODE);
    let exit = machine.cpu.run(Entry::Data(0x1_2345_6789), 10);
    assert_eq!(exit, Exit::PortOut { port: 0x80, width: 1, value: 0x89 });
    assert_eq!(machine.cpu.regs().rax, 0x2345_6789);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!(machine.cpu.instructions(), 3);
}

#[test]
fn a_device_is_changed_by_a_read_and_a_write() {
    // add dword [rbx+4], 5; hlt
    let mut machine = machine(&[0x83, 0x43, 0x04, 0x05, 0xf4]);
    assert_eq!(machine.run(10), Exit::MmioRead { address: 0x4000_0004, width: 4 });
    let exit = machine.cpu.run(Entry::Data(37), 10);
    assert_eq!(exit, Exit::MmioWrite { address: 0x4000_0004, width: 4, value: 42 });
    assert_eq!(machine.run(10), Exit::Halt);
}

#[test]
fn a_string_is_read_from_a_device_element_by_element() {
    // rep movsd; hlt
    let mut machine = machine(&[0xf3, 0xa5, 0xf4]);
    machine.set(|regs| regs.rcx = 3);
    let mut exit = machine.run(10);
    for index in 0..3_u64 {
        assert_eq!(exit, Exit::MmioRead { address: 0x4000_0000 + index * 4, width: 4 });
        assert_eq!(machine.cpu.regs().rcx, 3 - index);
        exit = machine.cpu.run(Entry::Data(index + 1), 10);
    }
    assert_eq!(exit, Exit::Halt);
    assert_eq!((machine.get(DATA), machine.get(DATA + 8)), (0x2_0000_0001, 3));
}

#[test]
fn wide_accesses_are_cut_into_eight_bytes() {
    // movups xmm0, [rbx]; movups [rbx+2], xmm0; hlt
    let mut machine = machine(&[0x0f, 0x10, 0x03, 0x0f, 0x11, 0x43, 0x02, 0xf4]);
    assert_eq!(machine.run(10), Exit::MmioRead { address: 0x4000_0000, width: 8 });
    assert_eq!(
        machine.cpu.run(Entry::Data(1), 10),
        Exit::MmioRead { address: 0x4000_0008, width: 8 }
    );
    let exit = machine.cpu.run(Entry::Data(2), 10);
    assert_eq!(exit, Exit::MmioWrite { address: 0x4000_0002, width: 8, value: 1 });
    assert_eq!(machine.run(10), Exit::MmioWrite { address: 0x4000_000a, width: 8, value: 2 });
    assert_eq!(machine.run(10), Exit::Halt);
}

#[test]
fn unknown_registers_are_the_callers() {
    // rdmsr; wrmsr; hlt
    let mut machine = machine(&[0x0f, 0x32, 0x0f, 0x30, 0xf4]);
    machine.set(|regs| regs.rcx = 0x800);
    assert_eq!(machine.run(10), Exit::MsrRead { index: 0x800 });
    let exit = machine.cpu.run(Entry::Data(0x1_0000_0002), 10);
    assert_eq!(exit, Exit::MsrWrite { index: 0x800, value: 0x1_0000_0002 });
    assert_eq!(machine.cpu.run(Entry::Fault, 10), Exit::Halt);
    assert_eq!(machine.handler(), Some(13));
}

#[test]
fn known_registers_are_kept() {
    let mut machine = machine(&[0x0f, 0x30, 0x0f, 0x32, 0xf4]);
    machine.set(|regs| {
        regs.rcx = 0xc000_0082;
        regs.rax = 0x8000_1234;
        regs.rdx = 0xffff_ffff;
    });
    assert_eq!(machine.run_to_halt(), None);
    let lstar = Msr { index: 0xc000_0082, value: 0xffff_ffff_8000_1234 };
    assert!(machine.cpu.msrs().contains(&lstar));
    assert!(!machine.cpu.set_msr(Msr { index: 0xc000_0082, value: 1 << 60 }));
    assert!(!machine.cpu.set_msr(Msr { index: 0x1234, value: 0 }));
    assert_eq!(machine.cpu.msr(0x1234), None);
}

#[test]
fn budgets_are_exact() {
    // l: inc rax; inc rax; inc rax; jmp l
    let mut machine = machine(&[0x48, 0xff, 0xc0, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc0, 0xeb, 0xf5]);
    let mut total = 0;
    for budget in [0, 1, 2, 3, 5, 8, 13, 1000, 1] {
        assert_eq!(machine.run(budget), Exit::Budget);
        total += budget;
        assert_eq!(machine.cpu.instructions(), total);
        assert_eq!(machine.cpu.regs().rax, total - total / 4, "after {total}");
    }
}

#[test]
fn a_kick_ends_one_run() {
    let mut machine = machine(&[0xeb, 0xfe]);
    machine.cpu.kicker().kick();
    assert_eq!(machine.run(1000), Exit::Kicked);
    assert_eq!(machine.run(1000), Exit::Budget);
    let kicker = machine.cpu.kicker();
    std::thread::scope(|scope| {
        scope.spawn(move || kicker.kick());
        assert_eq!(machine.run(u64::MAX), Exit::Kicked);
    });
}

/// A platform on which the processor is kicked while it executes RDTSC.
struct KickedByRdtsc(Arc<OnceLock<Kicker>>);

impl Platform for KickedByRdtsc {
    fn tsc(&mut self, instructions: u64) -> u64 {
        self.0.get().inspect(|kicker| kicker.kick());
        instructions
    }

    fn random(&mut self) -> u64 {
        0
    }
}

#[test]
fn a_kick_does_not_hide_the_end_of_a_step() {
    // rdtsc; inc rbx; hlt
    let mut machine = machine(&[0x0f, 0x31, 0x48, 0xff, 0xc3, 0xf4]);
    let kicker = Arc::new(OnceLock::new());
    machine.cpu = Cpu::new(Config {
        memory: Box::new(Pages::new(&machine.ram)),
        platform: Box::new(KickedByRdtsc(kicker.clone())),
        code: machine.code.clone(),
        cpuid: supported_cpuid(),
    });
    machine.long_mode(Level::Kernel);
    assert!(kicker.set(machine.cpu.kicker()).is_ok());
    assert_eq!(machine.run(1), Exit::Budget);
    assert_eq!((machine.cpu.instructions(), machine.cpu.regs().rip), (1, CODE + 2));
    assert_eq!(machine.run(1), Exit::Kicked);
    assert_eq!(machine.cpu.instructions(), 1);
    assert_eq!(machine.run(1), Exit::Budget);
    assert_eq!(machine.cpu.regs().rbx, 1);
}

/// A platform that counts PAUSE instructions.
struct Pauses(Arc<AtomicU32>);

impl Platform for Pauses {
    fn tsc(&mut self, instructions: u64) -> u64 {
        instructions
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn pause(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_pause_is_reported_to_the_platform() {
    // l: pause; loop l; nop; hlt
    let mut machine = machine(&[0xf3, 0x90, 0xe2, 0xfc, 0x90, 0xf4]);
    let pauses = Arc::default();
    machine.cpu = Cpu::new(Config {
        memory: Box::new(Pages::new(&machine.ram)),
        platform: Box::new(Pauses(Arc::clone(&pauses))),
        code: machine.code.clone(),
        cpuid: supported_cpuid(),
    });
    machine.long_mode(Level::Kernel);
    machine.set(|regs| regs.rcx = 5);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(pauses.load(Ordering::Relaxed), 5);
}

#[test]
fn a_string_instruction_of_any_length_is_interrupted() {
    // rep lodsb, with nearly endless count over the same mapping.
    let mut machine = machine(&[0xf3, 0xac, 0xf4]);
    machine.set(|regs| {
        regs.rcx = u64::MAX;
        regs.rsi = DATA;
    });
    let kicker = machine.cpu.kicker();
    kicker.kick();
    assert_eq!(machine.run(10), Exit::Kicked);
    assert_eq!(machine.cpu.regs().rip, CODE);
}

#[test]
fn lowering_the_priority_is_reported() {
    // mov cr8, rax; mov cr8, rcx; hlt
    let mut machine = machine(&[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x22, 0xc1, 0xf4]);
    machine.set(|regs| (regs.rax, regs.rcx) = (9, 3));
    assert_eq!(machine.run(10), Exit::PriorityLowered);
    assert_eq!((machine.cpu.special_regs().cr8, machine.cpu.regs().rip), (3, CODE + 8));
    assert_eq!(machine.run(10), Exit::Halt);
}

#[test]
fn cpuid_shows_what_can_be_enabled() {
    // cpuid; hlt
    let mut machine = machine(&[0x0f, 0xa2, 0xf4]);
    machine.set(|regs| regs.rax = 1);
    assert_eq!(machine.run_to_halt(), None);
    let ecx = machine.cpu.regs().rcx;
    assert_eq!(
        (ecx >> 26 & 1, ecx >> 27 & 1, ecx >> 3 & 1),
        (1, 1, 0),
        "XSAVE, OSXSAVE, no MONITOR"
    );
    // mov cr4, rax
    let mut machine = self::machine(&[0x0f, 0x22, 0xe0, 0xf4]);
    machine.set(|regs| regs.rax = 0x20 | 1 << 12);
    assert_eq!(machine.run_to_halt(), Some(13), "there are no tables of five levels");
}

#[test]
fn the_time_stamp_counter_is_restored_with_its_adjustment() {
    // wrmsr; rdtsc; hlt
    let mut machine = machine(&[0x0f, 0x30, 0x0f, 0x31, 0xf4]);
    machine.set(|regs| (regs.rcx, regs.rax, regs.rdx) = (0x10, 1000, 0));
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 1001, "an instruction is a cycle");
    assert_eq!(machine.cpu.msr(0x3b), Some(1000));
    let (tsc, msrs) = (machine.cpu.tsc(), machine.cpu.msrs());
    let mut other = Machine::processor(&machine.ram, &machine.code);
    for msr in msrs {
        assert!(other.set_msr(msr), "{msr:x?}");
    }
    assert_eq!((other.tsc(), other.msr(0x3b)), (tsc, Some(1000)));
}
