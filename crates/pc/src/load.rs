//! Puts a kernel, its initial file system, command line and tables into memory.

use std::ops::Range;
use std::sync::Arc;

use nerite_arch::BootState;
use nerite_arch::paging::IdentityMap;
use nerite_arch::pc::entry::Mode;
use nerite_arch::pc::linux::ZeroPage;
use nerite_arch::pc::{self, acpi, map, mp_table, multiboot, pvh, smbios};
use nerite_loader::{BzImage, GuestImage, Protocol, SegmentedKernel};
use nerite_memory::{GAP_END, GAP_START, GuestRam, PAGE, Region};
use nerite_pci::{Bridge, HostBridge, WINDOW};

use crate::Error;
use crate::plan::PcPlan;

/// End of the range that the boot page tables map: 4 GiB.
const IDENTITY_MAP_END: u64 = 4 << 30;

/// The slot of the first network card: after the host bridge.
const FIRST_CARD_SLOT: u8 = 1;

/// An initial file system or a module.
#[derive(Debug)]
pub struct InitFile {
    /// Name, which multiboot kernels see.
    pub name: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// A kernel in memory, ready to be entered.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) boot: BootState,
    pub(crate) kernel: Range<u64>,
}

/// Ranges of RAM: from address 0, continued after the gap.
pub(crate) fn regions(memory: u64) -> Vec<Region> {
    let low = memory.min(GAP_START);
    let high = memory.saturating_sub(low);
    let regions = [Region { start: 0, size: low }, Region { start: GAP_END, size: high }];
    regions.into_iter().filter(|region| region.size > 0).collect()
}

/// The PCI bus, with its bridge in slot 0 and room for cards after it.
pub(crate) fn bridge() -> Bridge {
    let mut bridge = Bridge::new();
    bridge.add(Arc::new(HostBridge::new()));
    bridge
}

/// Loads everything.
pub(crate) fn load(
    image: &GuestImage,
    files: &[InitFile],
    plan: &PcPlan,
    ram: &GuestRam,
) -> Result<Loaded, Error> {
    let low = plan.memory.min(GAP_START);
    let map = map::entries(low, plan.memory.saturating_sub(low));
    write_tables(plan, ram)?;
    let loader = Loader { files, plan, ram, low, map };
    match image {
        GuestImage::Linux(kernel) => loader.linux(kernel),
        GuestImage::Pvh(image) => loader.pvh(image.kernel()),
        GuestImage::Multiboot(image) => loader.multiboot(image.kernel()),
        // A Hermit image is loaded elsewhere, and there are no others.
        _ => Err(Error::host("loading a kernel")(std::io::Error::other(
            "it boots in no way of a PC's",
        ))),
    }
}

/// Writes the tables that firmware leaves behind, whatever the protocol.
fn write_tables(plan: &PcPlan, ram: &GuestRam) -> Result<(), Error> {
    for (address, value) in pc::BIOS_DATA {
        ram.write(address, &value.to_le_bytes()).map_err(Error::writing("the BIOS data area"))?;
    }
    ram.write(pc::EBDA, &mp_table::bytes(pc::EBDA, plan.cpus))
        .map_err(Error::writing("the MP table"))?;
    let window = (low_32(*WINDOW.start()), low_32(*WINDOW.end()));
    let pci = acpi::Pci { window, first_slot: FIRST_CARD_SLOT, lines: plan.lines.clone() };
    let tables = acpi::Machine { cpus: plan.cpus, legacy: true, pci: Some(pci) }.tables();
    ram.write(acpi::RSDP, &tables)
        .and_then(|()| ram.write(acpi::GENERATION_ID, &plan.generation))
        .map_err(Error::writing("the ACPI tables"))?;
    ram.write(smbios::SMBIOS, &smbios::tables()).map_err(Error::writing("the SMBIOS tables"))
}

struct Loader<'a> {
    files: &'a [InitFile],
    plan: &'a PcPlan,
    ram: &'a GuestRam,
    /// End of the RAM below the gap.
    low: u64,
    map: Vec<map::Entry>,
}

