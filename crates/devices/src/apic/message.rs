//! Messages between processors and from devices (Intel SDM vol. 3, 12.6.1 and 12.11).

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// An interrupt with this vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A reset; the processor then waits for a start.
    Init,
    /// Start in real mode at this page.
    Startup(u8),
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The processor with this APIC id.
    One(u32),
    /// All.
    All,
    /// All but the sender.
    Others,
    /// Processors by their logical ids: those at these places of a cluster (x2APIC), or whose logical destination register has
    /// one of these bits (xAPIC, flat model).
    Logical {
        /// The cluster; none in xAPIC mode.
        cluster: Option<u32>,
        /// One bit for each place.
        places: u32,
    },
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Whom it is for.
    pub target: Target,
    /// What it does.
    pub delivery: Delivery,
}

/// Bits of the interrupt command register.
const LOGICAL: u64 = 1 << 11;
const ASSERTED: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;

impl Message {
    /// What this value of the command register in x2APIC mode sends; nothing, if its mode is reserved or it takes a reset back.
    pub(super) fn from_x2apic(command: u64, sender: u32) -> Option<Self> {
        let destination = u32::try_from(command >> 32).ok()?;
        let target = match destination {
            u32::MAX => Target::All,
            logical if command & LOGICAL != 0 => {
                Target::Logical { cluster: Some(logical >> 16), places: logical & 0xffff }
            }
            id => Target::One(id),
        };
        Self::new(command, target, sender)
    }

    /// The same in xAPIC mode, where ids have 8 bits.
    pub(super) fn from_xapic(command: u64, sender: u32) -> Option<Self> {
        let destination = u32::try_from(command >> 56).ok()?;
        let target = match destination {
            0xff => Target::All,
            places if command & LOGICAL != 0 => Target::Logical { cluster: None, places },
            id => Target::One(id),
        };
        Self::new(command, target, sender)
    }

    fn new(command: u64, target: Target, sender: u32) -> Option<Self> {
        let [vector, ..] = command.to_le_bytes();
        let delivery = match command >> 8 & 7 {
            // Lowest priority is as good as fixed where the target is one.
            0 | 1 => Delivery::Fixed(vector),
            4 => Delivery::Nmi,
            // INIT with level de-assert synchronises arbitration ids, which are no more.
            5 if command & LEVEL != 0 && command & ASSERTED == 0 => return None,
            5 => Delivery::Init,
            6 => Delivery::Startup(vector),
            _ => return None,
        };
        let target = match command >> 18 & 3 {
            0 => target,
            1 => Target::One(sender),
            2 => Target::All,
            _ => Target::Others,
        };
        Some(Self { target, delivery })
    }

    /// What a device sends that writes `data` to `address`; nothing if that is no interrupt message.
    #[must_use]
    pub fn from_device(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != 0xfee {
            return None;
        }
        let destination = u32::try_from(address >> 12 & 0xff).ok()?;
        let target = match destination {
            0xff => Target::All,
            places if address & 1 << 2 != 0 => Target::Logical { cluster: None, places },
            id => Target::One(id),
        };
        let [vector, ..] = data.to_le_bytes();
        let delivery = match data >> 8 & 7 {
            0 | 1 => Delivery::Fixed(vector),
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            _ => return None,
        };
        Some(Self { target, delivery })
    }
}
