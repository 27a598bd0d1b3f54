//! Interrupt messages between processors and from devices (Intel SDM vol. 3, 12.6.1 and 12.11).

/// Effect of a message on the processor that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// An interrupt with this vector.
    Fixed(u8),
    /// An interrupt with this vector for one of the processors addressed.
    LowestPriority(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A reset; the processor then waits for a start.
    Init,
    /// Start in real mode at this page of 4 KiB.
    Startup(u8),
}

/// Processors that a message addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The processor with this APIC ID.
    Physical(u32),
    /// Processors by their logical IDs, read by each APIC in the mode that it is in (Intel SDM vol.
    /// 3, 12.6.2.2 and 12.12.10.2).
    Logical(u32),
    /// The sender alone.
    Sender,
    /// All.
    All,
    /// All but the sender.
    Others,
}

/// An interrupt message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The processors addressed.
    pub target: Target,
    /// The effect on them.
    pub delivery: Delivery,
    /// `true` if the interrupt is level-triggered: its end is broadcast to I/O APICs.
    pub is_level: bool,
    /// Initial APIC ID of the processor that sends it; `None` for a device.
    pub sender: Option<u32>,
}

/// Bits of the interrupt command register (Intel SDM vol. 3, figures 12-12 and 12-28).
const LOGICAL: u64 = 1 << 11;
const ASSERTED: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;

/// Bits of a device's message (Intel SDM vol. 3, 12.11).
const ADDRESS: u64 = 0xfee;
const ADDRESS_LOGICAL: u64 = 1 << 2;
const REDIRECTION_HINT: u64 = 1 << 3;
const DATA_LEVEL: u32 = 1 << 15;

impl Message {
    /// An edge-triggered message of a device.
    #[must_use]
    pub const fn new(target: Target, delivery: Delivery) -> Self {
        Self { target, delivery, is_level: false, sender: None }
    }

    /// The message that this value of the command register sends in x2APIC mode; `None` if its mode
    /// is reserved or it de-asserts a level.
    pub(crate) fn from_x2apic(command: u64, sender: u32) -> Option<Self> {
        let destination = u32::try_from(command >> 32).ok()?;
        Self::from_command(command, destination, u32::MAX, sender)
    }

    /// The same in xAPIC mode, where IDs have 8 bits.
    pub(crate) fn from_xapic(command: u64, sender: u32) -> Option<Self> {
        let destination = u32::try_from(command >> 56).ok()?;
        Self::from_command(command, destination, 0xff, sender)
    }

    fn from_command(command: u64, destination: u32, broadcast: u32, sender: u32) -> Option<Self> {
        let is_level = command & LEVEL != 0;
        if is_level && command & ASSERTED == 0 {
            return None;
        }
        let [vector, mode, ..] = command.to_le_bytes();
        let delivery = match mode & 7 {
            0 => Delivery::Fixed(vector),
            1 => Delivery::LowestPriority(vector),
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            6 => Delivery::Startup(vector),
            _ => return None,
        };
        let target = match command >> 18 & 3 {
            0 => Self::target(destination, broadcast, command & LOGICAL != 0),
            1 => Target::Sender,
            2 => Target::All,
            _ => Target::Others,
        };
        Some(Self { target, delivery, is_level, sender: Some(sender) })
    }

    fn target(destination: u32, broadcast: u32, is_logical: bool) -> Target {
        match destination {
            all if all == broadcast => Target::All,
            ids if is_logical => Target::Logical(ids),
            id => Target::Physical(id),
        }
    }

    /// The message of a device that writes `data` to `address`; `None` if that is no interrupt
    /// message, or one of a delivery mode that no processor here takes (SMI, ExtINT, reserved).
    #[must_use]
    pub fn from_device(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != ADDRESS {
            return None;
        }
        let [destination, ..] = (address >> 12).to_le_bytes();
        let is_logical = address & ADDRESS_LOGICAL != 0;
        let [vector, mode, ..] = data.to_le_bytes();
        let delivery = device_delivery(mode, vector)?;
        let delivery = match delivery {
            Delivery::Fixed(vector) if address & REDIRECTION_HINT != 0 => {
                Delivery::LowestPriority(vector)
            }
            other => other,
        };
        let target = Self::target(destination.into(), 0xff, is_logical);
        Some(Self { target, delivery, is_level: data & DATA_LEVEL != 0, sender: None })
    }