impl Loader<'_> {
    fn linux(&self, kernel: &BzImage) -> Result<Loaded, Error> {
        let start = kernel.load(self.ram.inner())?;
        let end = start.saturating_add(u64::from(kernel.init_size()));
        self.command_line(u64::from(kernel.command_line_max()))?;
        let limit = self.low.min(u64::from(kernel.initrd_max()).saturating_add(1));
        let initrd = self.initrd(Protocol::Linux, end, limit)?.unwrap_or((0, 0));
        let page = ZeroPage {
            header: kernel.setup_header(),
            kernel: low_32(start),
            command_line: low_32(pc::COMMAND_LINE),
            initrd: (low_32(initrd.0), low_32(initrd.1)),
            map: &self.map,
            rsdp: acpi::RSDP,
        };
        self.ram.write(pc::INFO, &page.bytes()).map_err(Error::writing("the zero page"))?;
        let boot = if kernel.has_64_bit_entry() {
            self.page_tables()?;
            self.gdt(Mode::Long)?;
            BootState::linux_64(kernel.entry(start))
        } else {
            self.gdt(Mode::Protected)?;
            BootState::linux_32(kernel.entry(start))
        };
        Ok(Loaded { boot, kernel: start..end })
    }

    fn pvh(&self, kernel: &SegmentedKernel) -> Result<Loaded, Error> {
        let range = self.segments(Protocol::Pvh, kernel)?;
        self.command_line(u64::MAX)?;
        let initrd = self.initrd(Protocol::Pvh, range.end, self.low)?;
        let parts = pvh::start_info(pc::COMMAND_LINE, acpi::RSDP, initrd, &self.map);
        self.parts(&parts)?;
        Ok(Loaded { boot: BootState::pvh(kernel.entry()), kernel: range })
    }

    fn multiboot(&self, kernel: &SegmentedKernel) -> Result<Loaded, Error> {
        let range = self.segments(Protocol::Multiboot, kernel)?;
        self.command_line(u64::MAX)?;
        let mut next = range.end.max(pc::HIGH_MEMORY);
        let mut modules = Vec::new();
        for file in self.files {
            let start = next.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            let size = file.bytes.len() as u64;
            let end = start.saturating_add(size);
            if end > self.low {
                return Err(Error::InitrdSize { name: file.name.clone(), size });
            }
            self.ram.write(start, &file.bytes).map_err(Error::writing("a module"))?;
            modules.push(multiboot::Module {
                start: low_32(start),
                end: low_32(end),
                name: file.name.clone(),
            });
            next = end;
        }
        let parts = multiboot::information(low_32(pc::COMMAND_LINE), &modules, &self.map)?;
        self.parts(&parts)?;
        Ok(Loaded { boot: BootState::multiboot(kernel.entry()), kernel: range })
    }

    /// Loads a kernel that names its addresses, and sees that what it is handed does not lie there.
    fn segments(&self, protocol: Protocol, kernel: &SegmentedKernel) -> Result<Range<u64>, Error> {
        for segment in kernel.segments() {
            let (start, end) = (segment.address, segment.end());
            if start < pc::HIGH_MEMORY && end > pc::BOOT_DATA || start < 0x500 {
                return Err(Error::KernelPlace { protocol, start, end });
            }
        }
        kernel.load(self.ram.inner())?;
        self.gdt(Mode::Protected)?;
        Ok(kernel.start()..kernel.end())
    }

    fn command_line(&self, kernels_limit: u64) -> Result<(), Error> {
        let line = &self.plan.command_line;
        let allowed = pc::COMMAND_LINE_ROOM.saturating_sub(1).min(kernels_limit);
        if line.len() as u64 > allowed {
            return Err(Error::CommandLine { length: line.len(), allowed });
        }
        if line.contains('\0') {
            return Err(nerite_arch::Error::Nul { what: "command line", text: line.clone() }.into());
        }
        let bytes = [line.as_bytes(), b"\0"].concat();
        self.ram.write(pc::COMMAND_LINE, &bytes).map_err(Error::writing("the command line"))
    }

    /// Puts the one initial file system as high as it may be: address and size.
    fn initrd(
        &self,
        protocol: Protocol,
        lowest: u64,
        limit: u64,
    ) -> Result<Option<(u64, u64)>, Error> {
        let file = match self.files {
            [] => return Ok(None),
            [file] => file,
            more => return Err(Error::OneInitrd { protocol, given: more.len() }),
        };
        let size = file.bytes.len() as u64;
        let start = limit.checked_sub(size).map_or(0, |start| start & !PAGE.saturating_sub(1));
        if start < lowest {
            return Err(Error::InitrdSize { name: file.name.clone(), size });
        }
        self.ram.write(start, &file.bytes).map_err(Error::writing("the initial file system"))?;
        Ok(Some((start, size)))
    }

    fn gdt(&self, mode: Mode) -> Result<(), Error> {
        self.ram.write(pc::GDT, &mode.gdt()).map_err(Error::writing("the GDT"))
    }

    fn page_tables(&self) -> Result<(), Error> {
        let map = IdentityMap {
            pml4: pc::PML4,
            tables_start: pc::PAGE_TABLES,
            tables_end: pc::PAGE_TABLES_END,
            start: 0,
            end: IDENTITY_MAP_END,
        };
        for table in map.tables()? {
            self.ram
                .write(table.addr, table.bytes.as_slice())
                .map_err(Error::writing("the page tables"))?;
        }
        Ok(())
    }

    fn parts(&self, parts: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        for (address, bytes) in parts {
            self.ram.write(*address, bytes).map_err(Error::writing("the boot information"))?;
        }
        Ok(())
    }
}

/// An address below 4 GiB, as all are that the protocols have 32 bits for.
fn low_32(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;
