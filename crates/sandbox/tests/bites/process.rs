//! State of a confined process, seen from outside.

use nerite_testkit::skip;

use crate::{Attempt, is_root, status};

#[test]
fn no_capability_is_left() {
    Attempt::to("wait").observed(|process| {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(process, set), "0000000000000000", "{set}");
        }
        assert_eq!(status(process, "NoNewPrivs"), "1");
        // Filtered.
        assert_eq!(status(process, "Seccomp"), "2");
    });
}

#[test]
fn without_filters_the_rest_stays() {
    Attempt::to("wait").with("SECCOMP", "off").observed(|process| {
        assert_eq!(status(process, "Seccomp"), "0");
        assert_eq!(status(process, "CapEff"), "0000000000000000");
        assert_eq!(status(process, "NoNewPrivs"), "1");
    });
}

#[test]
fn strict_empties_the_bounding_set() {
    if !is_root() {
        return skip("only root has a bounding set to empty");
    }
    Attempt::to("wait").with("LEVEL", "strict").observed(|process| {
        assert_eq!(status(process, "CapBnd"), "0000000000000000");
    });
}

#[test]
fn limits_cannot_be_raised() {
    Attempt::to("wait").observed(|process| {
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        assert_eq!(limit("Max open files"), ["100", "100"]);
    });
}

#[test]
fn off_changes_nothing() {
    Attempt::to("wait").with("LEVEL", "off").observed(|process| {
        assert_eq!(status(process, "CapEff"), status(std::process::id(), "CapEff"));
        assert_eq!(
            (status(process, "NoNewPrivs"), status(process, "Seccomp")),
            ("0".into(), "0".into())
        );
    });
}
