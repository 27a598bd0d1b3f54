//! The MultiProcessor table (Intel MultiProcessor Specification 1.4, 4), for kernels that do not
//! read ACPI.

use zerocopy::{Immutable, IntoBytes};

use super::{IO_APIC, LOCAL_APIC};

/// OEM and product names in the tables.
const OEM: [u8; 8] = *b"NERITE  ";
const PRODUCT: [u8; 12] = *b"MICROVM     ";
/// Version 1.4.
const REVISION: u8 = 4;
/// A local APIC of the integrated kind.
const APIC_VERSION: u8 = 0x14;
/// An 82093AA.
const IO_APIC_VERSION: u8 = 0x11;
/// Family 6, as all processors with a local APIC of this kind can say.
const SIGNATURE: u32 = 0x600;
/// On-chip FPU and APIC.
const FEATURES: u32 = 1 | 1 << 9;
/// The ISA bus's number.
const ISA: u8 = 0;
/// Number of ISA interrupts, each at the I/O APIC's pin of the same number.
const ISA_IRQS: u8 = 16;
/// Broadcast to all local APICs.
const ALL: u8 = 0xff;

/// 4.1, the floating pointer.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Pointer {
    signature: [u8; 4],
    table: u32,
    length: u8,
    revision: u8,
    checksum: u8,
    features: [u8; 5],
}

/// 4.2, the table's header.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: u16,
    revision: u8,
    checksum: u8,
    oem: [u8; 8],
    product: [u8; 12],
    oem_table: u32,
    oem_size: u16,
    entries: u16,
    local_apic: u32,
    extended_length: u16,
    extended_checksum: u8,
    reserved: u8,
}

/// 4.3.1.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Processor {
    kind: u8,
    apic_id: u8,
    apic_version: u8,
    flags: u8,
    signature: u32,
    features: u32,
    reserved: [u32; 2],
}

/// 4.3.3.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    id: u8,
    version: u8,
    flags: u8,
    address: u32,
}

/// The tables for `cpus` processors, at most 64, as they lie at `address`: the floating pointer,
/// then the table.
#[must_use]
pub fn bytes(address: u64, cpus: u32) -> Vec<u8> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let cpus = u8::try_from(cpus.min(64)).unwrap_or(64);
    for apic_id in 0..cpus {
        // Usable, and the first one is the bootstrap processor.
        let flags = 1 | if apic_id == 0 { 2 } else { 0 };
        let processor = Processor {
            kind: 0,
            apic_id,
            apic_version: APIC_VERSION,
            flags,
            signature: SIGNATURE,
            features: FEATURES,
            reserved: [0; 2],
        };
        entries.push(processor.as_bytes().to_vec());
    }
    // 4.3.2, a bus.
    entries.push([&[1, ISA][..], b"ISA   "].concat());
    let io_apic =
        IoApic { kind: 2, id: cpus, version: IO_APIC_VERSION, flags: 1, address: IO_APIC };
    entries.push(io_apic.as_bytes().to_vec());
    for irq in 0..ISA_IRQS {
        // 4.3.4: an ordinary interrupt with the bus's own polarity and trigger.
        entries.push(vec![3, 0, 0, 0, ISA, irq, cpus, irq]);
    }
    // 4.3.5: the PIC at LINT0, NMI at LINT1.
    entries.push(vec![4, 3, 0, 0, ISA, 0, ALL, 0]);
    entries.push(vec![4, 1, 0, 0, ISA, 0, ALL, 1]);

    let pointer_size = size_of::<Pointer>();
    let length =
        entries.iter().fold(size_of::<Header>(), |sum, entry| sum.saturating_add(entry.len()));
    let header = Header {
        signature: *b"PCMP",
        length: u16::try_from(length).unwrap_or(u16::MAX),
        revision: REVISION,
        checksum: 0,
        oem: OEM,
        product: PRODUCT,
        oem_table: 0,
        oem_size: 0,
        entries: u16::try_from(entries.len()).unwrap_or(u16::MAX),
        local_apic: LOCAL_APIC,
        extended_length: 0,
        extended_checksum: 0,
        reserved: 0,
    };
    let mut table = header.as_bytes().to_vec();
    table.extend(entries.concat());
    set_checksum(&mut table, 7);
    let at = address.saturating_add(pointer_size as u64);
    let pointer = Pointer {
        signature: *b"_MP_",
        table: u32::try_from(at).unwrap_or(u32::MAX),
        length: 1,
        revision: REVISION,
        checksum: 0,
        // No default configuration; no IMCR, so virtual wire mode.
        features: [0; 5],
    };
    let mut bytes = pointer.as_bytes().to_vec();
    set_checksum(&mut bytes, 10);
    bytes.extend(table);
    bytes
}

/// Makes the sum of all bytes 0 through the one at `offset`.
fn set_checksum(bytes: &mut [u8], offset: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(offset) {
        *checksum = checksum.wrapping_sub(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BASE_MEMORY_END, EBDA};
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_walk_over_the_table_finds_everything() {
        for cpus in [1, 2, 16] {
            let bytes = bytes(EBDA, cpus);
            let (pointer, table) = bytes.split_at(16);
            assert_eq!((&pointer[..4], sum(pointer)), (&b"_MP_"[..], 0));
            assert_eq!(u64::from(u32::from_le_bytes(pointer[4..8].try_into().unwrap())), EBDA + 16);
            assert_eq!((&table[..4], sum(table)), (&b"PCMP"[..], 0));
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let count = u16::from_le_bytes([table[34], table[35]]);
            let mut at = 44;
            let mut kinds = [0; 5];
            for _ in 0..count {
                kinds[usize::from(table[at])] += 1;
                at += if table[at] == 0 { 20 } else { 8 };
            }
            assert_eq!(at, table.len());
            assert_eq!(kinds, [cpus as usize, 1, 1, 16, 2]);
        }
    }

    #[test]
    fn the_largest_table_fits_into_the_ebda() {
        assert!(bytes(EBDA, 16).len() as u64 <= BASE_MEMORY_END - EBDA);
    }
}
