//! Abilities of the host's KVM, found out by running a guest.
//!
//! Capabilities and CPU flags claim more than works: there are hosts whose `/dev/kvm` opens,
//! creates VMs and interprets simple integer code, but stops at the first SSE instruction. So a
//! guest of a dozen bytes runs one.

use std::arch::x86_64::__cpuid;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::paging::IdentityMap;
use nerite_arch::{BootState, cpuid, gdt};
use nerite_hypervisor::{
    DebugCaps, DebugCause, DebugControl as _, DebugPoint, Entry, Error, Exit, GuestCounter,
    GuestDebug, PointKind, Vcpu, VcpuStart, VmOptions,
};
use nerite_log_budget::Causes;
use nerite_memory::{Backing, GuestRam, Region};

use crate::{KvmVcpu, KvmVm, System};

/// Abilities of the host's KVM.
#[derive(Debug)]
pub enum HostKvm {
    /// It runs guests on the processor (or on one that does not differ for the guest).
    Hardware,
    /// It opens, but interprets guests and cannot run ordinary ones.
    Emulating {
        /// Step that failed.
        reason: String,
    },
    /// There is none that can be used.
    None {
        /// Error of opening it.
        reason: Error,
    },
}

impl fmt::Display for HostKvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware => f.write_str("hardware KVM"),
            Self::Emulating { reason } => {
                write!(f, "a KVM that only emulates, and cannot run ordinary guests ({reason})")
            }
            Self::None { reason } => write!(f, "no usable KVM: {}", Causes(reason)),
        }
    }
}

/// Time limit of the guest of a dozen instructions.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The guest's RAM: one large page at address 0.
const RAM: u64 = 2 << 20;
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const CODE: u64 = 0x10000;
/// The port by which the guest reports, and what it reports.
const PORT: u16 = 0x80;
const REPORT: u32 = 0x5a;

/// Turns SSE on, adds two vectors, and writes the sum to [`PORT`].
#[rustfmt::skip]
const PROGRAM: [u8; 42] = [
    0x0f, 0x20, 0xe0, //             mov rax, cr4
    0x66, 0x0d, 0x00, 0x06, //       or ax, 0x600          (OSFXSR, OSXMMEXCPT)
    0x0f, 0x22, 0xe0, //             mov cr4, rax
    0xb8, 0x2d, 0x00, 0x00, 0x00, // mov eax, 0x2d
    0x66, 0x0f, 0x6e, 0xc0, //       movd xmm0, eax
    0x66, 0x0f, 0xef, 0xc9, //       pxor xmm1, xmm1
    0x66, 0x0f, 0xfe, 0xc8, //       paddd xmm1, xmm0
    0x66, 0x0f, 0xfe, 0xc8, //       paddd xmm1, xmm0
    0x66, 0x0f, 0x7e, 0xc8, //       movd eax, xmm1
    0xba, 0x80, 0x00, 0x00, 0x00, // mov edx, 0x80
    0xef, //                         out dx, eax
    0xf4, //                         hlt
];

/// Finds out what the host's KVM is good for, by running a guest. Takes a few milliseconds.
pub fn host() -> HostKvm {
    match System::open() {
        Ok(system) => try_guest(&system),
        Err(reason) => HostKvm::None { reason: reason.into() },
    }
}

/// Returns `true` if the processor reports that it can run guests (CPUID: VMX in leaf 1, Intel SDM
/// vol. 3, 24.6; SVM in leaf 0x80000001, AMD APM vol. 2, 15.4). Without it, KVM can only interpret
/// them. With it, that can still be so: see [`host`].
pub fn processor_virtualizes() -> bool {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    __cpuid(1).ecx & VMX != 0
        || (__cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & SVM != 0)
}

/// The same for a KVM that is open already, so that nothing has to be opened.
pub fn try_guest(system: &System) -> HostKvm {
    match set_up(system, &PROGRAM).and_then(run) {
        Ok(None) => HostKvm::Hardware,
        Ok(Some(reason)) => HostKvm::Emulating { reason },
        Err(reason) => HostKvm::None { reason },
    }
}

pub(crate) fn set_up(system: &System, program: &[u8]) -> Result<KvmVcpu, Error> {
    let bad = |error: &dyn fmt::Display| Error::Call {
        operation: "preparing the probe's memory",
        source: std::io::Error::other(error.to_string()),
    };
    let region = Region { start: 0, size: RAM };
    let ram = GuestRam::new(&[region], &Backing::default()).map_err(|error| bad(&error))?;
    let map =
        IdentityMap { pml4: PML4, tables_start: TABLES, tables_end: CODE, start: 0, end: RAM };
    for table in map.tables().map_err(|error| bad(&error))? {
        ram.write(table.addr, table.bytes.as_slice()).map_err(|error| bad(&error))?;
    }
    ram.write(GDT, &gdt::bytes()).map_err(|error| bad(&error))?;
    ram.write(CODE, program).map_err(|error| bad(&error))?;

    let addresses = BootAddresses { entry: CODE, boot_info: 0, stack: CODE, pml4: PML4, gdt: GDT };
    let state = BootState { msrs: Vec::new(), ..BootState::hermit(0, &addresses) };
    let vm = KvmVm::new(system, Arc::new(ram), &VmOptions::default())?;
    let one = cpuid::Guest {
        vcpu_index: 0,
        vcpu_count: 1,
        tsc_deadline: system.has_tsc_deadline_timer(),
    };
    vm.vcpu(0, VcpuStart::At(&state), &cpuid::for_guest(&system.supported_cpuid()?, &one))
}

