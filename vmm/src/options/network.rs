//! Options of network cards.

use clap::Args;
use merge::Merge;
use nerite_machine::config::CardSpec;
use serde::Deserialize;

use super::value;

/// Options of network cards; the table `[net]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Network")]
#[serde(default, deny_unknown_fields)]
pub struct NetworkOptions {
    /// Give the guest a network card (repeatable), such as tap=tap0 or user,hostfwd=tcp:8080:80
    ///
    /// tap=NAME is a tap of the host, made if it is not there and vmm may make it; with vhost=on
    /// the host's kernel moves the frames, queues=N asks for several queue pairs. user needs no
    /// privileges: the guest's connections become connections of vmm. The guest is 10.0.5.3, its
    /// gateway 10.0.5.1, DHCP says so, too; hostfwd=tcp:HOSTPORT:GUESTPORT forwards a port of
    /// 127.0.0.1 to the guest, and host=on the gateway to the host. fd=N is a tap that the parent
    /// process has opened. All take mac=ADDRESS and mtu=BYTES.
    #[arg(id = "net", short = 'n', long = "net", value_name = "LINK[,OPTION=VALUE...]")]
    #[arg(action = clap::ArgAction::Append)]
    #[serde(deserialize_with = "value::list")]
    #[merge(strategy = merge::vec::overwrite_empty)]
    pub cards: Vec<CardSpec>,
}
