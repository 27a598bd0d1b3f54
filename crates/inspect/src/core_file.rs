//! A crashed guest as an ELF core file, which GDB opens together with the image.
//!
//! Each vCPU is a thread, the one that crashed is the first. Memory is where the guest saw it:
//! there is a segment for each range of guest-virtual addresses, through the page tables of all
//! vCPUs, and all of them refer to one copy of RAM. What the guest never touched is a hole in the
//! file. Formats: System V gABI, chapters 4 and 5; `struct elf_prstatus` of Linux.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use nerite_arch::paging::{self, Root, WalkError};
use nerite_arch::{Fpu, SpecialRegs};
use nerite_memory::GuestRam;

use crate::crash::VcpuState;

/// Sizes of the ELF header and of a program header.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const PAGE: u64 = 4096;
/// The most ranges of memory: program headers are counted with 16 bits, and `0xffff` means
/// something else.
const MAX_SEGMENTS: usize = 0xff00;
/// Maximum number of pages (and holes between them) that are walked for all vCPUs together,
/// whatever their page tables say: 64 GiB of small pages.
const MAX_STEPS: usize = if cfg!(test) { 1 << 17 } else { 1 << 24 };
/// Steps of a walk after which to look if the writing is stopped.
const STEPS_BETWEEN_LOOKS: usize = 1 << 12;
/// The same for a copy of RAM: a look at each multiple of 1 MiB.
const LOOK_MASK: u64 = (1 << 20) - 1;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Read, write and execute.
const ALL_RIGHTS: u32 = 7;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_AUXV: u32 = 6;
const NT_X86_XSTATE: u32 = 0x202;
/// Entries from which GDB finds out how far the image was moved, and how large a page is
/// (`<elf.h>`).
const AT_PAGESZ: u64 = 6;
const AT_ENTRY: u64 = 9;
const SIGSEGV: u16 = 11;

/// Contents of a core file.
#[derive(Debug)]
pub struct Core<'a> {
    /// RAM of the guest.
    pub ram: &'a GuestRam,
    /// States of the vCPUs.
    pub vcpus: &'a [VcpuState],
    /// Index of the vCPU that crashed.
    pub crashed: u32,
    /// Entry point of the loaded image, if it is one that GDB knows.
    pub entry: Option<u64>,
}

/// A range of guest-virtual memory that is contiguous in guest-physical memory, and in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    address: u64,
    physical: u64,
    size: u64,
}

