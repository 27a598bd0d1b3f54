//! Hand-over of a running guest between KVM and the processor in software: `vmm ctl accel`.
//!
//! `NERITE_TEST_SWITCHES` is the number of hand-overs that a guest goes through at most, 200
//! without it.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "figures are shown")]

mod common;

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::long_runs::{
    PC_RIGHT, RIGHT, STEPS, copier, expected, next, pc_worker, printed, printer, worker,
};
use common::{Done, Folder, code, image, wait, wait_until};

/// A guest with a control socket and its output in the file `output`.
struct Guest<'a> {
    folder: &'a Folder,
    child: Child,
}

impl<'a> Guest<'a> {
    fn start(folder: &'a Folder, words: &[&str]) -> Self {
        let common = ["run", "--api-socket", "socket", "-o", "output"];
        let mut command = folder.vmm(&[&common[..], words].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the socket", || UnixStream::connect(folder.path("socket")).is_ok());
        Self { folder, child }
    }

    fn switch(&self, accelerator: &str) -> Done {
        self.folder.run(&["ctl", "socket", "accel", accelerator])
    }

    /// Waits for its end: the exit code, the output and what was said.
    fn end(self) -> (i32, String, String) {
        let output = wait(self.child);
        let text = std::fs::read_to_string(self.folder.path("output")).unwrap();
        (code(output.status), text, String::from_utf8(output.stderr).unwrap())
    }
}

/// Hands a guest over again and again until it ends.
fn goes_on(folder: &Folder, first: &str, words: &[&str]) -> (i32, String, String) {
    let most = std::env::var("NERITE_TEST_SWITCHES").map_or(200, |most| most.parse().unwrap());
    let second = if first == "kvm" { "software" } else { "kvm" };
    let both = format!("{first},{second}");
    let guest = Guest::start(folder, &[&["--accel", &both], words].concat());
    let mut switches = 0_u64;
    let mut paused = Vec::new();
    for name in [second, first].into_iter().cycle().take(most) {
        // Moments that have nothing to do with those of the guest.
        std::thread::sleep(Duration::from_millis(switches * 7 % 23));
        let done = guest.switch(name);
        if done.code != 0 {
            // The guest has ended meanwhile.
            let gone = ["socket", "stopped", "connection"];
            assert!(gone.iter().any(|word| done.stderr.contains(word)), "{done:?}");
            break;
        }
        let answer: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(answer["accelerator"], name);
        paused.push(answer["paused_ns"].as_u64().unwrap());
        switches += 1;
    }
    let end = guest.end();
    paused.sort_unstable();
    let median = paused.get(paused.len() / 2);
    println!("{switches} hand-overs from {first} on, median pause {median:?} ns");
    assert!(switches > 1, "the guest is too fast: {end:?}");
    end
}

fn hermit_goes_on(vcpus: u32, first: &str) {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(vcpus)));
    let (code, output, said) = goes_on(&folder, first, &["-c", &vcpus.to_string(), &image]);
    assert_eq!(code, RIGHT, "{said}");
    assert!(output == expected(), "{} of {STEPS} steps", output.len());
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_is_handed_over_again_and_again() {
    hermit_goes_on(1, "kvm");
    hermit_goes_on(1, "software");
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_with_two_vcpus_is_handed_over() {
    hermit_goes_on(2, "kvm");
    hermit_goes_on(2, "software");
}

#[test]
#[ignore = "needs a KVM"]
fn a_pc_is_handed_over_again_and_again() {
    let folder = Folder::new();
    let image = folder.file("image", pc_worker());
    let (code, output, said) = goes_on(&folder, "kvm", &[&image]);
    assert_eq!(code, PC_RIGHT, "{said}");
    assert!(output == expected(), "{} of {STEPS} steps", output.len());
}

#[test]
#[ignore = "needs a KVM"]
fn a_copy_of_a_file_is_handed_over_again_and_again() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&copier()));
    let contents: Vec<_> = (0..400_000_u32).map(|index| next(index).to_le_bytes()[3]).collect();
    folder.file("data/in", &contents);
    let (code, _, said) = goes_on(&folder, "software", &["--mount", "data:/data:rw", &image]);
    assert_eq!(code, RIGHT, "{said}");
    assert!(std::fs::read(folder.path("data/out")).unwrap() == contents);
}

