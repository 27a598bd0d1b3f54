//! The card's configuration (5.1.4) and its feature bits (5.1.3).

use std::fmt;
use std::str::FromStr;

/// Feature bits of a network card (5.1.3).
pub mod feature {
    /// The driver may send frames without a checksum.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames without a checksum.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The configuration has the largest packet.
    pub const MTU: u64 = 1 << 3;
    /// The configuration has the address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP segments over IPv4 that are still to be cut.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver may send TCP segments over IPv4 that are still to be cut.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// A frame may fill several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration has the link's state.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// There are several queue pairs.
    pub const MQ: u64 = 1 << 22;

    /// Checksums and segmentation, both ways: what a backend must be able to do.
    pub const OFFLOADS: u64 = CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6;
}

/// Link status: up (5.1.4).
const LINK_UP: u16 = 1;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// Text that is no address of a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an Ethernet address of a card: six bytes such as 52:54:00:12:34:56, the first one even"
)]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            let part = part.ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        Some(Self(bytes)).filter(|mac| parts.next().is_none() && mac.is_unicast()).ok_or_else(error)
    }
}

impl Mac {
    /// Returns `true` if it can be the address of a card: the lowest bit of the first byte marks
    /// groups of cards.
    pub(crate) fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Configuration of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address.
    pub mac: Mac,
    /// The largest packet it carries, in bytes without the Ethernet header, which the driver then
    /// reads as a configuration field.
    pub mtu: Option<u16>,
    /// Number of queue pairs, 1 to 32.
    pub pairs: u16,
    /// Which of [`feature::OFFLOADS`] the other side can do.
    pub offloads: u64,
}

impl NetConfig {
    /// The features to offer, without those of the transport.
    pub(crate) fn features(&self) -> u64 {
        let mut features = feature::MAC | feature::STATUS | feature::MRG_RXBUF | feature::CTRL_VQ;
        features |= self.offloads & feature::OFFLOADS;
        // None is offered without those that it needs (2.2.2).
        for (one, other) in NEEDS {
            if features & other == 0 {
                features &= !one;
            }
        }
        if self.mtu.is_some() {
            features |= feature::MTU;
        }
        if self.pairs > 1 {
            features |= feature::MQ;
        }
        features
    }

    /// The bytes of the configuration (5.1.4): address, status, number of pairs, largest packet.
    pub(crate) fn bytes(&self, link_up: bool) -> [u8; 12] {
        let [a, b, c, d, e, f] = self.mac.0;
        let [status, _] = (if link_up { LINK_UP } else { 0 }).to_le_bytes();
        let [pairs0, pairs1] = self.pairs.to_le_bytes();
        let [mtu0, mtu1] = self.mtu.unwrap_or(0).to_le_bytes();
        [a, b, c, d, e, f, status, 0, pairs0, pairs1, mtu0, mtu1]
    }
}

/// Features, and what each of them needs (5.1.3.1).
const NEEDS: [(u64, u64); 5] = [
    (feature::GUEST_TSO4, feature::GUEST_CSUM),
    (feature::GUEST_TSO6, feature::GUEST_CSUM),
    (feature::HOST_TSO4, feature::CSUM),
    (feature::HOST_TSO6, feature::CSUM),
    (feature::MQ, feature::CTRL_VQ),
];

/// `true` if features that need others came with them (5.1.3.1).
pub(crate) fn are_consistent(features: u64) -> bool {
    NEEDS.iter().all(|(one, other)| features & one == 0 || features & other != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let mac: Mac = "52:54:00:AB-cd:ef".parse().unwrap();
        assert_eq!(mac, Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]));
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01",
            "53:54:00:ab:cd:ef",
            "00:00:00:00:00:00",
            "+2:54:00:ab:cd:ef",
            "5254:00:ab:cd:ef",
            "zz:54:00:ab:cd:ef",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_configuration_is_laid_out_as_specified() {
        let config =
            NetConfig { mac: Mac([2, 1, 2, 3, 4, 5]), mtu: Some(9000), pairs: 4, offloads: 0 };
        assert_eq!(config.bytes(true), [2, 1, 2, 3, 4, 5, 1, 0, 4, 0, 0x28, 0x23]);
        assert_eq!(config.bytes(false)[6], 0);
        assert_ne!(config.features() & feature::MQ, 0);
        let small = NetConfig { mtu: None, pairs: 1, offloads: u64::MAX, ..config };
        assert_eq!(small.features() & (feature::MQ | feature::MTU), 0);
        assert_eq!(small.features() & feature::OFFLOADS, feature::OFFLOADS);
    }

    #[test]
    fn features_are_offered_with_what_they_need() {
        for pairs in [1, 2] {
            for bits in 0..1 << 13 {
                let config = NetConfig { mac: Mac([2; 6]), mtu: None, pairs, offloads: bits };
                assert!(are_consistent(config.features()), "{bits:#x}");
            }
        }
    }

    #[test]
    fn features_come_with_what_they_need() {
        assert!(are_consistent(0));
        assert!(are_consistent(feature::OFFLOADS | feature::MQ | feature::CTRL_VQ));
        for alone in [feature::GUEST_TSO4, feature::HOST_TSO6 | feature::GUEST_CSUM, feature::MQ] {
            assert!(!are_consistent(alone));
        }
    }
}
