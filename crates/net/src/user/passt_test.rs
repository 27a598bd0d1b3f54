use super::*;

#[test]
fn passt_is_told_what_leads_where() {
    let forwards = ["tcp:8080:80", "udp:0.0.0.0/53:5353"].map(|text| text.parse().unwrap());
    let words = arguments(&forwards, false, 1500, true);
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
    assert!(!line.contains("--interface"));
    assert!(!arguments(&[], true, 1500, true).contains(&"--no-map-gw".into()));
    let words = arguments(&[], true, 1500, false);
    assert!(words.windows(2).any(|words| words == ["--interface", "lo"]));
}

#[test]
fn a_default_route_is_found() {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
    let link = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
    let default = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n";
    // Half of all addresses, as some tunnels have it.
    let half = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\n";
    assert!(is_default_among(&[head, link, default].concat()));
    assert!(!is_default_among(&[head, link, half].concat()));
    assert!(!is_default_among(""));
}

#[test]
fn filters_are_counted() {
    assert_eq!(filters("Name:\tpasst\nSeccomp:\t2\nSeccomp_filters:\t3\n"), Some(3));
    assert_eq!(filters("Seccomp:\t0\n"), Some(0));
    assert_eq!(filters(""), None);
}

/// Starts a program in place of passt.
fn start(script: &str) -> Result<Process, Error> {
    let mut command = Command::new("sh");
    let mut child = command.args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take();
    settle(Process(child), stderr)
}

#[test]
fn a_passt_that_ends_at_once_is_an_error() {
    let error = start("echo port taken >&2; exit 3").unwrap_err().to_string();
    assert!(error.ends_with("ended at once: port taken (exit status: 3)"), "{error}");
}

#[test]
fn a_passt_without_a_sign_is_taken_to_be_ready_and_is_ended() {
    let process = start("exec 2>&-; exec sleep 1000").unwrap();
    let folder = format!("/proc/{}", process.id());
    drop(process);
    assert!(!std::path::Path::new(&folder).exists());
}

#[test]
fn the_last_words_of_passt_are_told() {
    let said =
        b"Failed to send 9 bytes to syslog\nDon't run as root. Changing\nFailed to bind port\n\n";
    assert_eq!(last_words(said, "exit status: 1"), "Failed to bind port (exit status: 1)");
    assert_eq!(last_words(b"", "exit status: 1"), "exit status: 1");
}
