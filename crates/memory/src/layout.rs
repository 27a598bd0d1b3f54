//! Placement of RAM, the kernel and its boot structures in guest-physical memory.
//!
//! From the lowest address of RAM, the *base*, upwards (sizes for a device tree of up to 16 KiB):
//!
//! | offset | what |
//! |---|---|
//! | 0 | GDT |
//! | 0x1000 | device tree (FDT) |
//! | 0x5000 | boot information |
//! | 0x10000 | PML4, the root of the boot page tables |
//! | 0x11000 | further boot page tables |
//! | kernel - 0x8000 | boot stack, 32 KiB |
//! | 0x40000 | kernel, or where it is linked to; after it the Hermit image's files, if any |
//!
//! A larger device tree moves everything after it up. RAM never covers 3-4 GiB ([`GAP_START`] to
//! [`GAP_END`]), where the interrupt controllers and PCI devices are.

use std::fmt;

use crate::region::{align_down, align_up};
use crate::{Error, GAP_END, GAP_START, LARGE_PAGE, PAGE, Region};

/// The size of the boot stack in bytes: 32 KiB.
pub const STACK_SIZE: u64 = 0x8000;

const FDT: u64 = 0x1000;
const FDT_SIZE: u64 = 0x4000;
const BOOT_INFO: u64 = FDT + FDT_SIZE;
const PML4: u64 = 0x10000;
const PAGE_TABLES: u64 = PML4 + PAGE;
const KERNEL: u64 = 0x40000;
/// The end of what address randomisation of a 64-bit guest chooses from: 64 GiB.
const ASLR_END: u64 = 64 << 30;
/// Span of a page directory.
const GIB: u64 = 1 << 30;
/// Span of a page directory pointer table.
const PDPT_SPAN: u64 = 512 << 30;
/// The least memory a guest can be given, in MiB.
const MIN_MIB: u64 = 16;

/// Width of the addresses in the guest's hypercalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressLimit {
    /// 32 bits (hypercall interface v1): RAM begins below 3 GiB, and only what does not fit there
    /// lies above 4 GiB.
    Bits32,
    /// 64 bits (hypercall interface v2): RAM lies above 4 GiB, in one piece.
    Bits64,
}

/// Input of [`Layout::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory_size: u64,
    /// Size of the loaded kernel in bytes.
    pub kernel_mem_size: u64,
    /// Link address of a kernel that cannot be relocated. RAM then starts at address 0.
    pub fixed_start: Option<u64>,
    /// Width of the addresses in the guest's hypercalls.
    pub address_limit: AddressLimit,
    /// Choose the base at random, if the kernel can be relocated: any multiple of 2 MiB but those
    /// with which the kernel's last 2 MiB would end at a multiple of 1 GiB, where Hermit kernels up
    /// to 0.11 do not start.
    pub aslr: bool,
    /// Size of the device tree in bytes.
    pub fdt_size: u64,
    /// Size in bytes of the files of a Hermit image, which are placed after the kernel; 0 for none.
    pub initrd_size: u64,
    /// Map the whole GiB around the kernel at boot and not just RAM up to the kernel's end: what
    /// Hermit kernels before 0.10 expect.
    pub legacy_identity_map: bool,
}

/// Guest-physical addresses of RAM and everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// RAM, lowest first: one region, or two around the gap.
    pub regions: Vec<Region>,
    /// The lowest address of RAM.
    pub base: u64,
    /// The GDT, one page.
    pub gdt: u64,
    /// Room for the device tree.
    pub fdt: Region,
    /// The boot information, one page.
    pub boot_info: u64,
    /// The root of the boot page tables, one page.
    pub pml4: u64,
    /// Room for the other boot page tables, a multiple of 4 KiB.
    pub page_tables: Region,
    /// The lowest address of the boot stack, which is [`STACK_SIZE`] bytes.
    pub stack: u64,
    /// The loaded kernel.
    pub kernel: Region,
    /// The files of a Hermit image.
    pub initrd: Option<Region>,
    /// Range that the boot page tables must map, in multiples of 2 MiB. It exceeds RAM only for a
    /// legacy map.
    pub identity_map: Region,
}

impl Layout {
    /// Places a guest. A pure function: `random` decides the base if randomisation is asked for,
    /// and is uniformly used, so the caller should draw all of its bits at random. `phys_bits` is
    /// the number of physical address bits of the host's CPU (CPUID 0x80000008, EAX bits 7:0).
    ///
    /// # Errors
    ///
    /// If the memory is too small for the kernel, too large for the host, or no memory could hold
    /// this kernel.
    pub fn place(request: &Request, random: u64, phys_bits: u8) -> Result<Self, Error> {
        let size = request.memory_size;
        if size == 0 || !size.is_multiple_of(LARGE_PAGE) {
            let mib = align_up(size, LARGE_PAGE).unwrap_or(u64::MAX) >> 20;
            return Err(Error::BadSize { size, suggestion: mib.max(MIN_MIB) });
        }
        let base = base(request, random, phys_bits);
        let regions = around_gap(base, size).ok_or(Error::OutOfRange { what: "memory size" })?;
        check_host(&regions, size, phys_bits)?;
        let mut layout = place_at(request, base)?;
        layout.check_fits(request, &regions)?;
        layout.regions = regions;
        Ok(layout)
    }

