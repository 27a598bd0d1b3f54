//! From a [`Spec`] to an open connection.

use std::hash::{DefaultHasher, Hash, Hasher};

use nerite_virtio_net::{Backend, Mac, NetConfig, Side, feature};

use crate::{Error, Link, Spec, Tap, User, Vhost, tap, user};

/// A card's connection, open, and what the card is to be.
#[derive(Debug)]
pub struct Connection {
    /// The name of the tap, or `user`.
    pub name: String,
    /// Configuration of the card.
    pub config: NetConfig,
    /// Backends of its queue pairs, or vhost.
    pub side: Side,
    /// `true` if the card's thread opens connections of the host by itself.
    pub opens_sockets: bool,
}

/// Opens what `spec` describes.
///
/// # Errors
/// If it is not there, or this process may not use it.
pub fn open(spec: &Spec) -> Result<Connection, Error> {
    match &spec.link {
        Link::Tap { name, vhost } => {
            let opened = Tap::open(name, spec.queues.unwrap_or(1), spec.mtu)?;
            connect_tap(spec, opened, *vhost)
        }
        Link::Fd { fd, vhost } => connect_tap(spec, Tap::from_descriptor(*fd, spec.mtu)?, *vhost),
        Link::User { forwards, host } => {
            let mtu = spec.mtu.unwrap_or(user::MTU).min(user::MTU);
            let stack_mtu = spec.mtu.unwrap_or(user::STACK_MTU);
            let mac = spec.mac.unwrap_or(user::MAC);
            let user = User::start(forwards, *host, stack_mtu, mac)?;
            Ok(Connection {
                name: "user".to_owned(),
                opens_sockets: true,
                config: NetConfig { mac, mtu: Some(mtu), pairs: 1, offloads: user::OFFLOADS },
                side: Side::Backends(vec![Box::new(user)]),
            })
        }
    }
}

fn connect_tap(spec: &Spec, opened: tap::Opened, vhost: bool) -> Result<Connection, Error> {
    let pairs = u16::try_from(opened.queues.len()).unwrap_or(u16::MAX);
    let config = NetConfig {
        mac: spec.mac.unwrap_or_else(|| mac_for(&opened.name)),
        mtu: Some(opened.mtu),
        pairs,
        offloads: feature::OFFLOADS,
    };
    let side = if vhost {
        Side::Engine(Box::new(Vhost::new(opened.queues)?))
    } else {
        let backend = |tap| Box::new(tap) as Box<dyn Backend>;
        Side::Backends(opened.queues.into_iter().map(backend).collect())
    };
    Ok(Connection { name: opened.name, config, side, opens_sockets: false })
}

/// An address that stays the same for a link of a host and differs between hosts.
fn mac_for(name: &str) -> Mac {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    std::fs::read("/etc/machine-id").unwrap_or_default().hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    // Locally administered.
    Mac([0x52, 0x54, a, b, c, d])
}