/// Writes memory at RSI, stops at `int3`, and writes a port.
const STOPS: [u8; 6] = [
    0x89, 0x06, // mov [rsi], eax
    0xcc, //       int3
    0xe6, 0x80, // out 0x80, al
    0xf4, //       hlt
];
/// The same without `int3`.
const WATCHED: [u8; 6] = [0x89, 0x06, 0x90, 0xe6, 0x80, 0xf4];

/// Finds out what the host's KVM can do for a debugger, by running guests. What fails cannot be
/// done.
pub fn debugging(system: &System) -> DebugCaps {
    let first_exit = |program: &[u8], debug: GuestDebug| {
        let mut vcpu = set_up(system, program).ok()?;
        vcpu.set_guest_debug(&debug).ok()?;
        Some((under_watchdog(&mut vcpu).ok()?, vcpu))
    };
    let software = GuestDebug { software: true, ..GuestDebug::default() };
    let software = first_exit(&STOPS, software)
        .is_some_and(|(exit, _)| matches!(exit, Exit::Debug { cause: DebugCause::Breakpoint, .. }));
    // A write of the four bytes at 0, where RSI is; and the execution of the nop after it.
    let write = DebugPoint { address: 0, kind: PointKind::Write { length: 4 } };
    let execute = DebugPoint { address: CODE.wrapping_add(2), kind: PointKind::Execute };
    let points = [Some(write), Some(execute), None, None];
    let hardware = first_exit(&WATCHED, GuestDebug { trap: true, points, ..GuestDebug::default() });
    let is_hit = |exit: &Exit, point: u8| matches!(exit, Exit::Debug { cause: DebugCause::Trap { points, .. }, .. } if points & point != 0);
    let hardware = hardware.is_some_and(|(exit, mut vcpu)| {
        is_hit(&exit, 1) && under_watchdog(&mut vcpu).is_ok_and(|exit| is_hit(&exit, 2))
    });
    DebugCaps { software, hardware }
}

/// 5000 rounds of two instructions, and two more, before it writes a port.
const ROUNDS: [u8; 12] = [
    0xb9, 0x88, 0x13, 0x00, 0x00, // mov ecx, 5000
    0xff, 0xc9, //                   dec ecx
    0x75, 0xfc, //                   jnz -4
    0xe6, 0x80, //                   out 0x80, al
    0xf4, //                         hlt
];
/// Number of these instructions that the processor completes. The last may be counted or not, and
/// so may entries and exits.
const EXECUTED: std::ops::RangeInclusive<u64> = 10_000..=10_100;

/// `true` if a counter of instructions, opened by this thread, counts those of guests: it runs one
/// of a known number.
pub fn counts_instructions(system: &System, counter: &dyn GuestCounter) -> bool {
    let count = || {
        let mut vcpu = set_up(system, &ROUNDS).ok()?;
        let before = counter.read().ok()?;
        under_watchdog(&mut vcpu).ok()?;
        Some(counter.read().ok()?.wrapping_sub(before))
    };
    count().is_some_and(|counted| EXECUTED.contains(&counted))
}

/// Runs the guest under a watchdog; says what it could not do, if anything.
fn run(mut vcpu: KvmVcpu) -> Result<Option<String>, Error> {
    Ok(match under_watchdog(&mut vcpu)? {
        Exit::PortOut { port: PORT, value: REPORT, .. } => None,
        Exit::InternalError(error) => Some(format!(
            "SSE in the guest ends with internal error {}, instruction {}",
            error.suberror, error.instruction
        )),
        Exit::Kicked => {
            Some(format!("a guest of a dozen instructions did not end in {TIME_LIMIT:?}"))
        }
        other => Some(format!("SSE in the guest ends with {other:?}")),
    })
}

/// Runs a guest to its next exit, or the time limit.
fn under_watchdog(vcpu: &mut KvmVcpu) -> Result<Exit, Error> {
    let kicker = vcpu.kicker();
    let (done, wait) = channel::<()>();
    let watchdog = thread::spawn(move || {
        if wait.recv_timeout(TIME_LIMIT) == Err(RecvTimeoutError::Timeout) {
            kicker.kick();
        }
    });
    let exit = vcpu.run(Entry::Resume);
    drop(done);
    // It only sleeps and kicks, and cannot have panicked.
    let _ = watchdog.join();
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_says_something_definite() {
        let host = host();
        let text = host.to_string();
        match host {
            HostKvm::Hardware => assert_eq!(text, "hardware KVM"),
            HostKvm::Emulating { reason } => assert!(text.contains(&reason), "{text}"),
            HostKvm::None { reason } => assert!(text.contains(&reason.to_string()), "{text}"),
        }
    }
}