    /// The range from the lowest to the highest address of RAM, the gap included.
    #[must_use]
    pub fn span(&self) -> Region {
        let end = self.regions.last().map_or(self.base, Region::end);
        Region::from_bounds(self.base, end)
    }

    fn check_fits(&self, request: &Request, regions: &[Region]) -> Result<(), Error> {
        let first = regions.first().copied().unwrap_or_default();
        let image_end = self.initrd.unwrap_or(self.kernel).end();
        if image_end <= first.end() {
            return Ok(());
        }
        let needed = align_up(image_end.saturating_sub(self.base), LARGE_PAGE).unwrap_or(u64::MAX);
        // RAM that starts below the gap cannot grow past it in one piece.
        if self.base < GAP_START && needed > GAP_START {
            let size = image_end.saturating_sub(self.kernel.start);
            return Err(Error::ImageTooLarge {
                size,
                place: "below the gap in guest memory at 3 GiB",
            });
        }
        Err(Error::TooSmall {
            given: request.memory_size >> 20,
            needed: (needed >> 20).max(MIN_MIB),
        })
    }
}

/// The lowest address of RAM, a multiple of 2 MiB.
fn base(request: &Request, random: u64, phys_bits: u8) -> u64 {
    let (low, high, size) = match (request.fixed_start, request.address_limit) {
        (Some(_), _) => return 0,
        (None, AddressLimit::Bits32) => (0, GAP_START, request.memory_size.min(GAP_START)),
        (None, AddressLimit::Bits64) => {
            (GAP_END, ASLR_END.min(address_end(phys_bits)), request.memory_size)
        }
    };
    let room = high.saturating_sub(low).saturating_sub(size);
    if !request.aslr {
        return low;
    }
    // Bases 0, 2 MiB, ... `room` above `low`: at least one, and few enough that the remainder's
    // bias is nothing.
    let choices = (room / LARGE_PAGE).saturating_add(1);
    let choice = random.checked_rem(choices).unwrap_or(0);
    let choice = match choice {
        _ if !ends_at_directory(request, low.saturating_add(choice.saturating_mul(LARGE_PAGE))) => {
            choice
        }
        0 if choices > 1 => 1,
        _ => choice.saturating_sub(1),
    };
    low.saturating_add(choice.saturating_mul(LARGE_PAGE))
}

/// Returns `true` if the 2 MiB page in which the kernel ends is the last one of its page directory,
/// and so the last one that is mapped at boot.
///
/// Hermit kernels up to 0.11 do not start there. They map the rest of RAM page by page from the
/// kernel's end upwards, and take the memory for a new directory from the lowest that is free: here
/// from the very page that this directory is to map.
fn ends_at_directory(request: &Request, base: u64) -> bool {
    let end = shift(request).and_then(|shift| {
        base.checked_add(KERNEL)?.checked_add(shift)?.checked_add(request.kernel_mem_size)
    });
    end.and_then(|end| align_up(end, LARGE_PAGE)).is_some_and(|end| end.is_multiple_of(GIB))
}

/// Offset in bytes by which a large device tree moves everything after it.
fn shift(request: &Request) -> Option<u64> {
    // A relocatable kernel moves in steps that keep its alignment, a fixed one not at all.
    let step = if request.fixed_start.is_some() { PAGE } else { KERNEL };
    align_up(request.fdt_size.saturating_sub(FDT_SIZE), step)
}

/// The first address that `phys_bits` bits cannot express.
fn address_end(phys_bits: u8) -> u64 {
    1_u64.checked_shl(u32::from(phys_bits)).unwrap_or(u64::MAX)
}

/// `size` bytes of RAM from `base`, continued after the gap where they would reach into it.
fn around_gap(base: u64, size: u64) -> Option<Vec<Region>> {
    if base >= GAP_END {
        base.checked_add(size)?;
        return Some(vec![Region { start: base, size }]);
    }
    let low = GAP_START.checked_sub(base)?.min(size);
    let high = size.checked_sub(low)?;
    GAP_END.checked_add(high)?;
    let regions = [Region { start: base, size: low }, Region { start: GAP_END, size: high }];
    Some(regions.into_iter().filter(|region| region.size != 0).collect())
}

fn check_host(regions: &[Region], size: u64, phys_bits: u8) -> Result<(), Error> {
    let end = regions.last().map_or(0, Region::end);
    if end > address_end(phys_bits) {
        return Err(Error::BeyondHost { size: size >> 20, end, phys_bits });
    }
    Ok(())
}

