//! KVM's call numbers (KVM API, 4), with their names for tests and messages. `KVM_` is left out.

/// `_IO`, `_IOW`, `_IOR` and `_IOWR` of `<asm-generic/ioctl.h>` for KVM's calls.
const fn io(number: u32) -> u32 {
    0xae00 | number
}
const fn iow(number: u32, size: u32) -> u32 {
    1 << 30 | size << 16 | io(number)
}
const fn ior(number: u32, size: u32) -> u32 {
    2 << 30 | size << 16 | io(number)
}
const fn iowr(number: u32, size: u32) -> u32 {
    3 << 30 | size << 16 | io(number)
}

pub(crate) const CREATE_VM: u32 = io(0x01);
pub(crate) const CHECK_EXTENSION: u32 = io(0x03);
pub(crate) const GET_VCPU_MMAP_SIZE: u32 = io(0x04);
pub(crate) const GET_SUPPORTED_CPUID: u32 = iowr(0x05, 8);
pub(crate) const CREATE_VCPU: u32 = io(0x41);
pub(crate) const SET_USER_MEMORY_REGION: u32 = iow(0x46, 32);
pub(crate) const SET_TSS_ADDR: u32 = io(0x47);
pub(crate) const CREATE_IRQCHIP: u32 = io(0x60);
pub(crate) const IRQ_LINE: u32 = iow(0x61, 8);
pub(crate) const REGISTER_COALESCED_MMIO: u32 = iow(0x67, 16);
pub(crate) const SET_GSI_ROUTING: u32 = iow(0x6a, 8);
pub(crate) const IRQFD: u32 = iow(0x76, 32);
pub(crate) const IOEVENTFD: u32 = iow(0x79, 64);
pub(crate) const CREATE_PIT2: u32 = iow(0x77, 64);
pub(crate) const RUN: u32 = io(0x80);
pub(crate) const GET_REGS: u32 = ior(0x81, 144);
pub(crate) const SET_REGS: u32 = iow(0x82, 144);
pub(crate) const GET_SREGS: u32 = ior(0x83, 312);
pub(crate) const SET_SREGS: u32 = iow(0x84, 312);
pub(crate) const INTERRUPT: u32 = iow(0x86, 4);
pub(crate) const SET_MSRS: u32 = iow(0x89, 8);
pub(crate) const SET_CPUID2: u32 = iow(0x90, 8);
pub(crate) const GET_MP_STATE: u32 = ior(0x98, 4);
pub(crate) const SET_MP_STATE: u32 = iow(0x99, 4);
pub(crate) const NMI: u32 = io(0x9a);
pub(crate) const SET_GUEST_DEBUG: u32 = iow(0x9b, 72);
pub(crate) const GET_TSC_KHZ: u32 = io(0xa3);
pub(crate) const GET_XSAVE: u32 = ior(0xa4, 4096);
pub(crate) const SET_XSAVE: u32 = iow(0xa5, 4096);
pub(crate) const SIGNAL_MSI: u32 = iow(0xa5, 32);
pub(crate) const GET_STATS_FD: u32 = io(0xce);
pub(crate) const ENABLE_CAP: u32 = iow(0xa3, 104);
