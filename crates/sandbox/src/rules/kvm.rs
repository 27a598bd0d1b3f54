//! KVM's call numbers (KVM API, 4), with their names for tests and messages, `KVM_` left out; and
//! the system calls that only guests on KVM need.

use super::features::Features;
use super::rule::{Condition, Kind, Rule, when};

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
pub(crate) const SET_SIGNAL_MASK: u32 = iow(0x8b, 4);
pub(crate) const SET_CPUID2: u32 = iow(0x90, 8);
pub(crate) const GET_MP_STATE: u32 = ior(0x98, 4);
pub(crate) const SET_MP_STATE: u32 = iow(0x99, 4);
pub(crate) const NMI: u32 = io(0x9a);
pub(crate) const SET_GUEST_DEBUG: u32 = iow(0x9b, 72);
pub(crate) const GET_TSC_KHZ: u32 = io(0xa3);
pub(crate) const GET_XSAVE: u32 = ior(0xa4, 4096);
pub(crate) const SET_XSAVE: u32 = iow(0xa5, 4096);
pub(crate) const GET_MSR_INDEX_LIST: u32 = iowr(0x02, 4);
pub(crate) const GET_MSRS: u32 = iowr(0x88, 8);
pub(crate) const GET_LAPIC: u32 = ior(0x8e, 1024);
pub(crate) const GET_VCPU_EVENTS: u32 = ior(0x9f, 64);
pub(crate) const SET_VCPU_EVENTS: u32 = iow(0xa0, 64);
pub(crate) const GET_DEBUGREGS: u32 = ior(0xa1, 128);
pub(crate) const SET_DEBUGREGS: u32 = iow(0xa2, 128);
pub(crate) const GET_XCRS: u32 = ior(0xa6, 392);
pub(crate) const SET_XCRS: u32 = iow(0xa7, 392);
pub(crate) const GET_XSAVE2: u32 = ior(0xcf, 4096);
pub(crate) const SIGNAL_MSI: u32 = iow(0xa5, 32);
pub(crate) const GET_STATS_FD: u32 = io(0xce);
pub(crate) const ENABLE_CAP: u32 = iow(0xa3, 104);
pub(crate) const GET_IRQCHIP: u32 = iowr(0x62, 520);
pub(crate) const SET_IRQCHIP: u32 = ior(0x63, 520);
pub(crate) const SET_CLOCK: u32 = iow(0x7b, 48);
pub(crate) const GET_CLOCK: u32 = ior(0x7c, 48);
pub(crate) const SET_LAPIC: u32 = iow(0x8f, 1024);
pub(crate) const GET_PIT2: u32 = ior(0x9f, 112);
pub(crate) const SET_PIT2: u32 = iow(0xa0, 112);
pub(crate) const SET_TSC_KHZ: u32 = io(0xa2);
pub(crate) const KVMCLOCK_CTRL: u32 = io(0xad);

/// Additional calls of a thread of this kind if the guest runs on KVM, the one that a vCPU's
/// thread makes all the time first: filters are run from the beginning.
pub(super) fn rules(kind: Kind, features: Features) -> Vec<Rule> {
    let runs = matches!(kind, Kind::Main | Kind::Vcpu);
    let main = kind == Kind::Main;
    let saves = features.control && matches!(kind, Kind::Main | Kind::Control)
        || features.naming && kind == Kind::Main;
    let rules = [
        (runs, RUNNING),
        (features.control && matches!(kind, Kind::Main | Kind::Control), INTERRUPTING),
        (features.switch, INTERRUPTING),
        (features.switch && matches!(kind, Kind::Vcpu | Kind::Control), RESTORING),
        (features.switch && runs, STARTING),
        (features.switch && runs, DEBUGGED),
        // A snapshot pauses the devices: their interrupts and queues are taken apart and connected
        // again.
        (features.network && (runs || saves), VHOST),
        ((features.network || features.devices) && (runs || saves), WIRES),
        (features.debug && runs, DEBUGGED),
        (features.debug && main, COUNTER),
        (saves, SAVING),
        (main, BUILDING),
        (main, RESTORING),
    ];
    rules.into_iter().filter(|(wanted, _)| *wanted).map(|(_, rule)| rule).collect()
}

