//! Errors of building boot data.

/// Boot data could not be built. All causes are settings of the host or the image, none a running
/// guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A string for the guest holds a NUL byte, which no guest could see.
    #[error(
        "the {what} {text:?} holds a NUL character, which cannot be handed to the guest: remove it"
    )]
    Nul {
        /// Kind of the string.
        what: &'static str,
        /// The string.
        text: String,
    },
    /// `--` among the kernel's arguments would end them early.
    #[error("`--` cannot be an argument of the kernel: it starts the application's arguments")]
    KernelArgument,
    /// The name of an environment variable is empty or holds `=`.
    #[error("environment variable {name:?}: a name must not be empty and must not hold `=`")]
    EnvironmentName {
        /// The name.
        name: String,
    },
    /// The device tree writer refused.
    #[error("cannot build the guest's device tree: {0}")]
    DeviceTree(String),
    /// The range to map or the tables are not where they can be.
    #[error(
        "boot page tables: {what} {value:#x} must be a multiple of {unit:#x} within the lower 128 TiB"
    )]
    Unaligned {
        /// Which address.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Required alignment.
        unit: u64,
    },
    /// There is too little room for the page tables.
    #[error("boot page tables: {room:#x} bytes of room are too few to map {start:#x}..{end:#x}")]
    TableRoom {
        /// The room in bytes.
        room: u64,
        /// The first address to map.
        start: u64,
        /// The first address after what to map.
        end: u64,
    },
    /// More multiboot modules than the information has room for.
    #[error("{given} modules are more than the {allowed} that a multiboot kernel can be handed")]
    TooManyModules {
        /// Number of modules given.
        given: usize,
        /// Maximum number of modules.
        allowed: usize,
    },
    /// The modules' names are too long together.
    #[error("the names of the modules are longer than {allowed} bytes together; use shorter paths")]
    ModuleNames {
        /// Room for all names in bytes.
        allowed: u64,
    },
}