/// Everything but RAM itself.
fn place_at(request: &Request, base: u64) -> Result<Layout, Error> {
    let out_of_range = |what| Error::OutOfRange { what };
    let shift = shift(request).ok_or(out_of_range("device tree size"))?;
    let at = |offset: u64| base.saturating_add(shift).saturating_add(offset);

    let kernel_start = request.fixed_start.unwrap_or(at(KERNEL));
    let Extent { kernel, initrd, map_end } = Extent::new(request, kernel_start)?;
    let identity_map = Region::from_bounds(base, map_end);

    let stack = align_down(kernel_start, PAGE).saturating_sub(STACK_SIZE);
    let below =
        |map: &Region| at(PAGE_TABLES).saturating_add(table_bytes(map)).saturating_add(STACK_SIZE);
    let lowest_kernel = below(&identity_map);
    if lowest_kernel > kernel_start {
        return Err(
            match request
                .fixed_start
                .and_then(|_| lowest_start(request, base, lowest_kernel, below))
            {
                Some(needed) => Error::NoRoomBelowKernel { start: kernel_start, needed },
                None => {
                    let size = initrd.unwrap_or(kernel).end().saturating_sub(kernel_start);
                    Error::ImageTooLarge { size, place: "in what the boot page tables can map" }
                }
            },
        );
    }
    Ok(Layout {
        regions: Vec::new(),
        base,
        gdt: base,
        fdt: Region { start: base.saturating_add(FDT), size: FDT_SIZE.saturating_add(shift) },
        boot_info: at(BOOT_INFO),
        pml4: at(PML4),
        page_tables: Region::from_bounds(at(PAGE_TABLES), stack),
        stack,
        kernel,
        initrd,
        identity_map,
    })
}

/// Memory that a kernel at a given address takes.
struct Extent {
    kernel: Region,
    initrd: Option<Region>,
    /// Lowest possible end of the boot page tables' map, a multiple of 2 MiB.
    map_end: u64,
}

impl Extent {
    fn new(request: &Request, kernel_start: u64) -> Result<Self, Error> {
        let out_of_range = |what| Error::OutOfRange { what };
        let kernel_end =
            kernel_start.checked_add(request.kernel_mem_size).ok_or(out_of_range("kernel size"))?;
        let (initrd, image_end) = match request.initrd_size {
            0 => (None, kernel_end),
            size => {
                let start = align_up(kernel_end, PAGE).ok_or(out_of_range("kernel size"))?;
                let end = start.checked_add(size).ok_or(out_of_range("image size"))?;
                (Some(Region { start, size }), end)
            }
        };
        let mut map_end = align_up(image_end, LARGE_PAGE).ok_or(out_of_range("image size"))?;
        if request.legacy_identity_map {
            map_end = map_end.max(align_down(kernel_start, GIB).saturating_add(GIB));
        }
        Ok(Self {
            kernel: Region { start: kernel_start, size: request.kernel_mem_size },
            initrd,
            map_end,
        })
    }
}

/// The lowest address that a kernel which found too little room below itself could be linked to, if
/// there is one below the gap. `below` is what must lie below it, and `start` a first guess.
fn lowest_start(
    request: &Request,
    base: u64,
    mut start: u64,
    below: impl Fn(&Region) -> u64,
) -> Option<u64> {
    // A kernel that is moved up can need more page tables, so that it must be moved further. Each
    // round is a page or more.
    while start < GAP_START {
        let map_end = Extent::new(request, start).ok()?.map_end;
        let needed = below(&Region::from_bounds(base, map_end));
        if needed <= start {
            return Some(start);
        }
        start = needed;
    }
    None
}

/// Size in bytes of the page tables, without the root, that map `range` with 2 MiB pages.
fn table_bytes(range: &Region) -> u64 {
    let count = |span: u64| {
        let first = range.start.checked_div(span).unwrap_or(0);
        range.end().div_ceil(span).saturating_sub(first)
    };
    count(GIB).saturating_add(count(PDPT_SPAN)).saturating_mul(PAGE)
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = |start| Region { start, size: PAGE };
        for region in &self.regions {
            writeln!(f, "{:<14}{region}", "RAM")?;
        }
        writeln!(f, "{:<14}{}", "GDT", page(self.gdt))?;
        writeln!(f, "{:<14}{}", "device tree", self.fdt)?;
        writeln!(f, "{:<14}{}", "boot info", page(self.boot_info))?;
        writeln!(f, "{:<14}{}", "PML4", page(self.pml4))?;
        writeln!(f, "{:<14}{}", "page tables", self.page_tables)?;
        writeln!(f, "{:<14}{}", "boot stack", Region { start: self.stack, size: STACK_SIZE })?;
        writeln!(f, "{:<14}{}", "kernel", self.kernel)?;
        if let Some(initrd) = &self.initrd {
            writeln!(f, "{:<14}{initrd}", "image files")?;
        }
        write!(f, "{:<14}{}", "identity map", self.identity_map)
    }
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod tests;
