//! PVH's start info (Xen, public/arch-x86/hvm/start_info.h).

use zerocopy::{Immutable, IntoBytes};

use super::{INFO, TABLES, map};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;

/// `struct hvm_start_info`.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// Writes to guest memory: the start info, then its module list and memory map.
///
/// `initrd` is an address and a size, `command_line` and `rsdp` addresses.
#[must_use]
pub fn start_info(
    command_line: u64,
    rsdp: u64,
    initrd: Option<(u64, u64)>,
    map: &[map::Entry],
) -> [(u64, Vec<u8>); 2] {
    let mut tables = Vec::new();
    if let Some((address, size)) = initrd {
        tables.extend_from_slice(Module { address, size, command_line: 0, reserved: 0 }.as_bytes());
    }
    let memory_map = TABLES.saturating_add(tables.len() as u64);
    for entry in map {
        let map::Entry { start: address, size, kind } = *entry;
        tables.extend_from_slice(
            MapEntry { address, size, kind: kind.number(), reserved: 0 }.as_bytes(),
        );
    }
    let info = StartInfo {
        magic: MAGIC,
        version: VERSION,
        flags: 0,
        modules: u32::from(initrd.is_some()),
        module_list: if initrd.is_some() { TABLES } else { 0 },
        command_line,
        rsdp,
        memory_map,
        memory_map_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        reserved: 0,
    };
    [(INFO, info.as_bytes().to_vec()), (TABLES, tables)]
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use linux_loader::loader::elf::start_info::{
        hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
    };

    use super::*;

    #[test]
    fn structures_are_those_of_linux_loader() {
        assert_eq!(size_of::<StartInfo>(), size_of::<hvm_start_info>());
        assert_eq!(offset_of!(StartInfo, memory_map), offset_of!(hvm_start_info, memmap_paddr));
        assert_eq!(offset_of!(StartInfo, rsdp), offset_of!(hvm_start_info, rsdp_paddr));
        assert_eq!(size_of::<Module>(), size_of::<hvm_modlist_entry>());
        assert_eq!(offset_of!(Module, size), offset_of!(hvm_modlist_entry, size));
        assert_eq!(size_of::<MapEntry>(), size_of::<hvm_memmap_table_entry>());
        assert_eq!(offset_of!(MapEntry, kind), offset_of!(hvm_memmap_table_entry, type_));
    }

    #[test]
    fn pointers_lead_to_what_they_name() {
        let map = map::entries(64 << 20, 0);
        let [(at, info), (tables_at, tables)] =
            start_info(0x9_b000, 0xe_0000, Some((0x300_0000, 77)), &map);
        let u64_at = |bytes: &[u8], offset: usize| {
            u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
        };
        assert_eq!((at, tables_at), (INFO, TABLES));
        assert_eq!(info[..4], 0x336e_c578_u32.to_le_bytes());
        assert_eq!(info[12..16], [1, 0, 0, 0]);
        assert_eq!(
            (u64_at(&info, 16), u64_at(&info, 24), u64_at(&info, 32)),
            (TABLES, 0x9_b000, 0xe_0000)
        );
        assert_eq!((u64_at(&tables, 0), u64_at(&tables, 8)), (0x300_0000, 77));
        assert_eq!(u64_at(&info, 40), TABLES + 32);
        assert_eq!(tables.len(), 32 + map.len() * 24);
        let [(_, without), _] = start_info(0, 0, None, &map);
        assert_eq!((without[12], u64_at(&without, 16)), (0, 0));
    }
}
