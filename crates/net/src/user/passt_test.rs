use super::*;

#[test]
fn passt_is_told_what_leads_where() {
    let forwards = ["tcp:8080:80", "udp:0.0.0.0/53:5353"].map(|text| text.parse().unwrap());
    let words = arguments(&forwards, false, 1500);
    let line = words.join(std::ffi::OsStr::new(" "));
    let line = line.to_str().unwrap();
    for part in [
        "--fd 0",
        "--address 10.0.5.3 --netmask 24 --gateway 10.0.5.1 --mtu 1500",
        "--tcp-ports 127.0.0.1/8080:80",
        "--udp-ports 0.0.0.0/53:5353",
        "--no-map-gw",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!arguments(&[], true, 1500).contains(&"--no-map-gw".into()));
}

#[test]
fn the_last_words_of_passt_are_told() {
    let said =
        b"Failed to send 9 bytes to syslog\nDon't run as root. Changing\nFailed to bind port\n\n";
    assert_eq!(last_words(said, "exit status: 1"), "Failed to bind port (exit status: 1)");
    assert_eq!(last_words(b"", "exit status: 1"), "exit status: 1");
}