impl Core<'_> {
    /// Writes the file, which is empty. `is_stopped` is called every now and then; if it returns
    /// `true`, the file is left incomplete.
    ///
    /// # Errors
    /// Fails if the file cannot be written, and with [`io::ErrorKind::Interrupted`] if it was
    /// stopped.
    pub fn write(&self, file: &File, is_stopped: &dyn Fn() -> bool) -> io::Result<()> {
        let segments = self.segments(is_stopped)?;
        let notes = self.notes();
        let count = u64::try_from(segments.len()).unwrap_or(u64::MAX).saturating_add(1);
        let notes_at = HEADER.saturating_add(count.saturating_mul(PROGRAM_HEADER));
        let notes_size = u64::try_from(notes.len()).unwrap_or(u64::MAX);
        let ram_at = notes_at.saturating_add(notes_size).next_multiple_of(PAGE);

        let mut head = header(count);
        program_header(&mut head, PT_NOTE, [notes_at, 0, 0, notes_size]);
        for segment in &segments {
            let offset = ram_at.saturating_add(self.place_of(segment.physical).unwrap_or(0));
            program_header(
                &mut head,
                PT_LOAD,
                [offset, segment.address, segment.physical, segment.size],
            );
        }
        head.extend(notes);
        file.write_all_at(&head, 0)?;
        self.write_ram(file, ram_at, is_stopped)
    }

    /// Offset of a guest-physical address in the copy of RAM: region follows region.
    fn place_of(&self, physical: u64) -> Option<u64> {
        let mut before = 0_u64;
        for region in self.ram.regions() {
            let offset = physical.wrapping_sub(region.start);
            if physical >= region.start && offset < region.size {
                return before.checked_add(offset);
            }
            before = before.saturating_add(region.size);
        }
        None
    }

    fn write_ram(&self, file: &File, start: u64, is_stopped: &dyn Fn() -> bool) -> io::Result<()> {
        let mut at = start;
        let mut page = [0; 4096];
        for region in self.ram.regions() {
            let end = region.start.saturating_add(region.size);
            let mut address = region.start;
            while address < end {
                if address & LOOK_MASK == 0 && is_stopped() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                self.ram.read(address, &mut page).map_err(io::Error::other)?;
                if page.iter().any(|byte| *byte != 0) {
                    file.write_all_at(&page, at)?;
                }
                address = address.saturating_add(PAGE);
                at = at.saturating_add(PAGE);
            }
        }
        file.set_len(at)
    }

    /// Mappings of the page tables of all vCPUs together. Without any, RAM is where it is.
    fn segments(&self, is_stopped: &dyn Fn() -> bool) -> io::Result<Vec<Segment>> {
        let mut roots: BTreeMap<u64, &SpecialRegs> = BTreeMap::new();
        for vcpu in self.vcpus {
            roots.entry(vcpu.special_regs.cr3).or_insert(&vcpu.special_regs);
        }
        // The first vCPU that maps an address says where it leads.
        let mut by_address: BTreeMap<u64, Segment> = BTreeMap::new();
        let mut steps = 0..MAX_STEPS;
        for root in roots.values().filter_map(|special| Root::of(special)) {
            let mut add = |segment: Segment| {
                if by_address.len() < MAX_SEGMENTS {
                    by_address.entry(segment.address).or_insert(segment);
                }
            };
            self.mapped(root, &mut steps, is_stopped, &mut add)?;
        }
        if by_address.is_empty() {
            let whole = |region: &nerite_memory::Region| Segment {
                address: region.start,
                physical: region.start,
                size: region.size,
            };
            return Ok(self.ram.regions().iter().map(whole).collect());
        }
        Ok(by_address.into_values().collect())
    }

    /// Calls `each` with the mappings of `root`, in order of the address, with neighbours joined,
    /// until `steps` are used up.
    fn mapped(
        &self,
        root: Root,
        steps: &mut Range<usize>,
        is_stopped: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Segment),
    ) -> io::Result<()> {
        let mut current: Option<Segment> = None;
        let mut next = Some(0_u64);
        while let Some(address) = next
            && let Some(step) = steps.next()
        {
            if step % STEPS_BETWEEN_LOOKS == 0 && is_stopped() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let (found, size) =
                match paging::walk(root, address, |at| self.ram.read_obj::<u64>(at).ok()) {
                    Ok(page) => {
                        // A large page may lie over the end of RAM.
                        let is_whole = self.ram.check(page.phys, page.page_size).is_ok();
                        let size = if is_whole { page.page_size } else { PAGE };
                        let is_ram = is_whole || self.ram.check(page.phys, PAGE).is_ok();
                        (is_ram.then_some(Segment { address, physical: page.phys, size }), size)
                    }
                    Err(error) => (None, hole(&error)),
                };
            match (&mut current, found) {
                (Some(last), Some(page)) if follows(last, &page) => {
                    last.size = last.size.saturating_add(page.size);
                }
                (current, found) => {
                    if let Some(done) = std::mem::replace(current, found) {
                        each(done);
                    }
                }
            }
            // To the next multiple: a page may have been entered in its middle, and a hole ends
            // where its entry does.
            next = match address.checked_next_multiple_of(size) {
                Some(same) if same == address => address.checked_add(size),
                other => other,
            };
        }
        current.into_iter().for_each(each);
        Ok(())
    }

    fn notes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        let first = self.vcpus.iter().filter(|vcpu| vcpu.index == self.crashed);
        let others = self.vcpus.iter().filter(|vcpu| vcpu.index != self.crashed);
        for vcpu in first.chain(others) {
            note(&mut notes, CORE, NT_PRSTATUS, &status(vcpu, vcpu.index == self.crashed));
            if let Some(fpu) = &vcpu.fpu {
                let area = vector_state(fpu);
                note(&mut notes, CORE, NT_FPREGSET, area.get(..FXSAVE).unwrap_or_default());
                note(&mut notes, LINUX, NT_X86_XSTATE, &area);
            }
        }
        if let Some(entry) = self.entry {
            let words = [AT_PAGESZ, PAGE, AT_ENTRY, entry, 0, 0];
            note(&mut notes, CORE, NT_AUXV, &words.map(u64::to_le_bytes).concat());
        }
        notes
    }
}

