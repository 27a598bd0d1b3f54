//! Puts a guest into memory and says how its vCPUs start.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::{SystemTime, UNIX_EPOCH};

use nerite_arch::boot_info::{BootInfo, RawBootInfo, TlsInfo};
use nerite_arch::hermit::BootAddresses;
use nerite_arch::paging::IdentityMap;
use nerite_arch::{CpuidEntry, fdt, gdt};
use nerite_hypercall::{SERIAL_PORT_V1, SERIAL_PORT_V2};
use nerite_loader::{Interface, Kernel, KernelVersion, LoadedKernel};
use nerite_memory::{AddressLimit, Backing, GuestRam, Layout, Region, Request};

use crate::Error;
use crate::plan::Plan;

/// The first version whose images say which one they are.
const FIRST_WITH_VERSION: (u32, u32, u32) = (0, 10, 0);
/// The first version that takes the interrupt controllers' addresses for granted.
const FIRST_WITHOUT_MP_SEARCH: (u32, u32, u32) = (0, 13, 2);
/// Ranges in which older kernels search for a MultiProcessor Specification table (MP 1.4, 4): the
/// end of the first 640 KiB and the BIOS area.
const MP_SEARCH: [Region; 2] =
    [Region { start: 0x9_f000, size: 0x1000 }, Region { start: 0xf_0000, size: 0x1_0000 }];
/// The number of physical address bits of a processor that does not say (Intel SDM vol. 3, 4.1.4).
const DEFAULT_PHYSICAL_BITS: u8 = 36;

fn is_before(version: Option<KernelVersion>, first: (u32, u32, u32)) -> bool {
    version.is_none_or(|version| (version.major, version.minor, version.patch) < first)
}

/// `true` if this is a kernel before 0.10, which expects the whole GiB around it to be mapped at
/// boot.
pub(crate) fn is_before_0_10(version: Option<KernelVersion>) -> bool {
    is_before(version, FIRST_WITH_VERSION)
}

/// Memory that the machine needs: RAM, and, for kernels that would search there, zeros where an MP
/// table would be. Without them each of the 17 408 words they read is an exit.
///
/// Huge pages are too large for that: with them, such kernels only boot more slowly.
pub(crate) fn regions(
    layout: &Layout,
    version: Option<KernelVersion>,
    hugepages: bool,
) -> Vec<Region> {
    let mut regions = Vec::new();
    if is_before(version, FIRST_WITHOUT_MP_SEARCH) && !hugepages {
        let is_free =
            |search: &Region| !layout.regions.iter().any(|region| region.overlaps(search));
        regions.extend(MP_SEARCH.into_iter().filter(is_free));
    }
    regions.extend_from_slice(&layout.regions);
    regions
}

/// Kernels up to this size, in bytes, do not fill enough of the first large page to pay for
/// clearing it.
const SMALL_KERNEL: u64 = 512 << 10;

/// The start of RAM, if the kernel is so small that a huge page there would be for little, and none
/// is asked for.
pub(crate) fn small_head(kernel: &Kernel, layout: &Layout, backing: &Backing) -> Option<u64> {
    let is_small = kernel.mem_size() <= SMALL_KERNEL && !backing.thp && !backing.hugepages;
    is_small.then_some(layout.base)
}

/// The device tree's contents, except for where memory lies.
pub(crate) fn device_tree(plan: &Plan, tsc_khz: Option<u32>) -> fdt::Builder {
    let mut tree = fdt::Builder::new()
        .cpus(plan.cpus)
        .kernel_args(plan.kernel_args.iter().cloned())
        .app_args(plan.app_args.iter().cloned())
        .mounts(plan.mounts.iter().cloned());
    for (key, value) in &plan.env {
        tree = tree.env(key, value);
    }
    match tsc_khz {
        Some(khz) => tree.tsc_khz(khz),
        None => tree,
    }
}

/// The number of physical address bits (CPUID 0x80000008, EAX bits 7:0).
fn physical_bits(cpuid: &[CpuidEntry]) -> u8 {
    let leaf = cpuid.iter().find(|entry| entry.function == 0x8000_0008);
    leaf.map(|entry| entry.eax.to_le_bytes()).map_or(DEFAULT_PHYSICAL_BITS, |[bits, ..]| bits)
}

/// Decides where everything goes. `random` chooses the base, if that is to be random.
pub(crate) fn lay_out(
    kernel: &Kernel,
    plan: &Plan,
    aslr: bool,
    random: u64,
    cpuid: &[CpuidEntry],
) -> Result<Layout, Error> {
    let request = Request {
        memory_size: plan.memory,
        kernel_mem_size: kernel.mem_size(),
        fixed_start: kernel.fixed_start(),
        address_limit: match kernel.interface() {
            Interface::V1 => AddressLimit::Bits32,
            Interface::V2 => AddressLimit::Bits64,
        },
        aslr,
        // The rate is not known yet, and takes as much room whatever it is.
        fdt_size: device_tree(plan, Some(u32::MAX)).size_bound()?,
        initrd_size: 0,
        legacy_identity_map: is_before_0_10(kernel.version()),
    };
    Ok(Layout::place(&request, random, physical_bits(cpuid))?)
}

