//! A virtual machine monitor of 100 lines: it boots Linux, on KVM or on a processor in software.
//! `cargo run -p nerite-machine --example hundred_lines -- BZIMAGE`

use std::ops::ControlFlow::{self, Break, Continue};
use std::{env, error::Error, io::Write as _, io::stdout, sync::Arc};

use nerite_arch::pc::{self, entry::Mode, linux::ZeroPage, map};
use nerite_arch::{BootState, cpuid, paging::IdentityMap};
use nerite_bus::{Bus, Width};
use nerite_devices::pc::{KeyboardController, Requests, Serial};
use nerite_devices::{Console, Sink};
use nerite_event::Event;
use nerite_hypervisor::{Hypervisor, VcpuStart, VmOptions};
use nerite_kvm::{System, probe};
use nerite_loader::{BzImage, GuestImage, ImageSource, Limits, Protocol};
use nerite_memory::{Backing, GuestRam, Region};
use nerite_software::Software;
use nerite_vcpu::{Entry, Exit, Handler, Vcpu, drive};

const USAGE: &[u8] = b"usage: hundred_lines BZIMAGE\n";
const RAM: u64 = 256 << 20;
const COMMAND_LINE: &[u8] = b"console=ttyS0 earlyprintk=serial panic=-1 reboot=k\0";

/// The devices, and what they ask for.
struct Pc {
    ports: Bus,
    requests: Arc<Requests>,
}

impl Handler for Pc {
    type End = Exit;
    fn handle(&mut self, _: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Exit, Entry> {
        match *exit {
            Exit::PortOut { port, width, value } => {
                if let Some(width) = Width::new(width) {
                    self.ports.write(port.into(), width, value.into());
                }
                // A request is a reset: the guest has ended.
                self.requests.take().map_or(Continue(Entry::Resume), |_| Break(*exit))
            }
            Exit::PortIn { port, width } => {
                let value = Width::new(width).map(|width| self.ports.read(port.into(), width));
                Continue(Entry::Data(value.unwrap_or(u64::MAX)))
            }
            Exit::MmioRead { .. } => Continue(Entry::Data(u64::MAX)),
            Exit::MmioWrite { .. } | Exit::Kicked => Continue(Entry::Resume),
            end => Break(end),
        }
    }
}

/// Puts the kernel into memory, with all that it is handed.
fn load(kernel: &BzImage, ram: &GuestRam) -> Result<BootState, Box<dyn Error>> {
    let start = kernel.load(ram.inner())?;
    ram.write(pc::COMMAND_LINE, COMMAND_LINE)?;
    let page = ZeroPage {
        header: kernel.setup_header(),
        kernel: start.try_into()?,
        command_line: pc::COMMAND_LINE.try_into()?,
        initrd: (0, 0),
        map: &map::entries(RAM, 0),
        rsdp: 0,
    };
    ram.write(pc::INFO, &page.bytes())?;
    ram.write(pc::GDT, &Mode::Long.gdt())?;
    let (pml4, tables_start, tables_end) = (pc::PML4, pc::PAGE_TABLES, pc::PAGE_TABLES_END);
    for table in (IdentityMap { pml4, tables_start, tables_end, start: 0, end: RAM }).tables()? {
        ram.write(table.addr, table.bytes.as_slice())?;
    }
    Ok(BootState::linux_64(kernel.entry(start)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = env::args().nth(1) else { return Ok(stdout().write_all(USAGE)?) };
    let image = ImageSource::open(path)?.read_guest(Some(Protocol::Linux), &Limits::default())?;
    let GuestImage::Linux(kernel) = image else { return Err("this is no Linux kernel".into()) };
    let ram = Arc::new(GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default())?);
    let boot = load(&kernel, &ram)?;

    let hypervisor: Box<dyn Hypervisor> = match System::open() {
        Ok(kvm) if probe::processor_virtualizes() => Box::new(kvm),
        _ => Box::new(Software::new()?),
    };
    let vm = hypervisor.create_vm(ram, &VmOptions { pit: true, ..VmOptions::default() })?;
    let tsc_deadline = hypervisor.capabilities().tsc_deadline;
    let one = cpuid::Guest { vcpu_index: 0, vcpu_count: 1, tsc_deadline };
    let leaves = cpuid::for_guest(&hypervisor.supported_cpuid()?, &one);
    let mut vcpu = vm.create_vcpu(0, VcpuStart::At(&boot), &leaves)?;

    let (requests, interrupt) = (Arc::<Requests>::default(), Event::new()?);
    vm.interrupt_controller().ok_or("no interrupts")?.connect_edge(4, &interrupt)?;
    let console = Arc::new(Console::new(Sink::Stdout));
    let serial = Arc::new(Serial::new(console, interrupt, requests.clone())?);
    let keyboard = Arc::new(KeyboardController::new(requests.clone()));
    let mut ports = Bus::new("port");
    ports.insert("serial port", 0x3f8..=0x3ff, serial)?;
    ports.insert("keyboard controller", 0x64..=0x64, keyboard)?;
    drive(&mut *vcpu, &mut Pc { ports, requests })?;
    Ok(())
}
