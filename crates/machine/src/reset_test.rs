//! Machines on the processor in software that are put back over and over.

use std::os::unix::fs::FileExt as _;

use nerite_loader::testing::{CODE, Elf, Segment, abi_tag, interface_note};
use nerite_snapshot::Files;
use tempfile::TempDir;

use super::*;
use crate::config::{Accelerator, Config, Output};
use crate::{Machine, Outcome, Running};

/// Place of the flag that the guest waits for, and of the data that it changes: behind the code.
const FLAG: usize = 0x1000;
const DATA: usize = 0x2000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Displacement from the end of an instruction to `target`.
fn displacement(target: usize, end: usize) -> [u8; 4] {
    (i32::try_from(target).unwrap() - i32::try_from(end).unwrap()).to_le_bytes()
}

/// A guest with two vCPUs. The first prints `r`, waits for the flag, changes memory all over 128
/// KiB and ends with a number that depends on all of it. The second counts in memory until then.
fn guest() -> Vec<u8> {
    let mut code = vec![0x85, 0xf6, 0x0f, 0x85, 0, 0, 0, 0]; // test esi, esi; jnz second
    code.extend([0xbf, b'r', 0, 0, 0, 0x66, 0xba, 0x20, 0x10, 0xef]); // print
    code.extend([0x83, 0x3d]); // cmp dword [flag], 0
    code.extend(displacement(FLAG, code.len() + 5));
    code.extend([0, 0x74, 0xf7]); // je back to cmp
    code.extend([0x48, 0x8d, 0x1d]); // lea rbx, [data]
    code.extend(displacement(DATA, code.len() + 4));
    code.extend([0x31, 0xed, 0xb9]); // xor ebp, ebp; mov ecx, steps
    code.extend(2000_u32.to_le_bytes());
    code.extend([0xbe, 1, 0, 0, 0]); // mov esi, 1
    let step = code.len();
    code.extend([0x69, 0xf6]); // imul esi, esi, 1664525
    code.extend(1_664_525_u32.to_le_bytes());
    code.extend([0x81, 0xc6]); // add esi, 1013904223
    code.extend(1_013_904_223_u32.to_le_bytes());
    code.extend([0x89, 0xf0, 0xc1, 0xe8, 14, 0x25]); // mov eax, esi; shr eax, 14; and eax, 0x1fff8
    code.extend(0x1_fff8_u32.to_le_bytes());
    code.extend([0x01, 0x34, 0x03, 0x33, 0x2c, 0x03]); // add [rbx+rax], esi; xor ebp, [rbx+rax]
    code.extend([0xff, 0xc9]); // dec ecx
    let back = i8::try_from(step).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x75, back.cast_unsigned()]); // jnz step
    code.extend([0x89, 0xef, 0x66, 0xba, 0x10, 0x10, 0xef, 0xf4]); // mov edi, ebp; exit
    let second = u32::try_from(code.len() - 8).unwrap();
    code[4..8].copy_from_slice(&second.to_le_bytes());
    code.extend([0xff, 0x05]); // inc dword [data - 4]
    code.extend(displacement(DATA - 4, code.len() + 4));
    code.extend([0xeb, 0xf8]); // jmp back
    let segment = Segment { address: CODE, data: code, memory_size: 0x2_3000, flags: 7 };
    let mut elf = Elf { segments: vec![segment], ..Elf::default() };
    elf.notes.extend([interface_note(2), abi_tag([6, 0, 13, 2])]);
    elf.build()
}

/// A machine, and the guest-physical address of its code.
struct Reset {
    _folder: TempDir,
    running: Running,
    code: u64,
}

impl Reset {
    fn start(accelerator: Accelerator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, guest()).unwrap();
        let output = folder.path().join("output");
        let mut config = Config { image, accelerator, ..Config::default() };
        config.output = Output::File(output);
        config.memory.size = Some(16 << 20);
        config.cpus.count = Some(2);
        config.observe.snapshots = true;
        config.observe.hold_ends = true;
        let running = Machine::new(&config).unwrap().start().unwrap();
        let begin = Instant::now();
        // It is written at the end of a line, or when a line has waited for a while.
        let rip = || running.handle().registers(0).unwrap().0.rip;
        let mut code = rip();
        while running.handle().registers(0).unwrap().0.rdx & 0xffff != 0x1020 {
            assert!(begin.elapsed() < PATIENCE, "it does not print");
            code = rip();
        }
        code &= !0xfff;
        Self { _folder: folder, running, code }
    }

    fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// A snapshot as it is now.
    fn point(&self) -> ResetPoint {
        let [state, memory, image] = [(); 3].map(|()| tempfile::tempfile().unwrap());
        let files = Files { state, memory, image };
        self.handle().snapshot(&files).unwrap();
        let Files { state, memory, image } = files;
        ResetPoint::read(Snapshot::new(state, memory, image).unwrap(), true).unwrap()
    }

    /// Lets the guest run to its end, and gives the code.
    fn end(&self) -> i32 {
        let flag = self.code + FLAG as u64;
        self.handle().ram().write(flag, &[1]).unwrap();
        let end = self.handle().wait_for_end(PATIENCE).expect("the guest's end");
        assert!(!end.is_crash && end.vcpu == 0, "{end:?}");
        end.code.unwrap()
    }

    fn stop(self) -> Outcome {
        self.handle().stop();
        self.running.wait(None).unwrap()
    }
}

