//! PCI for virtual machines: **configuration space, what lies behind base addresses, and interrupts
//! are three separate things**, and a device brings only the second.
//!
//! * [`ConfigSpace`] is a type 0 header as data: registers and which of their bits software can
//!   change, base addresses that can be sized and moved, a list of capabilities.
//! * [`Function`] is one device function: its configuration space, and reads and writes behind its
//!   base addresses.
//! * [`Bridge`] holds the functions of bus 0. It answers the configuration ports 0xCF8 and 0xCFC
//!   through [`Bridge::ports`], the same registers in memory through [`Ecam`], and accesses
//!   behind base addresses through [`Bridge::window`]. What is absent reads all ones.
//! * [`Msix`] is an MSI-X capability with its table: it connects an [`Event`] per vector to the
//!   message that software chose, through [`MessageRoutes`], so that interrupts need no thread in
//!   between.
//!
//! There is no hypervisor in it.
//!
//! ```
//! use nerite_pci::{Bar, ConfigSpace, Identity};
//!
//! let identity = Identity { vendor: 0x1af4, device: 0x1041, ..Identity::default() };
//! let mut config = ConfigSpace::new(&identity);
//! config.add_bar(0, Bar { size: 0x8000, prefetchable: true, is_64_bit: true })?;
//! // A driver finds the size out: all ones in, the bits that stay zero tell.
//! config.write(0x10, 4, 0xffff_ffff);
//! assert_eq!(config.read(0x10, 4), 0xffff_800c);
//! # Ok::<(), nerite_pci::Error>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bridge;
mod config;
mod ecam;
#[cfg(feature = "exercise")]
pub mod exercise;
mod host;
mod msix;
mod state;

// Crates whose types are in this one's interface.
pub use nerite_bus;
pub use nerite_log_budget;
pub use nerite_saved;

pub use bridge::{Bridge, ConfigPorts, FIRST_PORT, Function, LAST_PORT, SLOTS, WINDOW, Window};
pub use config::{Bar, COMMAND, Capability, ConfigSpace, Error, Identity, command};
pub use ecam::Ecam;
pub use host::HostBridge;
pub use msix::{ENTRY_SIZE, MAX_VECTORS, Message, MessageRoutes, Msix, NotConnected};
pub use nerite_event::Event;
pub use state::{ConfigPortsState, ConfigSpaceState, MsixEntryState, MsixState};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
