//! Devices that an embedding program adds to a platform.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use nerite_bus::{Bus, Device, Width};
use nerite_memory::GuestRam;

use crate::Error;

/// Ports of the interval timer and of the interrupt controllers, which never reach a bus.
const CHIP_PORTS: [RangeInclusive<u64>; 4] = [0x20..=0x21, 0x40..=0x43, 0xa0..=0xa1, 0x4d0..=0x4d1];
/// The same of the I/O APIC and of the local APICs.
const CHIP_REGISTERS: [RangeInclusive<u64>; 2] =
    [0xfec0_0000..=0xfec0_0fff, 0xfee0_0000..=0xfee0_0fff];

/// Devices that an embedding program adds to the two address spaces.
#[derive(Clone, Default)]
pub struct OwnDevices {
    ports: Vec<Claim>,
    mmio: Vec<Claim>,
}

#[derive(Clone)]
struct Claim {
    name: &'static str,
    range: RangeInclusive<u64>,
    device: Arc<dyn Device>,
}

impl fmt::Debug for OwnDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims = self.ports.iter().chain(&self.mmio);
        f.debug_list().entries(claims.map(|claim| (claim.name, &claim.range))).finish()
    }
}

/// A range that never reaches a bus.
struct Taken;

impl Device for Taken {
    fn read(&self, _: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

impl OwnDevices {
    /// Gives `range` of the ports to `device`, under a `name` for messages.
    pub fn add_ports(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u16>,
        device: Arc<dyn Device>,
    ) {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.ports.push(Claim { name, range, device });
    }

    /// Gives `range` of guest-physical addresses to `device`, under a `name` for messages.
    pub fn add_mmio(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        device: Arc<dyn Device>,
    ) {
        self.mmio.push(Claim { name, range, device });
    }

    /// `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.mmio.is_empty()
    }

    /// Puts the devices into the address spaces, which have those of the platform. `is_taken` tells
    /// further ports whose accesses never reach the spaces; nor do those of `ram`.
    ///
    /// # Errors
    /// Fails if a range belongs to another device, to the chips, or is taken.
    pub fn insert_into(
        &self,
        ports: &mut Bus,
        mmio: &mut Bus,
        is_taken: impl Fn(u16) -> bool,
        ram: &GuestRam,
    ) -> Result<(), Error> {
        // Without own devices, the spaces stay as the platform has made them.
        if self.is_empty() {
            return Ok(());
        }
        for range in CHIP_PORTS {
            ports.insert("interrupt controllers", range, Arc::new(Taken))?;
        }
        for range in CHIP_REGISTERS {
            mmio.insert("interrupt controllers", range, Arc::new(Taken))?;
        }
        for port in (0..=u16::MAX).filter(|port| is_taken(*port)) {
            let port = u64::from(port);
            ports.insert("hypercalls", port..=port, Arc::new(Taken))?;
        }
        for region in ram.regions() {
            let last = region.start.saturating_add(region.size.saturating_sub(1));
            mmio.insert("RAM", region.start..=last, Arc::new(Taken))?;
        }
        for (bus, claims) in [(ports, &self.ports), (mmio, &self.mmio)] {
            for Claim { name, range, device } in claims {
                bus.insert(name, range.clone(), device.clone()).map_err(Error::OwnDevice)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nerite_memory::{Backing, Region};

    use super::*;

    fn insert(ports: RangeInclusive<u16>, mmio: RangeInclusive<u64>) -> Result<(Bus, Bus), Error> {
        let mut own = OwnDevices::default();
        own.add_ports("own ports", ports, Arc::new(Taken));
        own.add_mmio("own registers", mmio, Arc::new(Taken));
        let (mut port_bus, mut mmio_bus) = (Bus::new("port"), Bus::new("MMIO"));
        port_bus.insert("serial port", 0x3f8..=0x3ff, Arc::new(Taken))?;
        let ram = GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default())?;
        own.insert_into(&mut port_bus, &mut mmio_bus, |port| port == 0x1010, &ram)?;
        Ok((port_bus, mmio_bus))
    }

    #[test]
    fn what_no_access_would_reach_is_refused_by_name() {
        insert(0x900..=0x903, 0xd000_0000..=0xd000_0fff).unwrap();
        for (ports, mmio, expected) in [
            (0x3f0..=0x3f8, 0xd000_0000..=0xd000_0fff, "serial port"),
            (0x21..=0x22, 0xd000_0000..=0xd000_0fff, "interrupt controllers"),
            (0x1000..=0x10ff, 0xd000_0000..=0xd000_0fff, "hypercalls"),
            (0x900..=0x903, 0x1f_f000..=0x20_0fff, "RAM"),
            (0x900..=0x903, 0xfee0_0000..=0xfee0_0000, "interrupt controllers"),
        ] {
            let error = insert(ports, mmio).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
