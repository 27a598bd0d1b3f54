//! Runs a guest of a few instructions on KVM and prints each exit: `cargo run -p nerite-kvm
//! --example guest`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::sync::Arc;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::paging::IdentityMap;
use nerite_arch::{BootState, cpuid, gdt};
use nerite_hypervisor::{Entry, Exit, Vcpu, VcpuStart, VmOptions};
use nerite_kvm::{KvmVcpu, KvmVm, System};
use nerite_memory::{Backing, GuestRam, Region};

/// RAM is one large page; the next one is mapped as well, and nothing is there.
const RAM: u64 = 2 << 20;
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const CODE: u64 = 0x10000;
/// More exits than this guest has.
const MAX_EXITS: usize = 16;

#[rustfmt::skip]
const PROGRAM: [u8; 35] = [
    0xba, 0x80, 0x00, 0x00, 0x00, //                   mov edx, 0x80
    0xb0, 0x48, //                                     mov al, 'H'
    0xee, //                                           out dx, al
    0xed, //                                           in eax, dx
    0x83, 0xc0, 0x01, //                               add eax, 1
    0xef, //                                           out dx, eax
    0x89, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, //       mov [0x200000], eax
    0x48, 0x8b, 0x1c, 0x25, 0x08, 0x00, 0x20, 0x00, // mov rbx, [0x200008]
    0x89, 0xd8, //                                     mov eax, ebx
    0xef, //                                           out dx, eax
    0x0f, 0x0b, //                                     ud2, and there is no exception handler
    0xeb, 0xfe, //                                     jmp $
];

fn main() -> Result<(), Box<dyn Error>> {
    let system = match System::open() {
        Ok(system) => system,
        Err(error) => {
            println!("There is no KVM to run a guest on: {error}");
            return Ok(());
        }
    };
    let mut vcpu = set_up(&system)?;
    let mut entry = Entry::Resume;
    for _ in 0..MAX_EXITS {
        let exit = vcpu.run(entry)?;
        println!("{exit:x?}");
        entry = match exit {
            Exit::PortIn { .. } => Entry::Data(0x29),
            Exit::MmioRead { .. } => Entry::Data(0x5678_1234),
            Exit::PortOut { .. } | Exit::MmioWrite { .. } => Entry::Resume,
            _ => {
                println!(
                    "That is its end. The registers (on AMD, those after a reset):\n{}",
                    vcpu.regs()?
                );
                return Ok(());
            }
        };
    }
    Err("the guest went on for longer than it can".into())
}

/// A VM whose only vCPU is at the program's first instruction, in long mode.
fn set_up(system: &System) -> Result<KvmVcpu, Box<dyn Error>> {
    let ram = GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default())?;
    let map =
        IdentityMap { pml4: PML4, tables_start: TABLES, tables_end: CODE, start: 0, end: 2 * RAM };
    for table in map.tables()? {
        ram.write(table.addr, table.bytes.as_slice())?;
    }
    ram.write(GDT, &gdt::bytes())?;
    ram.write(CODE, &PROGRAM)?;

    let addresses = BootAddresses { entry: CODE, boot_info: 0, stack: CODE, pml4: PML4, gdt: GDT };
    let state = BootState::hermit(0, &addresses);
    let one = cpuid::Guest {
        vcpu_index: 0,
        vcpu_count: 1,
        tsc_deadline: system.has_tsc_deadline_timer(),
    };
    let cpuid = cpuid::for_guest(&system.supported_cpuid()?, &one);
    let vm = KvmVm::new(system, Arc::new(ram), &VmOptions::default())?;
    Ok(vm.vcpu(0, VcpuStart::At(&state), &cpuid)?)
}