/// Loads the kernel, and writes the GDT and the page tables it starts with.
pub(crate) fn load(
    kernel: &Kernel,
    layout: &Layout,
    ram: &GuestRam,
) -> Result<LoadedKernel, Error> {
    let loaded = kernel.load(ram.inner(), layout.kernel.start)?;
    ram.write(layout.gdt, &gdt::bytes()).map_err(Error::writing("the GDT"))?;
    let map = IdentityMap {
        pml4: layout.pml4,
        tables_start: layout.page_tables.start,
        tables_end: layout.page_tables.end(),
        start: layout.identity_map.start,
        end: layout.identity_map.end(),
    };
    for table in map.tables()? {
        ram.write(table.addr, table.bytes.as_slice()).map_err(Error::writing("the page tables"))?;
    }
    Ok(loaded)
}

/// Time of a guest at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// Rate of the time-stamp counter, if known.
    pub(crate) tsc_khz: Option<u32>,
    /// Time of day.
    pub(crate) boot_time: SystemTime,
}

/// Memory that a guest can use, of all that was laid out for it.
pub(crate) fn usable(interface: Interface, regions: &[Region]) -> &[Region] {
    match (interface, regions) {
        (Interface::V1, [low, ..]) => std::slice::from_ref(low),
        (_, regions) => regions,
    }
}

/// The regions that were laid out for a guest whose boot data is at `boot`: those before are for a
/// search of old kernels.
pub(crate) fn main_memory<'a>(ram: &'a GuestRam, boot: &Region) -> &'a [Region] {
    let regions = ram.regions();
    let first = regions.iter().position(|region| region.overlaps(boot));
    first.and_then(|first| regions.get(first..)).unwrap_or_default()
}

/// Writes the device tree and the boot information.
pub(crate) fn describe(
    kernel: &Kernel,
    plan: &Plan,
    layout: &Layout,
    loaded: &LoadedKernel,
    ram: &GuestRam,
    clocks: Clocks,
    has_pci: bool,
) -> Result<(), Error> {
    let (interface, Clocks { tsc_khz, boot_time }) = (kernel.interface(), clocks);
    // A v1 guest's hypercalls carry 32-bit addresses: it must not put their parameters above the
    // gap.
    let usable = usable(interface, &layout.regions);
    let reach = usable.first().map_or(0, |first| first.start)..usable.last().map_or(0, Region::end);
    if usable.len() < layout.regions.len() {
        log::warn!(
            "a kernel with hypercall interface v1 can use only the {} MiB of memory below 3 GiB",
            reach.end >> 20
        );
    }

    let mut tree = device_tree(plan, tsc_khz);
    for region in usable {
        tree = tree.memory(region.start, region.size);
    }
    ram.write(layout.fdt.start, &tree.finish()?).map_err(Error::writing("the device tree"))?;

    let since_epoch = boot_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let info = BootInfo {
        phys_addr_range: reach,
        serial_port: NonZeroU16::new(match interface {
            Interface::V1 => SERIAL_PORT_V1,
            Interface::V2 => SERIAL_PORT_V2,
        }),
        device_tree: NonZeroU64::new(layout.fdt.start),
        kernel_range: loaded.start..loaded.end,
        tls: loaded.tls.map(|tls| TlsInfo {
            start: tls.start,
            filesz: tls.filesz,
            memsz: tls.memsz,
            align: tls.align,
        }),
        // Without a PCI device, kernels that ask do not go through 1024 slots to find that out.
        has_pci,
        num_cpus: NonZeroU64::new(plan.cpus.into()).unwrap_or(NonZeroU64::MIN),
        cpu_freq_khz: tsc_khz.and_then(NonZeroU32::new),
        boot_time_ns: i128::try_from(since_epoch.as_nanos()).unwrap_or(0),
    };
    ram.write_obj(layout.boot_info, &RawBootInfo::from(&info))
        .map_err(Error::writing("the boot information"))
}

/// Addresses in every vCPU's first state.
pub(crate) fn addresses(layout: &Layout, loaded: &LoadedKernel) -> BootAddresses {
    BootAddresses {
        entry: loaded.entry,
        boot_info: layout.boot_info,
        stack: layout.stack,
        pml4: layout.pml4,
        gdt: layout.gdt,
    }
}

#[cfg(test)]
#[path = "boot_test.rs"]
mod tests;
