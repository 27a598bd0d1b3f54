//! ACPI tables (ACPI 6.5, 5.2): which processors and interrupt controllers there are, how to power
//! off and reset.
//!
//! The hardware is ACPI's "fixed" kind: PM1 event and control registers and the PM timer, at ports.
//! The only event of theirs is that of the power button. The sleep type of S5, power-off, is
//! [`S5`]. A change of the virtual machine's generation is an event of a generic event device
//! (5.6.9), with an interrupt of its own and no registers.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Method, Name, Notify,
    Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use zerocopy::{Immutable, IntoBytes};

use super::smbios::SMBIOS;
use super::{BIOS, CLOCK_IRQ, ECAM, GENERATION_IRQ, IO_APIC, LOCAL_APIC, SCI_IRQ};

/// PM1a event block: status and enable, 2 bytes each (4.8.3.1).
pub const PM1_EVENT: u16 = 0x600;
/// PM1a control block, 2 bytes (4.8.3.2).
pub const PM1_CONTROL: u16 = 0x604;
/// The PM timer, 4 bytes (4.8.3.3).
pub const PM_TIMER: u16 = 0x608;
/// The last of these ports.
pub const PM_LAST: u16 = 0x60b;
/// The sleep type that, with the enable bit, means power off.
pub const S5: u8 = 5;
/// The port of the reset register (4.8.3.6), a PC's "reset control register".
pub const RESET_PORT: u16 = 0xcf9;
/// Value that resets the machine when written there.
pub const RESET_VALUE: u8 = 6;
/// The port of pvpanic.
pub const PVPANIC_PORT: u16 = 0x505;
/// Guest-physical address of the root pointer.
pub const RSDP: u64 = BIOS;

/// Guest-physical address of the number of the virtual machine's generation, 16 bytes: behind the
/// root pointer, in memory that is reserved.
pub const GENERATION_ID: u64 = RSDP + 48;

const OEM: [u8; 6] = *b"NERITE";
const OEM_TABLE: [u8; 8] = *b"MICROVM ";
/// A header's size (5.2.6).
const HEADER: u32 = 36;
/// Tables begin at multiples of this; the FACS must (5.2.10).
const ALIGN: u64 = 64;

/// Which machine the tables describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The number of processors; APIC ids count from 0.
    pub cpus: u32,
    /// `true` if there are a serial port at 0x3f8, a clock at 0x70 and pvpanic at [`PVPANIC_PORT`].
    pub legacy: bool,
    /// The PCI bus, if there is one.
    pub pci: Option<Pci>,
}

/// A PCI bus, number 0, reached through ports 0xCF8 to 0xCFF and through memory at [`ECAM`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pci {
    /// First and last memory address that functions can be placed at.
    pub window: (u32, u32),
    /// The slot of the first function with an interrupt pin.
    pub first_slot: u8,
    /// The interrupt of that function's pin INTA#, and of those in the slots after it.
    pub lines: Vec<u8>,
}

/// 5.2.12.5: an ISA interrupt that is not wired as ISA interrupts are.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C, packed)]
struct Override {
    kind: u8,
    length: u8,
    bus: u8,
    source: u8,
    interrupt: u32,
    flags: u16,
}

/// 5.2.12.7: where NMI is connected.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C, packed)]
struct LocalNmi {
    kind: u8,
    length: u8,
    processor: u8,
    flags: u16,
    pin: u8,
}

impl Aml for Override {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

impl Aml for LocalNmi {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

impl Machine {
    /// All tables, from [`RSDP`] on, as one piece. It ends below [`SMBIOS`].
    #[must_use]
    pub fn tables(&self) -> Vec<u8> {
        let mut tables = Tables { bytes: vec![0; 64] };
        let dsdt = tables.add(&self.dsdt());
        let facs = tables.add(&FACS::new());
        let fadt = tables.add(&fadt(dsdt, facs));
        let madt = tables.add(&self.madt());
        let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
        let mut entries = vec![fadt, madt];
        if self.pci.is_some() {
            entries.push(tables.add(&mcfg()));
        }
        entries.into_iter().for_each(|table| xsdt.add_entry(table));
        let xsdt = tables.add(&xsdt);
        let rsdp = Rsdp::new(OEM, xsdt);
        for (to, from) in tables.bytes.iter_mut().zip(rsdp.as_bytes()) {
            *to = *from;
        }
        debug_assert!(RSDP.saturating_add(tables.bytes.len() as u64) <= SMBIOS);
        tables.bytes
    }

