//! The program of the README: runs ten bytes on KVM, prints what they write, and ends with them:
//! `cargo run -p nerite-kvm --example ten_bytes`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use nerite_arch::{BootState, Regs, reset};
use nerite_hypervisor::{Entry, Exit, Irqchip, Vcpu, VcpuStart, VmOptions};
use nerite_kvm::{KvmVm, System};
use nerite_memory::{Backing, GuestRam, Region};

/// mov dx, 0x3f8; mov al, '!'; out dx, al; mov al, '\n'; out dx, al; hlt
const CODE: [u8; 10] = [0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xb0, b'\n', 0xee, 0xf4];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = Arc::new(GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default())?);
    ram.write(0x1000, &CODE)?;

    let system = match System::open() {
        Ok(system) => system,
        Err(error) => {
            println!("There is no KVM to run a guest on: {error}");
            return Ok(());
        }
    };
    // Without interrupt controllers in the kernel, a halt is an exit.
    let options = VmOptions { irqchip: Irqchip::User, real_mode: true, ..VmOptions::default() };
    let vm = KvmVm::new(&system, ram, &options)?;
    // As after a start message: in real mode, at page 1.
    let mut special = reset::special_regs(0xfee0_0900);
    reset::start_at(&mut special, 1);
    let boot = BootState { regs: Regs { rip: 0, ..reset::regs() }, special, msrs: Vec::new() };
    let mut vcpu = vm.vcpu(0, VcpuStart::At(&boot), &system.supported_cpuid()?)?;

    loop {
        match vcpu.run(Entry::Resume)? {
            Exit::PortOut { port: 0x3f8, value, .. } => {
                print!("{}", char::from(value.to_le_bytes()[0]))
            }
            Exit::Halt => return Ok(()),
            other => return Err(format!("unexpected exit: {other:?}").into()),
        }
    }
}
