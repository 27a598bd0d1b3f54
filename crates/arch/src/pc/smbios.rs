//! System Management BIOS tables (SMBIOS 3.3.0, DMTF DSP0134), by which a guest learns the name of
//! its machine: Linux' `/sys/class/dmi/id`, `dmidecode`.

use zerocopy::{Immutable, IntoBytes};

/// Guest-physical address of the entry point, which kernels look for from here on (5.2.2). The
/// tables follow it.
pub const SMBIOS: u64 = 0xf_0000;
/// Name of the maker in the tables.
pub const MANUFACTURER: &str = "Nerite";
/// Name of the machine in the tables.
pub const PRODUCT: &str = "Nerite PC";
/// Version in the tables: that of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Date of the firmware, which there is none of. Kernels tell by it how far to trust ACPI.
const DATE: &str = "01/01/2026";

/// 5.2.2, the 64-bit entry point.
#[derive(IntoBytes, Immutable)]
#[repr(C, packed)]
struct EntryPoint {
    anchor: [u8; 5],
    checksum: u8,
    length: u8,
    version: [u8; 3],
    revision: u8,
    reserved: u8,
    max_size: u32,
    table: u64,
}

const ENTRY_POINT_LENGTH: u8 = 0x18;

/// The entry point and all structures, for [`SMBIOS`].
#[must_use]
pub fn tables() -> Vec<u8> {
    let mut table = Vec::new();
    // 7.1, firmware: no ROM; its characteristics are not supported, but that it is a virtual
    // machine's (extension byte 2, bit 4).
    let firmware = [1, 2, 0, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1 << 4, 0, 0, 0xff, 0xff];
    structure(&mut table, 0, &firmware, &[MANUFACTURER, VERSION, DATE]);
    // 7.2, system: no serial number, no UUID, woken by the power switch; no SKU, no family.
    let mut system = [0; 23];
    (system[0], system[1], system[2], system[20]) = (1, 2, 3, 6);
    structure(&mut table, 1, &system, &[MANUFACTURER, PRODUCT, VERSION]);
    // 7.4, enclosure: of kind "other", whose states are safe and whose security is none.
    let enclosure = [1, 1, 0, 0, 0, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    structure(&mut table, 3, &enclosure, &[MANUFACTURER]);
    // 7.45, the end.
    structure(&mut table, 127, &[], &[]);
    let size = u32::try_from(table.len()).unwrap_or(u32::MAX);
    let start = SMBIOS.saturating_add(u64::from(ENTRY_POINT_LENGTH).next_multiple_of(16));
    let mut entry = EntryPoint {
        anchor: *b"_SM3_",
        checksum: 0,
        length: ENTRY_POINT_LENGTH,
        version: [3, 3, 0],
        revision: 1,
        reserved: 0,
        max_size: size,
        table: start,
    };
    let sum = entry.as_bytes().iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    entry.checksum = sum.wrapping_neg();
    let mut bytes = entry.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes.extend(table);
    bytes
}

/// Adds a structure with its strings (6.1.2 and 6.1.3). Its handle is its place among all.
fn structure(table: &mut Vec<u8>, kind: u8, formatted: &[u8], strings: &[&str]) {
    let length = u8::try_from(formatted.len().saturating_add(4)).unwrap_or(u8::MAX);
    // There is one of each type: its number is as good a handle as any.
    table.extend([kind, length, kind, 0]);
    table.extend(formatted);
    for text in strings {
        table.extend(text.as_bytes());
        table.push(0);
    }
    table.push(0);
    if strings.is_empty() {
        table.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each structure's type, formatted part and strings, as a kernel walks them.
    fn walk(mut table: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut found = Vec::new();
        while !table.is_empty() {
            let (kind, length) = (table[0], usize::from(table[1]));
            let formatted = table[..length].to_vec();
            let end = (length..).find(|at| table[*at..].starts_with(&[0, 0])).unwrap();
            let strings = table[length..end].split(|byte| *byte == 0);
            let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap());
            found.push((kind, formatted, strings.filter(|text| !text.is_empty()).collect()));
            table = &table[end + 2..];
        }
        found
    }

    #[test]
    fn a_kernel_finds_name_and_version() {
        let bytes = tables();
        let entry = &bytes[..usize::from(ENTRY_POINT_LENGTH)];
        assert_eq!(&entry[..5], b"_SM3_");
        assert_eq!(entry.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let start = u64::from_le_bytes(entry[16..24].try_into().unwrap());
        let table = &bytes[usize::try_from(start - SMBIOS).unwrap()..];
        assert_eq!(u32::from_le_bytes(entry[12..16].try_into().unwrap()) as usize, table.len());
        let found = walk(table);
        let kinds: Vec<_> = found.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [0, 1, 3, 127]);
        // The lengths that the structures have in version 3.3 or earlier ones.
        let lengths: Vec<_> = found.iter().map(|(_, formatted, _)| formatted.len()).collect();
        assert_eq!(lengths, [0x18, 0x1b, 0x16, 4]);
        let (_, system, strings) = &found[1];
        let text = |at: usize| strings[usize::from(system[at]) - 1].as_str();
        assert_eq!((text(4), text(5), text(6)), (MANUFACTURER, PRODUCT, VERSION));
        assert_eq!(found[0].2[usize::from(found[0].1[8]) - 1], DATE);
    }
}
