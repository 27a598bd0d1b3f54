//! Everything about an image of any kind, for `vmm inspect`.

use std::fmt;

use crate::inspect::{Size, line};
use crate::{BzImage, GuestImage, Inspection, SegmentedKernel};

/// Everything about an image; shown as lines of `name: value`.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum GuestInspection {
    /// A Hermit image.
    Hermit(Box<Inspection>),
    /// A Linux bzImage.
    Linux(BzImage),
    /// A kernel with a PVH entry point.
    Pvh(SegmentedKernel),
    /// A multiboot kernel.
    Multiboot {
        /// Segments and entry point.
        kernel: SegmentedKernel,
        /// `true` if the multiboot header has the load addresses, `false` if an ELF file has.
        has_addresses: bool,
    },
}

impl GuestImage {
    /// Everything a person may want to know about it.
    #[must_use]
    pub fn inspect(&self) -> GuestInspection {
        match self {
            Self::Hermit(image) => GuestInspection::Hermit(Box::new(image.inspect())),
            Self::Linux(image) => GuestInspection::Linux(image.clone()),
            Self::Pvh(image) => GuestInspection::Pvh(image.kernel().clone()),
            Self::Multiboot(image) => GuestInspection::Multiboot {
                kernel: image.kernel().clone(),
                has_addresses: image.has_addresses(),
            },
        }
    }
}

impl fmt::Display for GuestInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hermit(inspection) => inspection.fmt(f),
            Self::Linux(image) => linux(f, image),
            Self::Pvh(kernel) => {
                line(f, "format", format_args!("ELF with a PVH entry point"))?;
                segments(f, kernel)
            }
            Self::Multiboot { kernel, has_addresses } => {
                let format = if *has_addresses { "load addresses in its header" } else { "ELF" };
                line(f, "format", format_args!("multiboot 1, {format}"))?;
                segments(f, kernel)
            }
        }
    }
}

fn linux(f: &mut fmt::Formatter<'_>, image: &BzImage) -> fmt::Result {
    let protocol = image.protocol_version();
    line(f, "format", format_args!("Linux bzImage, {} of code", Size(image.code_size())))?;
    line(f, "kernel version", format_args!("{}", image.version().unwrap_or("not given")))?;
    line(f, "boot protocol", format_args!("{}.{:02}", protocol >> 8, protocol & 0xff))?;
    let entry = if image.has_64_bit_entry() { "64-bit" } else { "32-bit" };
    line(f, "entry", format_args!("{:#x}, {entry} mode", image.entry(image.preferred_address())))?;
    let movable = if image.is_relocatable() { "relocatable, " } else { "" };
    line(
        f,
        "address",
        format_args!(
            "{movable}preferred {:#x}, align {:#x}",
            image.preferred_address(),
            image.alignment()
        ),
    )?;
    let size = u64::from(image.init_size());
    line(f, "memory", format_args!("{size:#x} ({})", Size(size)))?;
    line(f, "initrd", format_args!("up to {:#x}", image.initrd_max()))?;
    line(f, "command line", format_args!("up to {} bytes", image.command_line_max()))
}

fn segments(f: &mut fmt::Formatter<'_>, kernel: &SegmentedKernel) -> fmt::Result {
    line(f, "entry", format_args!("{:#x}, 32-bit mode", kernel.entry()))?;
    for (index, segment) in kernel.segments().iter().enumerate() {
        let name = if index == 0 { "segments" } else { "" };
        let (address, memory) = (segment.address, segment.memory_size);
        let (offset, file) = (segment.file_offset, segment.file_size);
        line(f, name, format_args!("{address:#010x} +{memory:#x} from {offset:#x} +{file:#x}"))?;
    }
    Ok(())
}
