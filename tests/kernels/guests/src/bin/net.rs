//! A server on a network card: echo (port 7, TCP and UDP), discard (9) and a source of bytes (19),
//! with a third-party driver and stack. A datagram to port 99 ends it: `quit`, or `reset N`, upon
//! which it resets the card and goes on, once for each N.
//!
//! Arguments: `ip=10.0.5.3` or `dhcp`, `mtu=1500`, `poll` (no interrupts), `exit-after=BYTES` (in
//! the middle of traffic).

#![no_std]
#![no_main]

#[path = "../net/card.rs"]
mod card;
#[path = "../net/interrupt.rs"]
mod interrupt;
#[path = "../net/services.rs"]
mod services;

use runtime::prelude::*;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use card::Card;
use services::{Services, Wish};

runtime::kernel!(v2, main);

/// Arguments.
struct Setup {
    ip: Option<Ipv4Address>,
    mtu: usize,
    polls: bool,
    exit_after: u64,
}

fn setup() -> Setup {
    let mut setup = Setup {
        ip: Some(Ipv4Address::new(10, 0, 5, 3)),
        mtu: 1500,
        polls: false,
        exit_after: u64::MAX,
    };
    for arg in boot::args() {
        let (key, value) = arg.split_once('=').unwrap_or((&arg, ""));
        match key {
            "ip" => setup.ip = value.parse().ok(),
            "dhcp" => setup.ip = None,
            "mtu" => setup.mtu = value.parse().unwrap_or(setup.mtu),
            "poll" => setup.polls = true,
            "exit-after" => setup.exit_after = value.parse().unwrap_or(u64::MAX),
            other => check!(false, "{other} is no argument of this guest"),
        }
    }
    setup
}

fn now() -> Instant {
    Instant::from_micros((cpu::tsc() / (boot::tsc_khz() / 1000)) as i64)
}

fn set_address(interface: &mut Interface, address: Ipv4Cidr, gateway: Option<Ipv4Address>) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        addresses.push(IpCidr::Ipv4(address)).expect("room for an address");
    });
    interface.routes_mut().remove_default_ipv4_route();
    if let Some(gateway) = gateway {
        interface.routes_mut().add_default_ipv4_route(gateway).expect("room for a route");
    }
    println!("ready, address {address}");
}

fn main() {
    let setup = setup();
    let Some(mut card) = Card::find(setup.mtu) else {
        check!(false, "there is no network card");
        return;
    };
    let mac = card.mac();
    println!("card {} at line {}", EthernetAddress(mac), card.line());
    if !setup.polls {
        interrupt::connect(card.line());
    }
    let mut interface = Interface::new(Config::new(EthernetAddress(mac).into()), &mut card, now());
    let mut sockets = SocketSet::new(vec![]);
    let mut services = Services::new(&mut sockets);
    let dhcp = match setup.ip {
        Some(ip) => {
            set_address(&mut interface, Ipv4Cidr::new(ip, 24), Some(Ipv4Address::new(10, 0, 5, 1)));
            None
        }
        None => Some(sockets.add(dhcpv4::Socket::new())),
    };
    loop {
        interface.poll(now(), &mut card, &mut sockets);
        if let Some(dhcpv4::Event::Configured(config)) =
            dhcp.and_then(|dhcp| sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll())
        {
            set_address(&mut interface, config.address, config.router);
        }
        if interrupt::config_changed() {
            println!("link {}", if card.link_is_up() { "up" } else { "down" });
        }
        match services.serve(&mut sockets) {
            Wish::None => {}
            Wish::Quit => break,
            Wish::Reset => {
                card.reset();
                println!("reset");
            }
        }
        if services.bytes() >= setup.exit_after {
            println!("enough");
            break;
        }
        // What services wrote goes out before this one sleeps.
        interface.poll(now(), &mut card, &mut sockets);
        let delay = interface.poll_delay(now(), &sockets);
        if setup.polls || card.has_work() || delay.is_some_and(|delay| delay.total_micros() == 0) {
            core::hint::spin_loop();
            continue;
        }
        interrupt::wait(delay.map(|delay| delay.total_micros()), || card.has_work());
        interrupt::acknowledge();
    }
    // Answers that are on their way.
    for _ in 0..20 {
        interface.poll(now(), &mut card, &mut sockets);
    }
    let (bytes, wrong) = (services.bytes(), services.wrong());
    let verdict = if wrong == 0 { "ok" } else { "FAILED" };
    println!(
        "{bytes} bytes, {wrong} of them wrong, {} interrupts\nnet: {verdict}",
        interrupt::count()
    );
    // Nothing is torn down: the card, its queues and the sockets end with the guest.
    runtime::exit(i32::from(wrong != 0));
}
