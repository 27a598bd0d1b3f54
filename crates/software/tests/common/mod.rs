//! A machine in real mode.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use nerite_arch::{BootState, Regs, reset};
use nerite_hypervisor::{Hypervisor, Vcpu, VcpuStart, Vm, VmOptions};
use nerite_memory::{Backing, GuestRam, Region};
use nerite_software::Software;

/// Address of the program.
pub(crate) const CODE: u16 = 0x1000;

/// A VM whose vCPUs begin with a program.
pub(crate) struct Machine {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) vm: Box<dyn Vm>,
    hypervisor: Software,
}

impl Machine {
    pub(crate) fn new(program: &[u8]) -> Self {
        Self::on(Software::new().unwrap(), program)
    }

    pub(crate) fn on(hypervisor: Software, program: &[u8]) -> Self {
        let ram =
            GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default()).unwrap();
        ram.write(u64::from(CODE), program).unwrap();
        let ram = Arc::new(ram);
        let options = VmOptions { vcpus: 4, ..VmOptions::default() };
        let vm = hypervisor.create_vm(ram.clone(), &options).unwrap();
        Self { ram, hypervisor, vm }
    }

    pub(crate) fn vcpu(&self, index: u32) -> Box<dyn Vcpu> {
        let mut special = reset::special_regs(0xfee0_0900);
        reset::start_at(&mut special, 0);
        let regs =
            Regs { rip: u64::from(CODE), rsp: 0x7000 - 0x100 * u64::from(index), ..reset::regs() };
        let boot = BootState { regs, special, msrs: Vec::new() };
        let cpuid = self.hypervisor.supported_cpuid().unwrap();
        self.vm.create_vcpu(index, VcpuStart::At(&boot), &cpuid).unwrap()
    }
}