/// Calls of a vCPU's thread.
const RUNNING: Rule = when(
    libc::SYS_ioctl,
    &[Condition::OneOf(
        1,
        &[
            RUN,
            GET_MP_STATE,
            NMI,
            INTERRUPT,
            GET_REGS,
            SET_REGS,
            GET_SREGS,
            SET_SREGS,
            // The ports of a test kernel that are interrupt lines.
            IRQ_LINE,
            // State that an instruction is executed with in software, and what it changes.
            CHECK_EXTENSION,
            GET_MSR_INDEX_LIST,
            GET_XSAVE,
            GET_XSAVE2,
            SET_XSAVE,
            GET_XCRS,
            SET_XCRS,
            GET_DEBUGREGS,
            SET_DEBUGREGS,
            GET_LAPIC,
            SET_SIGNAL_MASK,
            GET_MSRS,
            SET_MSRS,
            GET_TSC_KHZ,
            GET_VCPU_EVENTS,
            SET_VCPU_EVENTS,
        ],
    )],
);

/// Interrupts from outside.
const INTERRUPTING: Rule = when(libc::SYS_ioctl, &[Condition::OneOf(1, &[IRQ_LINE, SIGNAL_MSI])]);

/// Calls of a debugger on a vCPU, made by the vCPU's thread.
const DEBUGGED: Rule = when(libc::SYS_ioctl, &[Condition::OneOf(1, &[SET_GUEST_DEBUG])]);

/// Calls for the state of the chips that vCPUs share.
const SAVING: Rule =
    when(libc::SYS_ioctl, &[Condition::OneOf(1, &[GET_IRQCHIP, GET_PIT2, GET_CLOCK])]);

/// Sets a vCPU running, halted or waiting for a start message.
const STARTING: Rule = when(libc::SYS_ioctl, &[Condition::OneOf(1, &[SET_MP_STATE])]);

/// Calls that give a VM a saved state, besides those of a vCPU's thread.
const RESTORING: Rule = when(
    libc::SYS_ioctl,
    &[Condition::OneOf(
        1,
        &[
            SET_IRQCHIP,
            GET_IRQCHIP,
            SET_PIT2,
            GET_PIT2,
            SET_CLOCK,
            GET_CLOCK,
            SET_LAPIC,
            SET_TSC_KHZ,
            KVMCLOCK_CTRL,
        ],
    )],
);

/// Which thread gets the signals of a counter: its own, before it has the filter of a vCPU.
const COUNTER: Rule = when(libc::SYS_fcntl, &[Condition::OneOf(1, &[F_SETOWN_EX])]);
/// `<fcntl.h>`.
const F_SETOWN_EX: u32 = 15;

/// Queues and interrupts of devices are connected by the vCPU thread of the guest's driver.
const WIRES: Rule =
    when(libc::SYS_ioctl, &[Condition::OneOf(1, &[IRQFD, IOEVENTFD, SET_GSI_ROUTING])]);

/// The host's kernel as a network card, which can notify guests on KVM alone.
const VHOST: Rule = when(
    libc::SYS_ioctl,
    &[Condition::OneOf(
        1,
        &[
            // VHOST_GET_FEATURES, _SET_FEATURES, _SET_MEM_TABLE, _SET_VRING_NUM, _ADDR, _BASE,
            // _GET_VRING_BASE, _SET_VRING_KICK, _CALL, _ERR and VHOST_NET_SET_BACKEND of
            // `<linux/vhost.h>`.
            0x8008_af00,
            0x4008_af00,
            0x4008_af03,
            0x4008_af10,
            0x4028_af11,
            0x4008_af12,
            0xc008_af12,
            0x4008_af20,
            0x4008_af21,
            0x4008_af22,
            0x4008_af30,
        ],
    )],
);

/// Creating the VM.
const BUILDING: Rule = when(
    libc::SYS_ioctl,
    &[Condition::OneOf(
        1,
        &[
            CREATE_VM,
            GET_VCPU_MMAP_SIZE,
            GET_SUPPORTED_CPUID,
            CREATE_VCPU,
            SET_USER_MEMORY_REGION,
            SET_TSS_ADDR,
            CREATE_IRQCHIP,
            CREATE_PIT2,
            REGISTER_COALESCED_MMIO,
            SET_CPUID2,
            SET_MP_STATE,
            ENABLE_CAP,
            GET_STATS_FD,
            IRQFD,
        ],
    )],
);