    fn dsdt(&self) -> Sdt {
        let mut aml = Vec::new();
        let states = Package::new(vec![&S5, &S5, &0_u8, &0_u8]);
        Name::new(Path::new("_S5_"), &states).to_aml_bytes(&mut aml);
        if self.legacy {
            legacy_devices(&mut aml);
        }
        generation_devices(&mut aml);
        if let Some(pci) = &self.pci {
            pci.describe(&mut aml);
        }
        let mut dsdt = Sdt::new(*b"DSDT", HEADER, 6, OEM, OEM_TABLE, 1);
        dsdt.append_slice(&aml);
        dsdt
    }

    fn madt(&self) -> MADT {
        let mut madt = MADT::new(OEM, OEM_TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
        let cpus = u8::try_from(self.cpus).unwrap_or(u8::MAX);
        for cpu in 0..cpus {
            madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
        }
        madt.add_structure(IoApic::new(cpus, IO_APIC, 0));
        let interrupt = u32::from(SCI_IRQ);
        // Active high, level-triggered.
        let flags = 0b1101;
        madt.add_structure(Override {
            kind: 2,
            length: 10,
            bus: 0,
            source: SCI_IRQ,
            interrupt,
            flags,
        });
        madt.add_structure(LocalNmi { kind: 4, length: 6, processor: 0xff, flags: 0, pin: 1 });
        madt
    }
}

impl Pci {
    /// `\_SB.PCI0` with its resources and the routing of its interrupts (6.2.13).
    fn describe(&self, aml: &mut Vec<u8>) {
        let buses = AddressSpace::new_bus_number(0_u16, 0);
        let config = IO::new(0xcf8, 0xcf8, 1, 8);
        let memory = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            self.window.0,
            self.window.1,
            None,
        );
        let resources = ResourceTemplate::new(vec![&buses, &config, &memory]);
        let slots = (u32::from(self.first_slot)..).zip(&self.lines);
        // Any function of the slot, and the interrupt by its number.
        let routes: Vec<[u32; 4]> =
            slots.map(|(slot, line)| [slot << 16 | 0xffff, 0, 0, u32::from(*line)]).collect();
        let routes: Vec<Package> = routes
            .iter()
            .map(|[address, pin, source, line]| Package::new(vec![address, pin, source, line]))
            .collect();
        let routes = Package::new(routes.iter().map(|route| route as &dyn Aml).collect());
        let id = EISAName::new("PNP0A03");
        let hid = Name::new(Path::new("_HID"), &id);
        let uid = Name::new(Path::new("_UID"), &0_u8);
        let crs = Name::new(Path::new("_CRS"), &resources);
        let prt = Name::new(Path::new("_PRT"), &routes);
        let device = Device::new(Path::new("PCI0"), vec![&hid, &uid, &crs, &prt]);
        Scope::new(Path::new("\\_SB_"), vec![&device]).to_aml_bytes(aml);
    }
}

/// `\_SB` with the serial port, the clock, and pvpanic under the name that QEMU gave it.
fn legacy_devices(aml: &mut Vec<u8>) {
    let (serial_id, clock_id) = (EISAName::new("PNP0501"), EISAName::new("PNP0B00"));
    let serial_ports = IO::new(0x3f8, 0x3f8, 1, 8);
    let serial_irq = Interrupt::new(true, true, false, false, 4);
    let serial_resources = ResourceTemplate::new(vec![&serial_ports, &serial_irq]);
    let clock_ports = IO::new(0x70, 0x70, 1, 2);
    let clock_irq = Interrupt::new(true, true, false, false, CLOCK_IRQ.into());
    let clock_resources = ResourceTemplate::new(vec![&clock_ports, &clock_irq]);
    let (hid, uid, crs) = (Path::new("_HID"), Path::new("_UID"), Path::new("_CRS"));
    let serial_hid = Name::new(hid, &serial_id);
    let serial_uid = Name::new(uid, &0_u8);
    let serial_crs = Name::new(crs, &serial_resources);
    let clock_hid = Name::new(Path::new("_HID"), &clock_id);
    let clock_crs = Name::new(Path::new("_CRS"), &clock_resources);
    let panic_port = IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, 1);
    let panic_resources = ResourceTemplate::new(vec![&panic_port]);
    let panic_hid = Name::new(Path::new("_HID"), &"QEMU0001");
    let panic_crs = Name::new(Path::new("_CRS"), &panic_resources);
    let pvpanic = Device::new(Path::new("PEVT"), vec![&panic_hid, &panic_crs]);
    let serial = Device::new(Path::new("COM1"), vec![&serial_hid, &serial_uid, &serial_crs]);
    let clock = Device::new(Path::new("RTC_"), vec![&clock_hid, &clock_crs]);
    Scope::new(Path::new("\\_SB_"), vec![&serial, &clock, &pvpanic]).to_aml_bytes(aml);
}

/// `\_SB` with the generation of the virtual machine, and the device whose interrupt tells of its
/// change. Kernels know the former by either of two identifiers.
fn generation_devices(aml: &mut Vec<u8>) {
    let address = (u32::try_from(GENERATION_ID).unwrap_or(u32::MAX), 0_u32);
    let address = Package::new(vec![&address.0, &address.1]);
    let ids = Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]);
    let hid = Name::new(Path::new("_HID"), &"NERT0001");
    let cid = Name::new(Path::new("_CID"), &ids);
    let ddn = Name::new(Path::new("_DDN"), &"VM_Gen_Counter");
    let place = Name::new(Path::new("ADDR"), &address);
    let generation = Device::new(Path::new("VGEN"), vec![&hid, &cid, &ddn, &place]);
    let interrupt = Interrupt::new(true, true, false, false, GENERATION_IRQ.into());
    let resources = ResourceTemplate::new(vec![&interrupt]);
    let event_hid = Name::new(Path::new("_HID"), &"ACPI0013");
    let event_crs = Name::new(Path::new("_CRS"), &resources);
    let (target, changed) = (Path::new("\\_SB_.VGEN"), 0x80_u8);
    let notify = Notify::new(&target, &changed);
    let method = Method::new(Path::new("_EVT"), 1, true, vec![&notify]);
    let event = Device::new(Path::new("GED_"), vec![&event_hid, &event_crs, &method]);
    Scope::new(Path::new("\\_SB_"), vec![&generation, &event]).to_aml_bytes(aml);
}