    /// The message of an I/O APIC pin: destination of 8 bits, the redirection entry's low half.
    pub(crate) fn from_pin(destination: u8, low: u32) -> Option<Self> {
        let [vector, mode, ..] = low.to_le_bytes();
        let delivery = device_delivery(mode, vector)?;
        let target = Self::target(destination.into(), 0xff, u64::from(low) & LOGICAL != 0);
        Some(Self { target, delivery, is_level: u64::from(low) & LEVEL != 0, sender: None })
    }

    /// The vector of an interrupt; `None` for other deliveries.
    #[must_use]
    pub const fn vector(&self) -> Option<u8> {
        match self.delivery {
            Delivery::Fixed(vector) | Delivery::LowestPriority(vector) => Some(vector),
            Delivery::Nmi | Delivery::Init | Delivery::Startup(_) => None,
        }
    }
}

fn device_delivery(mode: u8, vector: u8) -> Option<Delivery> {
    match mode & 7 {
        0 => Some(Delivery::Fixed(vector)),
        1 => Some(Delivery::LowestPriority(vector)),
        4 => Some(Delivery::Nmi),
        5 => Some(Delivery::Init),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDM vol. 3, figure 12-12: delivery modes, shorthands, level de-assert.
    #[test]
    fn commands_are_decoded() {
        let x2apic = |command| Message::from_x2apic(command, 3);
        let sent =
            |target, delivery| Some(Message { sender: Some(3), ..Message::new(target, delivery) });
        let fixed = Delivery::Fixed(0x41);
        assert_eq!(x2apic(5 << 32 | 0x4041), sent(Target::Physical(5), fixed));
        assert_eq!(x2apic(0xffff_ffff << 32 | 0x4041), sent(Target::All, fixed));
        assert_eq!(x2apic(0xff << 32 | 0x4041), sent(Target::Physical(0xff), fixed));
        assert_eq!(x2apic(0x1_0005 << 32 | 0x4841), sent(Target::Logical(0x1_0005), fixed));
        assert_eq!(x2apic(1 << 18 | 0x4041), sent(Target::Sender, fixed));
        assert_eq!(x2apic(2 << 18 | 0x4141), sent(Target::All, Delivery::LowestPriority(0x41)));
        assert_eq!(x2apic(3 << 18 | 0x4400), sent(Target::Others, Delivery::Nmi));
        let init = Message {
            is_level: true,
            sender: Some(3),
            ..Message::new(Target::Physical(1), Delivery::Init)
        };
        assert_eq!(x2apic(1 << 32 | 0xc500), Some(init));
        assert_eq!(x2apic(1 << 32 | 0x8500), None, "INIT, de-asserted");
        assert_eq!(x2apic(1 << 32 | 0x4609), sent(Target::Physical(1), Delivery::Startup(9)));
        for reserved in [0x4200, 0x4300, 0x4700] {
            assert_eq!(x2apic(reserved), None, "{reserved:#x}");
        }
        let xapic = |command| Message::from_xapic(command, 3);
        assert_eq!(xapic(0xff << 56 | 0x4041), sent(Target::All, fixed));
        assert_eq!(xapic(2 << 56 | 0x4841), sent(Target::Logical(2), fixed));
    }

    /// SDM vol. 3, 12.11.1 and 12.11.2: address and data of a message.
    #[test]
    fn device_messages_are_decoded() {
        let from = Message::from_device;
        let fixed = Delivery::Fixed(0x51);
        assert_eq!(from(0xfee0_2000, 0x51), Some(Message::new(Target::Physical(2), fixed)));
        assert_eq!(from(0xfeea_b000, 0x51), Some(Message::new(Target::Physical(0xab), fixed)));
        assert_eq!(from(0xfeef_f000, 0x51), Some(Message::new(Target::All, fixed)));
        assert_eq!(from(0xfee0_3004, 0x51), Some(Message::new(Target::Logical(3), fixed)));
        let lowest = Message::new(Target::Logical(3), Delivery::LowestPriority(0x51));
        assert_eq!(from(0xfee0_300c, 0x51), Some(lowest));
        assert_eq!(from(0xfee0_3004, 0x151), Some(lowest));
        assert_eq!(
            from(0xfee0_0000, 0x400),
            Some(Message::new(Target::Physical(0), Delivery::Nmi))
        );
        assert!(from(0xfee0_0000, 0xc051).is_some_and(|message| message.is_level));
        for (address, data) in
            [(0xfef0_2000, 0x51), (0x1_fee0_0000, 0x51), (0xfee0_0000, 0x251), (0xfee0_0000, 0x751)]
        {
            assert_eq!(from(address, data), None, "{address:#x} {data:#x}");
        }
    }
}
