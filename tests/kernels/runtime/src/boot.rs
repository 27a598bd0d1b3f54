//! The machine's description from the VMM: boot info, device tree, arguments and environment.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering};

use fdt::Fdt;
use hermit_entry::boot_info::{BootInfo, PlatformInfo, RawBootInfo};
use nerite_hypercall::v1;

static INFO: AtomicPtr<BootInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Keeps the boot info; called once, by processor 0.
pub(crate) fn init(raw: RawBootInfo) {
    INFO.store(Box::into_raw(Box::new(raw.into())), Ordering::Release);
}

/// The boot info.
///
/// # Panics
/// Never: it is set before `main`.
#[must_use]
pub fn info() -> &'static BootInfo {
    // SAFETY: null or a leaked box, set once.
    unsafe { INFO.load(Ordering::Acquire).as_ref() }.expect("the boot info is set at entry")
}

/// The device tree.
///
/// # Panics
/// If there is none, or it is malformed.
#[must_use]
pub fn fdt() -> Fdt<'static> {
    let address = info().hardware_info.device_tree.expect("the boot info has a device tree").get();
    // SAFETY: the VMM says that a device tree is there; it is mapped, and nothing writes to it.
    unsafe { Fdt::from_ptr(core::ptr::with_exposed_provenance(address as usize)) }
        .expect("the device tree is well-formed")
}

/// Number of processors, as the boot info says.
#[must_use]
pub fn cpus() -> u32 {
    match info().platform_info {
        PlatformInfo::Uhyve { num_cpus, .. } => u32::try_from(num_cpus.get()).unwrap_or(u32::MAX),
        _ => 1,
    }
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last one.
    pub end: u64,
}

/// All RAM, as the device tree says: the `/memory@...` nodes, in their order.
#[must_use]
pub fn memory() -> Vec<Region> {
    let fdt = fdt();
    let mut regions = Vec::new();
    for node in fdt.find_node("/").into_iter().flat_map(|root| root.children()) {
        if node.name != "memory" && !node.name.starts_with("memory@") {
            continue;
        }
        for range in node.reg().into_iter().flatten() {
            let start = range.starting_address.addr() as u64;
            regions.push(Region { start, end: start + range.size.unwrap_or(0) as u64 });
        }
    }
    regions
}

/// TSC frequency in kHz, as `/hermit,tsc` of the device tree says.
#[must_use]
pub fn fdt_khz() -> Option<u32> {
    let value = fdt().find_node("/hermit,tsc")?.property("khz")?.value;
    value.try_into().ok().map(u32::from_be_bytes)
}

/// TSC frequency in kHz, as the boot info says.
#[must_use]
pub fn info_khz() -> Option<u32> {
    match info().platform_info {
        PlatformInfo::Uhyve { cpu_freq, .. } => cpu_freq.map(|khz| khz.get()),
        _ => None,
    }
}

/// TSC frequency in kHz, from the best source there is.
///
/// # Panics
/// If neither boot info nor device tree have it.
#[must_use]
pub fn tsc_khz() -> u64 {
    info_khz().or_else(fdt_khz).expect("the TSC frequency is known").into()
}

/// Arguments and environment of a guest of version 2: `/chosen/bootargs`, taken apart as the Hermit
/// kernel does it.
#[derive(Debug, Default)]
pub struct Command {
    /// Words before `--` that are neither environment nor an option with a value.
    pub kernel_args: Vec<String>,
    /// Words after the first `--`.
    pub args: Vec<String>,
    /// `env=KEY=VALUE`, in order.
    pub env: Vec<(String, String)>,
}

/// Takes `/chosen/bootargs` apart.
#[must_use]
pub fn command() -> Command {
    let fdt = fdt();
    let line = fdt.chosen().bootargs().unwrap_or_default();
    let mut words = shlex::Shlex::new(line);
    let mut command = Command::default();
    while let Some(word) = words.next() {
        if word == "--" {
            command.args.extend(&mut words);
        } else if let Some((key, value)) =
            word.strip_prefix("env=").and_then(|word| word.split_once('='))
        {
            command.env.push((key.to_string(), value.to_string()));
        } else {
            command.kernel_args.push(word);
        }
    }
    command
}

/// Application arguments of a guest of version 2.
#[must_use]
pub fn args() -> Vec<String> {
    command().args
}

/// Arguments (the first is the kernel's path) and environment of a guest of version 1, in bytes.
///
/// # Panics
/// If the lengths from the VMM are impossible.
#[must_use]
pub fn command_v1() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let calls = crate::v1();
    let mut sizes = Box::<v1::CmdsizeParams>::default();
    // SAFETY: the block has no addresses.
    unsafe { calls.call(v1::Call::Cmdsize, &mut *sizes) }.expect("the heap lies below 4 GiB");
    let buffers = |count: i32, sizes: [i32; v1::MAX_ARGC_ENVC]| -> Vec<Vec<u8>> {
        let count = usize::try_from(count).expect("a count is not negative");
        assert!(count <= sizes.len(), "{count} entries in a table of {}", sizes.len());
        sizes[..count]
            .iter()
            .map(|&size| vec![0x7e; usize::try_from(size).expect("a length is not negative")])
            .collect()
    };
    let mut argv = buffers(sizes.argc, sizes.argsz);
    let mut envp = buffers(sizes.envc, sizes.envsz);
    let table = |strings: &mut [Vec<u8>]| -> Vec<u64> {
        strings.iter_mut().map(|buffer| buffer.as_mut_ptr().addr() as u64).collect()
    };
    let (argv_table, envp_table) = (table(&mut argv), table(&mut envp));
    let mut params = v1::CmdvalParams {
        argv: argv_table.as_ptr().addr() as u64,
        envp: envp_table.as_ptr().addr() as u64,
    };
    // SAFETY: the tables point to buffers of the lengths that the VMM asked for.
    unsafe { calls.call(v1::Call::Cmdval, &mut params) }.expect("the stack lies below 4 GiB");
    (argv, envp)
}
