use proptest::prelude::*;

use super::*;
use crate::Protocol;

fn error(text: &str) -> String {
    text.parse::<Spec>().unwrap_err().to_string()
}

#[test]
fn links_and_options_are_read() {
    let spec: Spec = "tap=tap0,mac=52:54:00:00:00:01,queues=4,mtu=9000,vhost=on".parse().unwrap();
    assert_eq!(spec.link, Link::Tap { name: "tap0".into(), vhost: true });
    assert_eq!((spec.queues, spec.mtu), (Some(4), Some(9000)));
    assert_eq!(spec.mac, Some(Mac([0x52, 0x54, 0, 0, 0, 1])));
    assert_eq!(
        "tap:net_0-x".parse::<Spec>().unwrap().link,
        Link::Tap { name: "net_0-x".into(), vhost: false }
    );
    assert_eq!("fd=7,vhost".parse::<Spec>().unwrap().link, Link::Fd { fd: 7, vhost: true });
    let user: Spec =
        "user,hostfwd=tcp:8080:80,hostfwd=udp:0.0.0.0/53:5353,hostfwd=tcp:::1/1:2,host=on"
            .parse()
            .unwrap();
    let Link::User { forwards, host: true } = user.link else { panic!("{user:?}") };
    assert_eq!(
        forwards[0],
        Forward { protocol: Protocol::Tcp, address: None, host_port: 8080, guest_port: 80 }
    );
    assert_eq!(forwards[1].address, Some("0.0.0.0".parse().unwrap()));
    assert_eq!(forwards[2].address, Some("::1".parse().unwrap()));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (text, part) in [
        ("", "tap=NAME, fd=N or user"),
        ("tap0", "tap=NAME, fd=N or user"),
        ("none", "tap=NAME"),
        ("user=me", "tap=NAME"),
        ("tap=", "1 to 15"),
        ("tap=a-name-of-16-byte", "1 to 15"),
        ("tap=a/b", "1 to 15"),
        ("tap=..", "1 to 15"),
        ("tap=tap%d", "1 to 15"),
        ("fd=2", "3 or more"),
        ("fd=x", "3 or more"),
        ("tap=t,queues=0", "1 to 16"),
        ("tap=t,queues=17", "1 to 16"),
        ("tap=t,mtu=67", "68 to 65521"),
        ("tap=t,mtu=70000", "68 to 65521"),
        ("tap=t,vhost=maybe", "on or off"),
        ("tap=t,mac=x", "not an Ethernet address"),
        ("tap=t,mtu=1500,mtu=1500", "twice"),
        ("tap=t,hostfwd=tcp:1:2", "no option of tap"),
        ("user,queues=2", "no option of user"),
        ("user,vhost=on", "hostfwd, host, mac, mtu"),
        ("fd=3,queues=2", "no option of fd"),
        ("user,hostfwd=sctp:1:2", "tcp:8080:80"),
        ("user,hostfwd=tcp:1", "tcp:8080:80"),
        ("user,hostfwd=tcp:0:80", "tcp:8080:80"),
        ("user,hostfwd=tcp:80:65536", "tcp:8080:80"),
        ("user,hostfwd=tcp:localhost/80:80", "tcp:8080:80"),
    ] {
        let message = error(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

proptest! {
    /// A spec that is displayed parses to the same spec.
    #[test]
    fn shown_and_read_again(text in "(tap=[a-z]{1,9}(,vhost=on)?(,queues=[1-9])?|user(,hostfwd=(tcp|udp):[1-9]{1,4}:[1-9]{1,4}){0,3}(,host=on)?|fd=[3-9])(,mtu=[1-9][0-9]{3})?") {
        let spec: Spec = text.parse().unwrap();
        prop_assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
    }

    /// Any text is a card or an error.
    #[test]
    fn any_text_is_survived(text in "\\PC{0,60}") {
        let _ = text.parse::<Spec>();
    }
}
