//! Errors of reading, parsing and loading an image.

use std::io;
use std::path::PathBuf;

use crate::{EntryKind, Protocol};

/// Reason that an image could not be read, parsed or loaded.
///
/// Each message is one line, safe to print whatever the image holds. The path is part of it only in
/// [`Error::InFile`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another error, with the file it is about.
    #[error("{}", crate::text::printable(path.as_os_str().as_encoded_bytes()))]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        error: Box<Error>,
    },
    /// Another error, in the kernel inside of a Hermit image archive.
    #[error("kernel \"{name}\" of the archive")]
    InArchive {
        /// Name of the kernel in the archive.
        name: String,
        /// The error.
        #[source]
        error: Box<Error>,
    },

    /// The file could not be read.
    #[error("cannot read the image")]
    Read(#[source] io::Error),
    /// The file was cut short after it was opened.
    #[error("the file became shorter while it was read; start again when nothing writes to it")]
    Shrunk,
    /// The path names a directory, a device or a pipe.
    #[error("not a regular file; give the path of an image")]
    NotAFile,
    /// The file has no bytes.
    #[error("the file is empty; was the build interrupted?")]
    Empty,
    /// The file is larger than [`crate::Limits::max_file`].
    #[error("too large for an image: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Neither ELF nor gzip, nor anything else that boots.
    #[error(
        "not an image: {found}, neither an ELF file nor a gzip'd tar, nor a Linux or multiboot kernel"
    )]
    UnknownFormat {
        /// Description of the first bytes.
        found: String,
    },

    /// The ELF file ends early.
    #[error(
        "truncated ELF file: {what} needs {needed} bytes, the file has {size}; copy or build it again"
    )]
    Truncated {
        /// The part that lies outside of the file.
        what: &'static str,
        /// Size in bytes that the file would have to have.
        needed: u64,
        /// Size in bytes that it has.
        size: u64,
    },
    /// A 32-bit ELF file.
    #[error("a 32-bit ELF file for {machine}, only 64-bit x86-64 is supported")]
    Class32 {
        /// The machine it is for.
        machine: String,
    },
    /// A big-endian ELF file.
    #[error("a big-endian ELF file for {machine}, only x86-64 is supported")]
    BigEndian {
        /// The machine it is for.
        machine: String,
    },
    /// An ELF file for another architecture.
    #[error("built for {machine}, only x86-64 is supported")]
    WrongArchitecture {
        /// The machine it is for.
        machine: String,
    },
    /// An ELF file that is no program, such as an object file or a core dump.
    #[error("{found}, not an executable")]
    NotExecutable {
        /// Kind of file, with an article.
        found: String,
    },
    /// The program needs shared libraries.
    #[error("dynamically linked, it needs the shared library \"{library}\"")]
    Dynamic {
        /// The first library.
        library: String,
    },
    /// A table of the ELF file cannot be read.
    #[error("malformed ELF file: {0}")]
    Malformed(String),

    /// The first note segment has no Hermit entry version.
    #[error("no Hermit entry version note{}", if *later { " in the first note segment (a later one has it: join them in the linker script)" } else { "" })]
    NoNote {
        /// A later note segment has it, where loaders do not look.
        later: bool,
    },
    /// The kernel wants to be entered in a way that is not known here.
    #[error(
        "Hermit entry version {found} is not supported, only 4; build with a matching version of the hermit crate"
    )]
    EntryVersion {
        /// The version found.
        found: u8,
    },
    /// The kernel speaks a hypercall interface that is not known here.
    #[error(
        "hypercall interface version {found} is not supported, only 1 to 3; a newer monitor is needed"
    )]
    InterfaceVersion {
        /// The version found.
        found: u32,
    },

    /// More program headers than any linker makes.
    #[error("{count} program headers, at most {limit} are supported")]
    TooManySegments {
        /// Number of program headers.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// Nothing to load.
    #[error("no loadable segment")]
    NoSegments,
    /// A segment with impossible numbers.
    #[error("segment {index}: {problem}")]
    Segment {
        /// Index among the program headers.
        index: usize,
        /// The rule that the segment breaks.
        problem: &'static str,
    },
    /// Two segments overlap or are out of order.
    #[error("segments {first} and {second} overlap or are not in ascending order")]
    SegmentOrder {
        /// Index of the first among the program headers.
        first: usize,
        /// Index of the second.
        second: usize,
    },
    /// The kernel needs more memory than [`crate::Limits::max_memory`].
    #[error("the kernel needs {size:#x} bytes of memory, the limit is {limit:#x}")]
    MemorySize {
        /// Bytes needed.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A relocatable kernel that does not start at 0.
    #[error("relocatable kernel linked at {address:#x}; link it at address 0")]
    LinkAddress {
        /// Address of the first segment.
        address: u64,
    },
    /// The entry point is in no segment.
    #[error("the entry point {entry:#x} is outside of all loadable segments")]
    Entry {
        /// The entry point, as linked.
        entry: u64,
    },
    /// The thread-local storage segment has impossible numbers.
    #[error("thread-local storage: {0}")]
    Tls(&'static str),
    /// A relocation of a kind that is not known here.
    #[error("relocation type {kind} at {place:#x} is not supported; link as static-pie")]
    RelocationKind {
        /// Name of the kind.
        kind: String,
        /// Address to relocate, as linked.
        place: u64,
    },
    /// A relocation that would write outside of the kernel, or to the relocations themselves.
    #[error(
        "relocation at {place:#x} is outside of the kernel's memory, in its relocation table, or out of order"
    )]
    RelocationPlace {
        /// Address to relocate, as linked.
        place: u64,
    },
    /// A relocation against a symbol that the table does not have.
    #[error("relocation at {place:#x} names symbol {symbol}, which the symbol table does not have")]
    RelocationSymbol {
        /// Address to relocate, as linked.
        place: u64,
        /// Index of the symbol.
        symbol: u32,
    },
    /// A relocation against a symbol that is defined nowhere.
    #[error("undefined symbol \"{name}\"; link the library that defines it")]
    UndefinedSymbol {
        /// Its name.
        name: String,
    },

    /// The kernel was to be loaded where it cannot run.
    #[error("the kernel must be loaded at {wanted:#x}, not at {start:#x}")]
    WrongStart {
        /// The address asked for.
        start: u64,
        /// The address the kernel is linked at, or the nearest one that is a multiple of the page
        /// size.
        wanted: u64,
    },
    /// Guest memory does not hold the whole range of the kernel.
    #[error("the kernel needs guest memory from {start:#x} to {end:#x}")]
    OutsideMemory {
        /// First address.
        start: u64,
        /// Address after the last one.
        end: u64,
    },
    /// Guest memory could not be written.
    #[error("cannot write the kernel to guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),

    /// The gzip stream is damaged.
    #[error("malformed gzip data (copy or build the image again)")]
    Gzip(#[source] io::Error),
    /// The gzip stream is longer than [`crate::Limits::max_decompressed`].
    #[error("the archive has more than {limit} bytes when decompressed, which is the limit")]
    Bomb {
        /// The limit in bytes.
        limit: u64,
    },
    /// The tar archive is damaged.
    #[error("malformed tar archive, entry {entry}: {problem}")]
    Tar {
        /// Index of the entry.
        entry: usize,
        /// Description of the damage.
        problem: String,
    },
    /// The archive has more entries than [`crate::Limits::max_entries`].
    #[error("the archive has more than {limit} entries, which is the limit")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// The names and link targets in the archive have more bytes than [`crate::Limits::max_names`].
    #[error("the names in the archive have more than {limit} bytes together, which is the limit")]
    NamesTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The archive has no configuration.
    #[error("the archive has no hermit.toml; it is no Hermit image")]
    NoConfig,
    /// The configuration cannot be understood.
    #[error("hermit.toml{}: {problem}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Config {
        /// Line, counted from 1; `None` if something is missing.
        line: Option<usize>,
        /// Description of the fault.
        problem: String,
    },
    /// The archive has no kernel by the name that the configuration gives.
    #[error("hermit.toml names the kernel \"{name}\", which the archive does not have")]
    NoKernel {
        /// The name.
        name: String,
    },
    /// A file that must be regular is something else.
    #[error("\"{name}\" in the archive is {}, it must be a regular file", kind.describe())]
    NotRegular {
        /// The name.
        name: String,
        /// Kind of the entry.
        kind: EntryKind,
    },

    /// The image was to be started in a way that it cannot be.
    #[error("not a kernel that boots as {protocol}: it lacks {lacks}")]
    NotOfProtocol {
        /// The way.
        protocol: Protocol,
        /// Part of the protocol that the file lacks.
        lacks: &'static str,
    },
    /// A kernel that is not Hermit's says something impossible.
    #[error("{protocol} kernel: {problem}")]
    Kernel {
        /// Boot protocol of the kernel.
        protocol: Protocol,
        /// The rule of the protocol that the kernel breaks.
        problem: &'static str,
    },
    /// A Linux kernel from before 2009.
    #[error("Linux boot protocol {}.{:02}, 2.10 or later is needed (Linux 2.6.31)", found >> 8, found & 0xff)]
    OldBootProtocol {
        /// The version found.
        found: u16,
    },
}