#[test]
fn one_hypervisor_alone_cannot_be_switched() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    let guest = Guest::start(&folder, &["--accel", "software", &image]);
    guest.switch("kvm").is_error(243, &["no accelerator \"kvm\"", "it has software"]);
    let same = guest.switch("software");
    assert_eq!((same.code, &*same.stderr), (0, ""), "{same:?}");
    let (code, output, said) = guest.end();
    assert!((code, output == expected()) == (RIGHT, true), "{said}");
}

#[test]
#[ignore = "needs a KVM"]
fn what_needs_one_hypervisor_is_refused_with_both() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    let run = |words: &[&str]| {
        folder.run(&[&["run", "--accel", "kvm,software"][..], words, &[&image]].concat())
    };
    run(&["--irqchip", "user"]).is_error(240, &["--irqchip user"]);
    run(&["--clock", "virtual"]).is_error(240, &["virtual clock"]);
}

/// Number of letters that a guest prints whose instructions are counted.
const LETTERS: u32 = 20_000;
/// Address of the first instruction of the loop of [`printer`], as linked, and the number of
/// instructions before it.
const LOOP: &str = "0x40a";
const BEFORE: u64 = 2;

/// Number of instructions that are counted of a guest.
fn counted(options: &[&str]) -> u64 {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&printer(LETTERS)));
    let done = folder.run(&[&["run", "--count=count.json"][..], options, &[&image]].concat());
    assert!(
        (done.code, done.stdout == printed(LETTERS)) == (RIGHT, true),
        "{options:?}: {}",
        done.stderr
    );
    let counts = std::fs::read(folder.path("count.json")).unwrap();
    let counts: serde_json::Value = serde_json::from_slice(&counts).unwrap();
    assert_eq!(counts["elsewhere"], counts["instructions"], "{counts}");
    counts["instructions"].as_u64().unwrap()
}

#[test]
fn instructions_are_counted_from_a_place_on() {
    let all = counted(&["--accel", "software"]);
    assert_eq!(counted(&["--count-from", LOOP]), all - BEFORE);
    // It never comes there.
    assert_eq!(counted(&["--count-from", "0x3000"]), 0);
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_is_handed_over_at_a_moment() {
    let all = counted(&["--accel", "software"]);
    let first_kvm = |options: &[&str]| counted(&[&["--accel", "kvm,software"], options].concat());
    assert_eq!(first_kvm(&[]), 0);
    assert_eq!(first_kvm(&["--count-from", LOOP]), all - BEFORE);
    assert_eq!(first_kvm(&["--switch-at", LOOP]), all - BEFORE);
    let first_software =
        |options: &[&str]| counted(&[&["--accel", "software,kvm"], options].concat());
    assert_eq!(first_software(&[]), all);
    assert_eq!(first_software(&["--switch-at", LOOP]), BEFORE);
    assert_eq!(first_software(&["--switch-at", "insn:123456"]), 123_456);
    // A host that is busy elsewhere may not come to the first instruction in a short time.
    let after = |exponent: u32| format!("time:{}ms", 1 << exponent);
    let part = (6..14)
        .map(|exponent| first_software(&["--switch-at", &after(exponent)]))
        .find(|part| *part > 0);
    assert!(part.is_some_and(|part| part <= all), "{part:?} of {all}");
}

#[test]
fn moments_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    let run = |words: &[&str]| folder.run(&[&["run"][..], words, &[&image]].concat());
    run(&["--switch-at", "time:1s", "--accel", "software"])
        .is_error(240, &["--accel kvm,software"]);
    run(&["--switch-at", "insn:5", "--accel", "kvm,software"])
        .is_error(240, &["counted in software", "with insn:N"]);
    run(&["--insn-limit", "5", "--accel", "kvm,software"])
        .is_error(240, &["leave out --insn-limit"]);
    run(&["--count", "--count-from", "main"]).is_error(240, &["no function \"main\""]);
    for words in [
        &["--count-from", "0x400"][..],
        &["--count", "--count-from", "0x400", "--insn-limit", "5"],
        &["--count", "--count-from", "0x400", "--switch-at", "time:1s"],
        &["--switch-at", "time:1s", "--gdb"],
        &["--switch-at", "time:x"],
        &["--switch-at", "0xg"],
    ] {
        assert_eq!(run(words).code, 240, "{words:?}");
    }
}
