//! Everything about an image, for `vmm inspect`.

use std::fmt;
use std::sync::Arc;

use crate::{
    Entry, Format, Image, ImageConfig, Interface, KernelVersion, RelocationCounts, Segment, Tls,
    text,
};

/// Everything about an image; shown as lines of `name: value`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// Packaging.
    pub format: Format,
    /// Size in bytes of the file.
    pub file_size: u64,
    /// Size in bytes of the archive when decompressed, if it is one.
    pub archive_size: Option<u64>,
    /// Entry point, as linked.
    pub entry: u64,
    /// The only address it runs at, unless it is relocatable.
    pub fixed_start: Option<u64>,
    /// Bytes of guest memory the kernel takes.
    pub mem_size: u64,
    /// Kernel version.
    pub version: Option<KernelVersion>,
    /// Hypercall interface.
    pub interface: Interface,
    /// Number in the `UHYVEIF` note.
    pub interface_version: Option<u32>,
    /// `true` if the OS/ABI byte is that of Hermit (255, standalone).
    pub standalone: bool,
    /// Loadable segments.
    pub segments: Vec<Segment>,
    /// Thread-local storage template.
    pub tls: Option<Tls>,
    /// Relocations.
    pub relocations: RelocationCounts,
    /// Number of function symbols.
    pub symbols: usize,
    /// Configuration of an archive.
    pub config: Option<ImageConfig>,
    /// Files of an archive.
    pub entries: Arc<[Entry]>,
}

impl Image {
    /// Everything a person may want to know about it.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        Inspection::new(self)
    }
}

impl Inspection {
    fn new(image: &Image) -> Self {
        let kernel = image.kernel();
        Self {
            format: image.format(),
            file_size: image.file_size(),
            archive_size: image.archive().map(crate::Archive::size),
            entry: kernel.entry(),
            fixed_start: kernel.fixed_start(),
            mem_size: kernel.mem_size(),
            version: kernel.version(),
            interface: kernel.interface(),
            interface_version: kernel.interface_version(),
            standalone: kernel.is_standalone(),
            segments: kernel.segments().to_vec(),
            tls: kernel.tls(),
            relocations: kernel.relocations(),
            symbols: kernel.symbols().len(),
            config: image.config().cloned(),
            entries: image.archive().map(crate::Archive::shared_entries).unwrap_or_default(),
        }
    }

    fn kernel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => line(f, "kernel version", format_args!("{version}"))?,
            None => line(f, "kernel version", format_args!("not given (before 0.10)"))?,
        }
        match self.interface_version {
            Some(number) => {
                line(
                    f,
                    "hypercalls",
                    format_args!("{} (interface version {number})", self.interface),
                )?;
            }
            None => line(f, "hypercalls", format_args!("{} (no version given)", self.interface))?,
        }
        match self.fixed_start {
            Some(start) => line(f, "address", format_args!("fixed, {start:#x}"))?,
            None => line(f, "address", format_args!("relocatable"))?,
        }
        line(f, "entry", format_args!("{:#x}", self.entry))?;
        line(f, "memory", format_args!("{:#x} ({})", self.mem_size, Size(self.mem_size)))?;
        if !self.standalone {
            line(f, "OS/ABI", format_args!("not that of Hermit"))?;
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let name = if index == 0 { "segments" } else { "" };
            let Segment { address, memory_size, file_offset, file_size, align, flags } = segment;
            line(
                f,
                name,
                format_args!(
                    "{address:#010x} +{memory_size:#x} {flags} from {file_offset:#x} +{file_size:#x} align {align:#x}"
                ),
            )?;
        }
        match self.tls {
            Some(Tls { start, filesz, memsz, align }) => {
                line(
                    f,
                    "TLS",
                    format_args!(
                        "{start:#010x} +{memsz:#x}, {filesz:#x} initialised, align {align:#x}"
                    ),
                )?;
            }
            None => line(f, "TLS", format_args!("none"))?,
        }
        line(f, "relocations", format_args!("{}", self.relocations))?;
        match self.symbols {
            0 => line(f, "symbols", format_args!("none (stripped)")),
            count => line(f, "symbols", format_args!("{count} functions")),
        }
    }

    fn files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            let name = if index == 0 { "files" } else { "" };
            line(f, name, format_args!("{}", Listed(entry)))?;
        }
        Ok(())
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file_size = Size(self.file_size);
        match self.archive_size {
            Some(size) => {
                line(f, "format", format_args!("gzip'd tar, {file_size}, {} unpacked", Size(size)))?
            }
            None => line(f, "format", format_args!("ELF, {file_size}"))?,
        }
        self.kernel(f)?;
        if let Some(config) = &self.config {
            show_config(f, config)?;
        }
        self.files(f)
    }
}

