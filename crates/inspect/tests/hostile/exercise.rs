//! A crashed guest of any memory and registers, as a test and as a fuzz target.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};

use nerite_inspect::nerite_arch::{Regs, SpecialRegs};
use nerite_inspect::nerite_loader::testing::{Elf, Symbol};
use nerite_inspect::nerite_loader::{Image, Limits};
use nerite_inspect::nerite_memory::{Backing, GuestRam, Region};
use nerite_inspect::{Core, Unwinder, VcpuState, read_virtual, translate, write_virtual};
use object::{Object as _, ObjectSegment as _};

/// RAM in two regions, with a hole between them.
const REGIONS: [Region; 2] =
    [Region { start: 0, size: 256 << 10 }, Region { start: 1 << 20, size: 64 << 10 }];
/// Location of the kernel.
const KERNEL: u64 = 0x1_0000;
/// Name of the kernel's symbol, which is replaced.
const NAME: &[u8] = b"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE";
/// Looks of the writer of a core file at whether it is to stop, 4096 steps of a walk apart.
const LOOKS: u32 = 64;

/// Any memory and registers.
#[derive(Debug)]
pub struct Input<'a> {
    /// Words of memory: pairs of an address divided by eight, and a value.
    pub words: &'a [(u16, u64)],
    /// Beginning of the name of the kernel's only symbol.
    pub name: &'a [u8],
    /// Instruction, stack and frame pointers.
    pub pointers: [u64; 3],
    /// Roots of the page tables of two vCPUs, and their CR4.
    pub tables: [(u64, u64); 2],
    /// Address and length of an access.
    pub access: (u64, u16),
}

/// Makes the reports of the guest.
pub fn run(input: &Input<'_>) {
    let mut elf = Elf::hermit();
    elf.symbols.truncate(1);
    let value = input.pointers[0];
    elf.symbols.push(Symbol { name: NAME, info: 0x12, section: 1, value, size: 0x30 });
    let mut file = elf.build();
    let at = file.windows(NAME.len()).position(|name| name == NAME).unwrap();
    file[at..].iter_mut().zip(input.name).take(NAME.len()).for_each(|(to, from)| *to = *from);
    let Ok(image) = Image::parse(file, &Limits::default()) else { return };
    let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
    let Ok(loaded) = image.kernel().load(ram.inner(), KERNEL) else { return };
    for (place, word) in input.words {
        // Words outside of RAM are not written.
        let _ = ram.write_obj(u64::from(*place) * 8, word);
    }
    let [rip, rsp, rbp] = input.pointers;
    let regs = Regs { rip, rsp, rbp, ..Regs::default() };
    let unwinder = Unwinder { ram: &ram, kernel: image.kernel(), loaded: &loaded };
    let mut vcpus = Vec::new();
    for (index, (cr3, cr4)) in (0..).zip(input.tables) {
        let (cr0, efer) = (1 << 31 | 1, 1 << 8 | 1 << 10);
        let special_regs = SpecialRegs { cr0, cr3, cr4, efer, ..SpecialRegs::default() };
        let backtrace = unwinder.backtrace(&regs, &special_regs);
        assert!(!backtrace.is_empty() && backtrace.len() <= 32);
        // A line each, whatever the names of functions are.
        assert!(backtrace.iter().all(|frame| !frame.to_string().contains('\n')));
        memory(&ram, &special_regs, input.access);
        vcpus.push(VcpuState { index, regs, special_regs, fpu: None, backtrace });
    }
    core_file(&ram, &vcpus);
}

/// Reads at a virtual address, and writes the same there.
fn memory(ram: &GuestRam, special: &SpecialRegs, (address, length): (u64, u16)) {
    let mut bytes = vec![0; usize::from(length)];
    let readable = read_virtual(ram, special, address, &mut bytes);
    assert!(readable <= bytes.len());
    if let Ok(found) = translate(ram, special, address) {
        assert_eq!(readable > 0, length > 0 && ram.check(found.phys, 1).is_ok());
    }
    // Written back, so that page tables stay as they are.
    assert_eq!(write_virtual(ram, special, address, &bytes[..readable]), readable);
}

/// A core file is one that another reader understands, and refers to RAM alone.
fn core_file(ram: &GuestRam, vcpus: &[VcpuState]) {
    let mut file = tempfile::tempfile().unwrap();
    let looks = Cell::new(0);
    let stop = || {
        looks.set(looks.get() + 1);
        looks.get() > LOOKS
    };
    let core = Core { ram, vcpus, crashed: 0, entry: Some(KERNEL) };
    if core.write(&file, &stop).is_err() {
        assert!(looks.get() > LOOKS);
        return;
    }
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let parsed = object::File::parse(bytes.as_slice()).unwrap();
    let mut addresses = BTreeMap::new();
    for segment in parsed.segments() {
        assert_eq!(segment.data().unwrap().len() as u64, segment.size());
        assert!(addresses.insert(segment.address(), segment.size()).is_none(), "twice");
    }
}
