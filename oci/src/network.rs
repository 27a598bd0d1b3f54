//! The guest's network: a tap for each interface of the container's network namespace.
//!
//! The engine has made the interface and configured it for a container. Here its frames are
//! redirected to a tap and back, so that the guest is who the engine expects there, with the
//! interface's own hardware address; the address goes to the guest and is taken from the
//! interface, so that the namespace itself answers nothing.

mod netlink;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nerite_net::Tap;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::guest::Card;
use netlink::Netlink;

/// A card with its open tap.
#[derive(Debug)]
pub struct Connected {
    /// Its description for `vmm`.
    pub card: Card,
    /// Descriptor of the tap; it stays open when a program is executed.
    pub tap: OwnedFd,
}

/// Makes a tap for each interface with a hardware address in the network namespace of the calling
/// thread.
///
/// # Errors
/// If the host refuses it, or another guest already has an interface.
pub fn connect() -> Result<Vec<Connected>> {
    let mut netlink = Netlink::open().context("netlink")?;
    let mut connected = Vec::new();
    let links = netlink.links().context("network interfaces")?;
    // Not in the loop: a second guest may find the interface before the first one's tap.
    let taken = links.iter().find_map(|link| name(link).filter(|name| name.starts_with(TAP)));
    ensure!(taken.is_none(), "interface {}: this network already has a guest", taken.unwrap_or(""));
    for link in &links {
        let index = link.header.index;
        if link.header.flags.contains(LinkFlags::Loopback) {
            continue;
        }
        let mut mac = None;
        let mut mtu = 1500;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(given) => mac = <[u8; 6]>::try_from(&**given).ok(),
                LinkAttribute::Mtu(given) => mtu = *given,
                _ => (),
            }
        }
        let (Some(name), Some(mac)) = (name(link), mac) else {
            continue;
        };
        let number = connected.len();
        let one = connect_one(&mut netlink, index, &format!("{TAP}{number}"), mac, mtu);
        connected.push(one.with_context(|| format!("interface {name}"))?);
    }
    Ok(connected)
}

/// Beginning of the names of taps.
const TAP: &str = "nerite";

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn connect_one(
    netlink: &mut Netlink,
    index: u32,
    tap_name: &str,
    mac: [u8; 6],
    mtu: u32,
) -> Result<Connected> {
    let address = netlink.address(index).context("address")?;
    let gateway = netlink.gateway(index).context("routes")?;
    let tap = Tap::create(tap_name)?;
    // The virtual machine monitor is executed with it.
    fcntl_setfd(&tap, FdFlags::empty())?;
    let tap_index = netlink.index_of(tap_name).with_context(|| tap_name.to_owned())?;
    netlink.set_up(tap_index, Some(mtu)).with_context(|| tap_name.to_owned())?;
    netlink.set_up(index, None)?;
    for (from, to) in [(index, tap_index), (tap_index, index)] {
        netlink.redirect(from, to).context("redirecting frames")?;
    }
    if let Some((address, prefix)) = address {
        netlink.remove_address(index, address, prefix).context("address")?;
    }
    let card = Card { fd: tap.as_raw_fd(), mac: mac_text(mac), mtu, address, gateway };
    Ok(Connected { card, tap })
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// An IPv4 address with the length of its network's prefix.
pub(crate) type Address = (Ipv4Addr, u8);
