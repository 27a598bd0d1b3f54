//! Linux' zero page, `struct boot_params` (Linux, Documentation/arch/x86/zero-page.rst and
//! boot.rst).

use std::mem::offset_of;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::map::Entry;

/// The size of the zero page.
pub const SIZE: usize = 4096;
/// Offset of the setup header, in the image and in the zero page.
pub const HEADER: usize = offset_of!(boot_params, hdr);
/// Room for the setup header in bytes.
pub const HEADER_SIZE: usize = size_of::<setup_header>();
/// The field `type_of_loader` of a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;

/// Contents of the zero page.
#[derive(Debug, Clone, Copy)]
pub struct ZeroPage<'a> {
    /// The setup header as it lies in the image, from [`HEADER`] on.
    pub header: &'a [u8],
    /// Guest-physical address of the kernel's protected-mode part.
    pub kernel: u32,
    /// The command line's address.
    pub command_line: u32,
    /// Address and size of the initial file system; 0 and 0 if there is none.
    pub initrd: (u32, u32),
    /// The memory map; entries beyond the 128 that fit are left out.
    pub map: &'a [Entry],
    /// The ACPI root pointer's address.
    pub rsdp: u64,
}

impl ZeroPage<'_> {
    /// The page's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut params = boot_params::default();
        let header = params.hdr.as_mut_slice();
        for (to, from) in header.iter_mut().zip(self.header) {
            *to = *from;
        }
        params.hdr.type_of_loader = LOADER_UNDEFINED;
        params.hdr.code32_start = self.kernel;
        params.hdr.cmd_line_ptr = self.command_line;
        (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = self.initrd;
        params.acpi_rsdp_addr = self.rsdp;
        let mut count = 0_u8;
        // A copy, because the structure is packed.
        let mut table = params.e820_table;
        for (to, entry) in table.iter_mut().zip(self.map) {
            *to = boot_e820_entry {
                addr: entry.start,
                size: entry.size,
                r#type: entry.kind.number(),
            };
            count = count.saturating_add(1);
        }
        params.e820_table = table;
        params.e820_entries = count;
        params.as_slice().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::map;
    use super::*;

    #[test]
    fn fields_are_where_the_documentation_has_them() {
        let map = map::entries(128 << 20, 1 << 30);
        let mut header = vec![0; HEADER_SIZE];
        header[0x211 - HEADER] = 0x81;
        header[0x236 - HEADER] = 3;
        let page = ZeroPage {
            header: &header,
            kernel: 0x100_0000,
            command_line: 0x9_b000,
            initrd: (0x700_0000, 0x1234),
            map: &map,
            rsdp: 0xe_0000,
        };
        let bytes = page.bytes();
        let u32_at =
            |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
        assert_eq!(bytes.len(), SIZE);
        assert_eq!(HEADER, 0x1f1);
        assert_eq!(bytes[0x1e8], 6);
        assert_eq!((bytes[0x210], bytes[0x211], bytes[0x236]), (0xff, 0x81, 3));
        assert_eq!((u32_at(0x214), u32_at(0x228)), (0x100_0000, 0x9_b000));
        assert_eq!((u32_at(0x218), u32_at(0x21c)), (0x700_0000, 0x1234));
        assert_eq!(u32_at(0x70), 0xe_0000);
        // The fourth entry: RAM from 1 MiB.
        assert_eq!((u32_at(0x2d0 + 60), u32_at(0x2d0 + 60 + 16)), (0x10_0000, 1));
    }

    #[test]
    fn a_short_header_leaves_zeros() {
        let page = ZeroPage {
            header: &[7; 3],
            kernel: 0,
            command_line: 0,
            initrd: (0, 0),
            map: &[],
            rsdp: 0,
        };
        let bytes = page.bytes();
        assert_eq!(bytes[HEADER..HEADER + 4], [7, 7, 7, 0]);
    }
}
