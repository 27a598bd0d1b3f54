//! Multiboot 1's information structure (Multiboot Specification 0.6.96, 3.3).

use zerocopy::{Immutable, IntoBytes};

use super::{EBDA, HIGH_MEMORY, INFO, STRINGS, STRINGS_END, TABLES, map};
use crate::Error;

/// EAX at entry.
pub const LOADER_MAGIC: u64 = 0x2bad_b002;
/// The most modules there is room for.
pub const MAX_MODULES: usize = 64;

const HAS_MEMORY: u32 = 1;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const HAS_LOADER_NAME: u32 = 1 << 9;
const LOADER_NAME: &str = "Nerite";

/// The information, up to its last field that is used.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Information {
    flags: u32,
    memory_lower: u32,
    memory_upper: u32,
    boot_device: u32,
    command_line: u32,
    module_count: u32,
    modules: u32,
    symbols: [u32; 4],
    map_length: u32,
    map: u32,
    drives_length: u32,
    drives: u32,
    config_table: u32,
    loader_name: u32,
    apm_table: u32,
    video: [u32; 6],
}

/// One module's entry.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ModuleEntry {
    start: u32,
    end: u32,
    string: u32,
    reserved: u32,
}

/// One entry of the memory map; `size` does not count itself.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C, packed)]
struct MapEntry {
    size: u32,
    address: u64,
    length: u64,
    kind: u32,
}

/// A module in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The first address.
    pub start: u32,
    /// The first address after it.
    pub end: u32,
    /// Name of the module.
    pub name: String,
}

/// Writes to guest memory: the information, its tables, its strings.
///
/// # Errors
/// If there are more modules than there is room for, or their names are too long.
pub fn information(
    command_line: u32,
    modules: &[Module],
    map: &[map::Entry],
) -> Result<[(u64, Vec<u8>); 3], Error> {
    if modules.len() > MAX_MODULES {
        return Err(Error::TooManyModules { given: modules.len(), allowed: MAX_MODULES });
    }
    let mut strings = Vec::new();
    let mut string = |text: &str| -> Result<u32, Error> {
        if text.contains('\0') {
            return Err(Error::Nul { what: "module name", text: text.to_owned() });
        }
        let at = STRINGS.saturating_add(strings.len() as u64);
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        if STRINGS.saturating_add(strings.len() as u64) > STRINGS_END {
            return Err(Error::ModuleNames { allowed: STRINGS_END.saturating_sub(STRINGS) });
        }
        Ok(low(at))
    };
    let mut tables = Vec::new();
    for module in modules {
        let entry = ModuleEntry {
            start: module.start,
            end: module.end,
            string: string(&module.name)?,
            reserved: 0,
        };
        tables.extend_from_slice(entry.as_bytes());
    }
    let map_at = TABLES.saturating_add(tables.len() as u64);
    for entry in map {
        let entry = MapEntry {
            size: 20,
            address: entry.start,
            length: entry.size,
            kind: entry.kind.number(),
        };
        tables.extend_from_slice(entry.as_bytes());
    }
    let map_end = TABLES.saturating_add(tables.len() as u64);
    // Memory from 1 MiB up to the first hole, in KiB.
    let upper =
        map.iter().find(|entry| entry.start == HIGH_MEMORY).map_or(0, |entry| entry.size >> 10);
    let information = Information {
        flags: HAS_MEMORY
            | HAS_COMMAND_LINE
            | if modules.is_empty() { 0 } else { HAS_MODULES }
            | HAS_MEMORY_MAP
            | HAS_LOADER_NAME,
        memory_lower: low(EBDA >> 10),
        memory_upper: low(upper),
        boot_device: 0,
        command_line,
        module_count: u32::try_from(modules.len()).unwrap_or(0),
        modules: low(TABLES),
        symbols: [0; 4],
        map_length: low(map_end.saturating_sub(map_at)),
        map: low(map_at),
        drives_length: 0,
        drives: 0,
        config_table: 0,
        loader_name: string(LOADER_NAME)?,
        apm_table: 0,
        video: [0; 6],
    };
    Ok([(INFO, information.as_bytes().to_vec()), (TABLES, tables), (STRINGS, strings)])
}

/// An address or size below 4 GiB, as all here are.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let map = map::entries(64 << 20, 0);
        let modules = [
            Module { start: 0x20_0000, end: 0x20_0010, name: "first".to_owned() },
            Module { start: 0x20_1000, end: 0x20_1001, name: "second one".to_owned() },
        ];
        let [(_, info), (_, tables), (_, strings)] = information(0x9_b000, &modules, &map).unwrap();
        assert_eq!(info.len(), 96);
        assert_eq!(u32_at(&info, 0), 0b10_0100_1101);
        assert_eq!((u32_at(&info, 4), u32_at(&info, 8)), (639, 63 << 10));
        assert_eq!(u32_at(&info, 16), 0x9_b000);
        assert_eq!((u32_at(&info, 20), u64::from(u32_at(&info, 24))), (2, TABLES));
        assert_eq!((u32_at(&tables, 16), u32_at(&tables, 20)), (0x20_1000, 0x20_1001));
        let name = |at: u32| {
            let start = usize::try_from(u64::from(at) - STRINGS).unwrap();
            strings[start..].split(|byte| *byte == 0).next().unwrap().to_vec()
        };
        assert_eq!(name(u32_at(&tables, 8)), b"first");
        assert_eq!(name(u32_at(&tables, 24)), b"second one");
        assert_eq!(name(u32_at(&info, 64)), b"Nerite");
        let map_at = usize::try_from(u64::from(u32_at(&info, 48)) - TABLES).unwrap();
        assert_eq!(u32_at(&info, 44) as usize, map.len() * 24);
        // Size 20, address 0, 639 KiB, RAM.
        assert_eq!(u32_at(&tables, map_at), 20);
        assert_eq!((u32_at(&tables, map_at + 12), u32_at(&tables, map_at + 20)), (0x9_fc00, 1));
    }

    #[test]
    fn without_modules_there_is_no_flag_for_them() {
        let [(_, info), ..] = information(0, &[], &[]).unwrap();
        assert_eq!(u32_at(&info, 0) & HAS_MODULES, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let module = |name: &str| Module { start: 0, end: 0, name: name.to_owned() };
        assert!(matches!(
            information(0, &vec![module(""); 65], &[]),
            Err(Error::TooManyModules { given: 65, .. })
        ));
        assert!(matches!(
            information(0, &[module(&"x".repeat(5000))], &[]),
            Err(Error::ModuleNames { .. })
        ));
        assert!(matches!(information(0, &[module("a\0b")], &[]), Err(Error::Nul { .. })));
    }
}