impl fmt::Display for RelocationCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let kinds = [
            (self.relative, "relative"),
            (self.compact, "compact relative"),
            (self.absolute, "64-bit"),
            (self.glob_dat, "GLOB_DAT"),
        ];
        let mut separator = ": ";
        for (count, kind) in kinds.into_iter().filter(|(count, _)| *count != 0) {
            write!(f, "{separator}{count} {kind}")?;
            separator = ", ";
        }
        match self.weak {
            0 => Ok(()),
            weak => write!(f, " ({weak} against undefined weak symbols)"),
        }
    }
}

fn show_config(f: &mut fmt::Formatter<'_>, config: &ImageConfig) -> fmt::Result {
    line(f, "kernel file", format_args!("{}", text::printable(config.kernel.as_bytes())))?;
    list(f, "kernel arguments", config.kernel_args.iter().map(String::as_str))?;
    list(f, "arguments", config.app_args.iter().map(String::as_str))?;
    for (index, value) in config.env_vars.iter().enumerate() {
        let name = if index == 0 { "environment" } else { "" };
        let note = if crate::config::assignment(value).is_some() {
            ""
        } else {
            " (no effect: not NAME=value)"
        };
        line(f, name, format_args!("{}{note}", text::printable(value.as_bytes())))?;
    }
    if let Some(memory) = config.memory {
        line(f, "needs memory", format_args!("{}", Size(memory)))?;
    }
    if let Some(cpus) = config.cpus {
        line(f, "needs vCPUs", format_args!("{cpus}"))?;
    }
    Ok(())
}

/// A line for each value, the first with the name.
fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    values: impl Iterator<Item = &'a str>,
) -> fmt::Result {
    for (index, value) in values.enumerate() {
        let name = if index == 0 { name } else { "" };
        line(f, name, format_args!("{}", text::printable(value.as_bytes())))?;
    }
    Ok(())
}

/// One line; the value starts in the same column on each.
pub(crate) fn line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: fmt::Arguments<'_>,
) -> fmt::Result {
    let name = if name.is_empty() { String::new() } else { format!("{name}:") };
    writeln!(f, "{name:<18}{value}")
}

/// An entry of an archive on one line.
struct Listed<'a>(&'a Entry);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0;
        write!(f, "{:04o} {:>10} {}", entry.mode, entry.size(), text::printable(&entry.name))?;
        if let Some(target) = &entry.target {
            write!(f, " -> {}", text::printable(target))?;
        }
        if entry.kind != crate::EntryKind::File {
            write!(f, " ({})", entry.kind.describe())?;
        }
        if entry.is_absolute() {
            f.write_str(" (absolute name)")?;
        }
        if entry.has_parent_component() {
            f.write_str(" (name with ..)")?;
        }
        Ok(())
    }
}

/// A number of bytes for people, in binary units with one decimal.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in units {
            let whole = self.0 >> shift;
            if whole > 0 {
                let rest = self.0 & ((1_u64 << shift).wrapping_sub(1));
                return write!(f, "{whole}.{} {unit}", rest.saturating_mul(10) >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}
