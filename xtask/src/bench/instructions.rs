//! Instructions that a start takes in user space, counted by callgrind on this host, whatever
//! its KVM is: the guest that does nothing needs little of it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::cases;
use super::data::{Kind, Measure};
use crate::progress;

/// Name of the bench.
pub(super) const NAME: &str = "instructions";

/// Counts, or says why not. The peer's are missing where it does not run under callgrind.
pub(super) fn measure(vmm: &Path, peer: Option<&Path>, empty: &Path) -> Result<Measure, String> {
    let _step = progress::step("counting instructions");
    // Containment would keep callgrind from writing down what it counted.
    let words = ["run", "--sandbox", "off"];
    let ours = count(Command::new("valgrind"), vmm, &words, empty)?;
    let peer = peer.and_then(|peer| {
        let words: &[&str] = if cases::is_ours(peer) { &words } else { &[] };
        count(Command::new("valgrind"), peer, words, empty).ok()
    });
    Ok(Measure {
        bench: NAME.to_owned(),
        what: "in user space, empty guest".to_owned(),
        unit: String::new(),
        // Hash tables have random keys: the last digits differ.
        kind: Kind::Time,
        ours: vec![ours],
        peer: peer.into_iter().collect(),
    })
}

fn count(
    mut valgrind: Command,
    program: &Path,
    words: &[&str],
    image: &Path,
) -> Result<f64, String> {
    let output = valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(words)
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run valgrind (package valgrind): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !String::from_utf8_lossy(&output.stdout).contains("empty: ok") {
        let last = said.lines().rfind(|line| !line.starts_with("==")).unwrap_or("it says nothing");
        return Err(format!("the guest does not run under callgrind here: {last}"));
    }
    collected(&said).ok_or_else(|| "callgrind tells no number".to_owned())
}

/// The number in callgrind's summary.
fn collected(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found() {
        let text = "==1== Events    : Ir\n==1== Collected : 720703\n==1== \n==1== I   refs:      720,703\n";
        assert_eq!(collected(text), Some(720_703.0));
        assert_eq!(collected("==1== Collected : many"), None);
    }

    #[test]
    fn without_the_guests_word_there_is_no_number() {
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]);
            count(command, Path::new("/vmm"), &["run"], Path::new("/e"))
        };
        assert_eq!(sh("echo empty: ok; echo '==1== Collected : 5' >&2"), Ok(5.0));
        let error = sh("echo '==1== Collected : 5' >&2; echo because >&2").unwrap_err();
        assert!(error.contains("because"), "{error}");
        let missing =
            count(Command::new("/does/not/exist"), Path::new("/vmm"), &[], Path::new("/e"));
        assert!(missing.unwrap_err().contains("package valgrind"));
    }
}
