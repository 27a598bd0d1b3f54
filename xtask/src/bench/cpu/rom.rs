//! A BIOS that does nothing but start a multiboot kernel: for an emulator that has no other way to
//! start one.

use anyhow::{Context, Result, ensure};

/// Magic number of a multiboot header (Multiboot Specification 0.6.96, 3.1.1).
const MAGIC: u32 = 0x1bad_b002;
/// EAX when a multiboot kernel starts.
const STARTED: u32 = 0x2bad_b002;
/// Address of the byte after the BIOS, below 1 MiB.
const END: u32 = 0x10_0000;
/// Most bytes that are shown below 1 MiB.
const LARGEST: usize = 0x2_0000;
/// The smallest BIOS, a segment of real mode.
const SEGMENT: usize = 0x1_0000;
/// Offset of the code in the last segment.
const CODE: u16 = 0xff00;
/// Offset of the descriptor table in the last segment.
const TABLE: u16 = 0xff80;
/// Offset of the first instruction after a reset in the last segment.
const RESET: u16 = 0xfff0;

/// The part of a multiboot kernel that is loaded.
struct Kernel<'a> {
    bytes: &'a [u8],
    address: u32,
    entry: u32,
}

impl<'a> Kernel<'a> {
    /// By the address fields of the header (3.1.3).
    fn parse(file: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
        let header = (0..file.len().min(8192)).step_by(4).find(|&at| word(at) == Some(MAGIC))?;
        let field = |index: usize| word(header + index * 4);
        let (own, address, end, entry) = (field(3)?, field(4)?, field(5)?, field(7)?);
        let start = header.checked_sub(usize::try_from(own.checked_sub(address)?).ok()?)?;
        let length = usize::try_from(end.checked_sub(address)?).ok()?;
        Some(Self { bytes: file.get(start..)?.get(..length)?, address, entry })
    }
}

/// The BIOS: the kernel, code that copies it to its place, and the first jump. All else is zero, as
/// the memory for what the kernel has beyond its file is.
pub(super) fn image(file: &[u8]) -> Result<Vec<u8>> {
    let kernel = Kernel::parse(file).context("the guest has no multiboot header with addresses")?;
    let size = (kernel.bytes.len() + SEGMENT - usize::from(CODE)).next_power_of_two().max(SEGMENT);
    ensure!(size <= LARGEST, "the guest is too large for a BIOS");
    let length = u32::try_from(kernel.bytes.len())?;
    let source = END - u32::try_from(size)?;
    let mut rom = kernel.bytes.to_vec();
    rom.resize(size, 0);
    let last = size - SEGMENT;
    put(&mut rom, last + usize::from(CODE), &code(source, &kernel, length));
    put(&mut rom, last + usize::from(TABLE), &table());
    put(
        &mut rom,
        last + usize::from(RESET),
        &[&[0xea], words(&[CODE, 0xf000]).as_slice()].concat(),
    );
    Ok(rom)
}

fn put(rom: &mut [u8], at: usize, bytes: &[u8]) {
    rom[at..at + bytes.len()].copy_from_slice(bytes);
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Linear address of an offset in the last segment.
const fn linear(offset: u16) -> u32 {
    0xf_0000 + offset as u32
}

/// Code that enters protected mode, copies the kernel, and jumps to it.
fn code(source: u32, kernel: &Kernel<'_>, length: u32) -> Vec<u8> {
    let mut code = vec![0xfa]; // cli
    code.extend([0x2e, 0x66, 0x0f, 0x01, 0x16]); // lgdt cs:[pointer]
    code.extend((TABLE + 24).to_le_bytes());
    code.extend([0x66, 0xb8, 1, 0, 0, 0]); // mov eax, 1
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.extend([0x66, 0xea]); // jmp 8:next
    let next = linear(CODE) + u32::try_from(code.len()).unwrap_or(0) + 6;
    code.extend(next.to_le_bytes());
    code.extend([8, 0]);
    code.extend([0xb8, 16, 0, 0, 0]); // next: mov eax, 16
    code.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ds, es and ss, eax
    for (opcode, value) in [(0xbe, source), (0xbf, kernel.address), (0xb9, length)] {
        code.push(opcode); // mov esi, edi and ecx
        code.extend(value.to_le_bytes());
    }
    code.extend([0xfc, 0xf3, 0xa4]); // cld; rep movsb
    for (opcode, value) in [(0xb8, STARTED), (0xba, kernel.entry)] {
        code.push(opcode); // mov eax and edx
        code.extend(value.to_le_bytes());
    }
    code.extend([0xff, 0xe2]); // jmp edx
    code
}

/// Null, code and data descriptors, and the operand of LGDT.
fn table() -> Vec<u8> {
    let descriptors = [0_u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    let mut table: Vec<u8> =
        descriptors.iter().flat_map(|descriptor| descriptor.to_le_bytes()).collect();
    table.extend(23_u16.to_le_bytes());
    table.extend(linear(TABLE).to_le_bytes());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with 16 bytes before a header that says `length` bytes are loaded from its beginning
    /// on.
    fn file(length: u32) -> Vec<u8> {
        let header = [MAGIC, 1 << 16, 0, 0x10_0010, 0x10_0000, 0x10_0000 + length, 0, 0x10_0030];
        let mut file = vec![0x55; 16];
        file.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        file.resize(0x400, 0xaa);
        file
    }

    #[test]
    fn a_kernel_is_found_by_its_header() {
        let file = file(0x300);
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(
            (kernel.bytes, kernel.address, kernel.entry),
            (&file[..0x300], 0x10_0000, 0x10_0030)
        );
        assert!(Kernel::parse(&file[..0x20]).is_none());
        assert!(Kernel::parse(&vec![0; 9000]).is_none());
    }

    #[test]
    fn a_bios_has_kernel_code_and_reset_vector() {
        let rom = image(&file(0x300)).unwrap();
        assert_eq!(rom.len(), SEGMENT);
        assert_eq!(rom[..0x300], file(0x300)[..0x300]);
        assert_eq!(rom[0xfff0..0xfff5], [0xea, 0x00, 0xff, 0x00, 0xf0]);
        assert_eq!(rom[0xff00], 0xfa);
        // The far jump leads to the next instruction.
        assert_eq!(rom[0xff11..0xff19], [0x66, 0xea, 0x19, 0xff, 0x0f, 0x00, 8, 0]);
        assert_eq!(rom[0xff19], 0xb8);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let mut large = file(0x2_0000);
        large.resize(0x3_0000, 0);
        assert!(image(&large).unwrap_err().to_string().contains("too large"));
    }
}