/// All of the memory in a snapshot.
fn memory(point: &ResetPoint) -> Vec<u8> {
    let file = point.saved.memory();
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The state without clocks, which go on.
fn timeless(point: &ResetPoint) -> MachineState {
    let mut state = point.state().clone();
    state.vm.clock = 0;
    state.vcpus.iter_mut().for_each(|vcpu| vcpu.tsc = 0);
    state
}

/// Puts a machine back so many times, and compares memory and state each `compared` times and at
/// last.
fn resets(accelerator: Accelerator, count: usize, compared: usize) {
    let reset = Reset::start(accelerator);
    let point = reset.point();
    let (bytes, state) = (memory(&point), timeless(&point));
    let code = reset.end();
    for index in 1..=count {
        let handle = reset.handle();
        let held = handle.pause();
        let reverted = handle.reset_to(&point).unwrap();
        if index == 1 {
            assert_eq!(reverted, Reverted::Mapped);
        } else {
            assert!(matches!(reverted, Reverted::Copied(1..200)), "{reverted:?}");
        }
        if index % compared == 0 || index == count {
            let now = reset.point();
            assert!(memory(&now) == bytes, "memory after {index} resets");
            assert_eq!(timeless(&now), state, "after {index} resets");
        }
        drop(held);
        // Each third time in the middle of something.
        if index % 3 != 0 {
            assert_eq!(reset.end(), code, "after {index} resets");
        }
    }
    assert!(matches!(reset.stop(), Outcome::Stopped | Outcome::Exited(_)));
}

#[test]
fn nothing_is_left_after_a_thousand_resets() {
    resets(Accelerator::Software, 1000, 100);
}

#[test]
#[ignore = "needs a KVM"]
fn nothing_is_left_after_resets_on_kvm() {
    resets(Accelerator::Kvm, 200, 20);
}

#[test]
fn a_machine_goes_back_to_several_points() {
    let reset = Reset::start(Accelerator::Software);
    let first = reset.point();
    let place = reset.code + 0x3000;
    reset.handle().ram().write(place, b"later").unwrap();
    let second = reset.point();
    assert!(memory(&second) != memory(&first));
    for (point, expected) in [(&first, [0; 5]), (&second, *b"later"), (&first, [0; 5])] {
        assert_eq!(reset.handle().reset_to(point).unwrap(), Reverted::Mapped);
        assert_eq!(reset.handle().ram().read_obj::<[u8; 5]>(place).unwrap(), expected);
        assert!(matches!(reset.handle().reset_to(point), Ok(Reverted::Copied(_))));
    }
    reset.stop();
}

#[test]
fn ends_that_are_held_are_the_machines_end_at_last() {
    let reset = Reset::start(Accelerator::Software);
    let code = reset.end();
    assert_eq!(reset.handle().wait_for_end(Duration::ZERO), None, "it is reported once");
    let handle = reset.handle();
    reset.stop();
    assert_eq!(handle.wait_for_end(PATIENCE), None, "nothing waits for a machine that has ended");
    assert_ne!(code, 0);
}

#[test]
fn machines_of_another_shape_are_refused_and_go_on() {
    let reset = Reset::start(Accelerator::Software);
    let mut point = reset.point();
    point.saved.state.vcpus.pop();
    let refused = reset.handle().reset_to(&point);
    assert!(matches!(refused, Err(ResetError::OtherMachine("vCPUs"))), "{refused:?}");
    reset.end();
    let mut point = reset.point();
    point.saved.state.vcpus[1].special.cr4 = 1 << 15;
    let failed = reset.handle().reset_to(&point);
    assert!(matches!(failed, Err(ResetError::Failed { .. })), "{failed:?}");
    assert!(reset.handle().is_ending(), "half of it is put back");
    reset.stop();
}