/// The table of configuration space in memory (PCI Firmware 3.3, 4.1.2).
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, 1);
    mcfg.add_ecam(ECAM.into(), 0, 0, 0);
    mcfg
}

/// The fixed description table (5.2.9).
fn fadt(dsdt: u64, facs: u64) -> acpi_tables::fadt::FADT {
    let below_4_gib = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is fixed hardware, and there is no sleep button.
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.dsdt = below_4_gib(dsdt).into();
    fadt.x_dsdt = dsdt.into();
    fadt.firmware_ctrl = below_4_gib(facs).into();
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.pm1a_evt_blk = u32::from(PM1_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    // No C2 and C3 (5.2.9).
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    // Where a PC's clock has the century.
    fadt.century = 0x32;
    // There are legacy devices, no VGA, no keyboard, no ASPM (5.2.9.3).
    fadt.iapc_boot_arch = (1 | 1 << 2 | 1 << 4).into();
    fadt.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.x_pm1a_evt_blk = port(PM1_EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(PM1_CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(PM_TIMER, 32, AccessSize::DwordAccess);
    fadt.finalize()
}

fn port(port: u16, bits: u8, size: AccessSize) -> GAS {
    GAS::new(Space::SystemIo, bits, 0, size, port.into())
}

/// Tables one after the other.
struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Adds a table and says at which guest-physical address it is.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let end = RSDP.saturating_add(self.bytes.len() as u64);
        let address = end.checked_next_multiple_of(ALIGN).unwrap_or(end);
        let start = usize::try_from(address.saturating_sub(RSDP)).unwrap_or(self.bytes.len());
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn pci() -> Pci {
        Pci { window: (0xc000_0000, 0xfebf_ffff), first_slot: 1, lines: vec![11, 10] }
    }

    /// Follows the pointers as a kernel does, checking signatures, lengths and sums.
    fn table<'a>(all: &'a [u8], address: u64, signature: &[u8; 4]) -> &'a [u8] {
        let start = usize::try_from(address - RSDP).unwrap();
        let length = u32_at(all, start + 4) as usize;
        let table = &all[start..start + length];
        assert_eq!(&table[..4], signature);
        assert!(signature == b"FACS" || sum(table) == 0, "{signature:?}");
        table
    }

    #[test]
    fn a_kernel_finds_every_table() {
        let all = Machine { cpus: 4, legacy: true, pci: Some(pci()) }.tables();
        assert_eq!((&all[..8], sum(&all[..20]), sum(&all[..36])), (&b"RSD PTR "[..], 0, 0));
        let xsdt = table(&all, u64_at(&all, 24), b"XSDT");
        let fadt = table(&all, u64_at(xsdt, 36), b"FACP");
        let madt = table(&all, u64_at(xsdt, 44), b"APIC");
        assert_eq!(xsdt.len(), 60);
        let mcfg = table(&all, u64_at(xsdt, 52), b"MCFG");
        // Address, segment, first and last bus.
        assert_eq!((u64_at(mcfg, 44), u32_at(mcfg, 52), mcfg.len()), (ECAM.into(), 0, 60));
        let dsdt = table(&all, u64_at(fadt, 140), b"DSDT");
        assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
        let facs = u64::from(u32_at(fadt, 36));
        assert!(facs.is_multiple_of(64));
        table(&all, facs, b"FACS");
        // PM1a control, reset register (I/O, 8 bits, port, value).
        assert_eq!(u32_at(fadt, 64), 0x604);
        assert_eq!((fadt[116], fadt[117], u64_at(fadt, 120), fadt[128]), (1, 8, 0xcf9, 6));
        for name in [b"_S5_", b"COM1", b"PEVT", b"PCI0", b"_PRT", b"VGEN", b"_EVT"] {
            assert!(dsdt.windows(4).any(|part| part == name), "{name:?}");
        }
        assert!(madt.len() > 44);
        // Between the root pointer and the first table.
        let place = usize::try_from(GENERATION_ID - RSDP).unwrap();
        assert!(place.is_multiple_of(8) && place >= 36 && all[36..64] == [0; 28]);
    }

    #[test]
    fn every_processor_is_listed_once() {
        for cpus in [1, 2, 16] {
            let all = Machine { cpus, legacy: false, pci: None }.tables();
            let xsdt = table(&all, u64_at(&all, 24), b"XSDT");
            let madt = table(&all, u64_at(xsdt, 44), b"APIC");
            let (mut at, mut ids, mut kinds) = (44, Vec::new(), Vec::new());
            while at < madt.len() {
                if madt[at] == 0 {
                    assert_eq!(u32_at(madt, at + 4), 1, "enabled");
                    ids.push(u32::from(madt[at + 3]));
                }
                kinds.push(madt[at]);
                at += usize::from(madt[at + 1]);
            }
            assert_eq!(at, madt.len());
            assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
            assert_eq!(kinds[cpus as usize..], [1, 2, 4]);
        }
    }
}