fn follows(last: &Segment, page: &Segment) -> bool {
    last.address.checked_add(last.size) == Some(page.address)
        && last.physical.checked_add(last.size) == Some(page.physical)
}

/// Size in bytes of the aligned range in which every address is unmapped like the one with this
/// error.
fn hole(error: &WalkError) -> u64 {
    let level = match error {
        WalkError::NotPresent { level, .. } | WalkError::Reserved { level, .. } => *level,
        WalkError::BadTable { level, .. } => level.saturating_add(1),
        // The addresses between the two halves: with 4 levels 0x8000_0000_0000 is the first.
        _ => return 1 << 47,
    };
    let shift = u32::from(level).saturating_sub(1).saturating_mul(9).saturating_add(12);
    1_u64.checked_shl(shift).unwrap_or(1 << 47)
}

fn header(program_headers: u64) -> Vec<u8> {
    // 64 bits, little-endian, version 1, System V.
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    bytes.resize(16, 0);
    bytes.extend(ET_CORE.to_le_bytes());
    bytes.extend(EM_X86_64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for word in [0, HEADER, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [HEADER, PROGRAM_HEADER, program_headers, 0, 0, 0] {
        bytes.extend(u16::try_from(half).unwrap_or(u16::MAX).to_le_bytes());
    }
    bytes
}

/// `place`: offset in the file, virtual and physical address, size.
fn program_header(bytes: &mut Vec<u8>, kind: u32, place: [u64; 4]) {
    let [offset, address, physical, size] = place;
    bytes.extend(kind.to_le_bytes());
    bytes.extend(ALL_RIGHTS.to_le_bytes());
    for word in [offset, address, physical, size, size, if kind == PT_LOAD { PAGE } else { 4 }] {
        bytes.extend(word.to_le_bytes());
    }
}

/// Whose notes they are, with the zero at the end.
const CORE: &[u8] = b"CORE\0";
const LINUX: &[u8] = b"LINUX\0";

fn note(bytes: &mut Vec<u8>, owner: &[u8], kind: u32, content: &[u8]) {
    bytes.extend(u32::try_from(owner.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(u32::try_from(content.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(owner);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
}

/// Size of the legacy region of an XSAVE area, which is what FXSAVE writes (Intel SDM vol. 1,
/// 10.5.1).
const FXSAVE: usize = 512;
/// Offset at which a Linux core file has the components of an XSAVE area (`<asm/sigcontext.h>`), in
/// bytes that are software's.
const XCR0: usize = 464;

/// An XSAVE area with x87, SSE and AVX state.
fn vector_state(fpu: &Fpu) -> Vec<u8> {
    let mut area = fpu.to_xsave().to_vec();
    for (to, from) in area.iter_mut().skip(XCR0).zip(Fpu::PARTS.to_le_bytes()) {
        *to = from;
    }
    area
}

/// `struct elf_prstatus` (`<linux/elfcore.h>`), 336 bytes: of it, the signal, the thread's number
/// and the registers.
fn status(vcpu: &VcpuState, crashed: bool) -> Vec<u8> {
    const REGISTERS: usize = 112;
    let (regs, special) = (&vcpu.regs, &vcpu.special_regs);
    let signal = if crashed { SIGSEGV } else { 0 };
    let mut bytes = u32::from(signal).to_le_bytes().to_vec();
    bytes.resize(12, 0);
    bytes.extend(signal.to_le_bytes());
    bytes.resize(32, 0);
    bytes.extend(vcpu.index.saturating_add(1).to_le_bytes());
    bytes.resize(REGISTERS, 0);
    // `struct user_regs_struct` (`<sys/user.h>`).
    for register in [
        regs.r15,
        regs.r14,
        regs.r13,
        regs.r12,
        regs.rbp,
        regs.rbx,
        regs.r11,
        regs.r10,
        regs.r9,
        regs.r8,
        regs.rax,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        // orig_rax: not in a system call.
        u64::MAX,
        regs.rip,
        special.cs.selector.into(),
        regs.rflags,
        regs.rsp,
        special.ss.selector.into(),
        special.fs.base,
        special.gs.base,
        special.ds.selector.into(),
        special.es.selector.into(),
        special.fs.selector.into(),
        special.gs.selector.into(),
    ] {
        bytes.extend(register.to_le_bytes());
    }
    bytes.resize(336, 0);
    bytes
}

#[cfg(test)]
#[path = "core_file_test.rs"]
mod tests;
