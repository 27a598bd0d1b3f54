//! Snapshots from outside: `vmm ctl snapshot`, `vmm run --restore`, `vmm inspect`.

#![cfg(test)]

mod common;

use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Done, Folder, code, image, wait, wait_until};

/// Number of steps of the first vCPU.
const STEPS: u32 = 400_000;
/// The same of a second one, which prints nothing.
const SECOND_STEPS: u32 = 30_000_000;
/// Exit code of a guest whose sums are right.
const RIGHT: i32 = 42;
/// Places in the image's memory: the sum of the second vCPU, and whether it is there.
const SUM: usize = 0x3000;
const DONE: usize = 0x3004;
/// Place of the code.
const CODE: usize = 0x400;

/// A linear congruential generator: a state depends on each step before.
const fn next(state: u32) -> u32 {
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

/// `mov ecx, steps; mov esi, seed`, then as often: the next state in `esi`, and `body`.
fn steps(steps: u32, seed: u32, body: &[u8]) -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(steps.to_le_bytes());
    code.push(0xbe);
    code.extend(seed.to_le_bytes());
    let start = code.len();
    code.extend([0x69, 0xf6]); // imul esi, esi, 1664525
    code.extend(1_664_525_u32.to_le_bytes());
    code.extend([0x81, 0xc6]); // add esi, 1013904223
    code.extend(1_013_904_223_u32.to_le_bytes());
    code.extend(body);
    code.extend([0xff, 0xc9]); // dec ecx
    let back = i8::try_from(start).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x75, back.cast_unsigned()]); // jnz
    code
}

/// `opcode` with an operand relative to the instruction pointer, at `position` in the code.
fn relative(opcode: &[u8], target: usize, position: usize, immediate: &[u8]) -> Vec<u8> {
    let end = CODE + position + opcode.len() + 4 + immediate.len();
    let distance = i32::try_from(target).unwrap() - i32::try_from(end).unwrap();
    [opcode, &distance.to_le_bytes(), immediate].concat()
}

/// A guest whose first vCPU prints a letter for each state, so that its output depends on every
/// step. With two, it waits for the sum of the other one, and ends with [`RIGHT`] if that is right.
fn worker(vcpus: u32) -> Vec<u8> {
    // mov edi, esi; shr edi, 28; add edi, 'a'; mov dx, 0x1020; out dx, eax
    let print = [0x89, 0xf7, 0xc1, 0xef, 28, 0x83, 0xc7, b'a', 0x66, 0xba, 0x20, 0x10, 0xef];
    if vcpus == 1 {
        return [steps(STEPS, 1, &print), image::exit(RIGHT)].concat();
    }
    let sum = (0..SECOND_STEPS).fold(7, |state, _| next(state));
    let mut code = vec![0x85, 0xf6, 0x0f, 0x85, 0, 0, 0, 0]; // test esi, esi; jnz second
    code.extend(steps(STEPS, 1, &print));
    let wait = code.len();
    code.extend(relative(&[0x83, 0x3d], DONE, wait, &[1])); // cmp dword [done], 1
    let back = i8::try_from(wait).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x75, back.cast_unsigned()]); // jne wait
    code.extend(relative(&[0x8b, 0x3d], SUM, code.len(), &[])); // mov edi, [sum]
    code.extend([0x81, 0xf7]); // xor edi, sum ^ RIGHT
    code.extend((sum ^ RIGHT.cast_unsigned()).to_le_bytes());
    code.extend([0x66, 0xba, 0x10, 0x10, 0xef]); // mov dx, 0x1010; out dx, eax
    let second = u32::try_from(code.len() - 8).unwrap();
    code[4..8].copy_from_slice(&second.to_le_bytes());
    code.extend(steps(SECOND_STEPS, 7, &[]));
    code.extend(relative(&[0x89, 0x35], SUM, code.len(), &[])); // mov [sum], esi
    code.extend(relative(&[0xc7, 0x05], DONE, code.len(), &1_u32.to_le_bytes())); // mov dword [done], 1
    code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt, again
    code
}

/// The whole output of [`worker`].
fn expected() -> String {
    let states = std::iter::successors(Some(next(1)), |state| Some(next(*state)));
    let letter = |state| char::from(b'a' + u8::try_from(state >> 28).unwrap());
    states.map(letter).take(usize::try_from(STEPS).unwrap()).collect()
}

/// A guest with a control socket and its output in the file `output`.
struct Guest<'a> {
    folder: &'a Folder,
    child: Child,
}

impl<'a> Guest<'a> {
    fn start(folder: &'a Folder, accelerator: &str, words: &[&str]) -> Self {
        let common = ["run", "--accel", accelerator, "--api-socket", "socket", "-o", "output"];
        let mut command = folder.vmm(&[&common[..], words].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the socket", || UnixStream::connect(folder.path("socket")).is_ok());
        Self { folder, child }
    }

    fn ctl(&self, words: &[&str]) -> Done {
        self.folder.run(&[&["ctl", "socket"][..], words].concat())
    }

    /// Waits until it has printed something.
    fn prints(&self) {
        let printed = || self.folder.path("output").metadata().is_ok_and(|it| it.len() > 0);
        wait_until("output", printed);
    }

    /// Waits for its end: the exit code, the output and what was said.
    fn end(self) -> (i32, String, String) {
        let output = wait(self.child);
        let text = std::fs::read_to_string(self.folder.path("output")).unwrap();
        (code(output.status), text, String::from_utf8(output.stderr).unwrap())
    }
}

/// Lets a guest go on in one process after the other, on these hypervisors in turn, and expects
/// that it does not notice.
fn goes_on(vcpus: u32, accelerators: &[&str]) {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(vcpus)));
    let mut accelerators = accelerators.iter().cycle();
    let mut output = String::new();
    let vcpus = vcpus.to_string();
    let mut guest = Guest::start(&folder, accelerators.next().unwrap(), &["-c", &vcpus, &image]);
    let mut saved = 0_u64;
    loop {
        // Moments that have nothing to do with those of the guest.
        std::thread::sleep(Duration::from_millis(10 + saved * 37 % 90));
        let name = format!("saved{saved}");
        let done = guest.ctl(&["snapshot", "--stop", &name]);
        let (code, printed, said) = guest.end();
        output += &printed;
        if done.code != 0 {
            assert_eq!(code, RIGHT, "after {saved} snapshots: {done:?} {said}");
            break;
        }
        assert_eq!(code, 143, "{done:?} {said}");
        std::fs::remove_file(folder.path("output")).unwrap();
        guest = Guest::start(&folder, accelerators.next().unwrap(), &["--restore", &name, "--verify"]);
        saved += 1;
        // The rest without snapshots, where guests are slow.
        if saved == 20 {
            let (code, printed, said) = guest.end();
            output += &printed;
            assert_eq!(code, RIGHT, "{said}");
            break;
        }
    }
    assert!(saved > 0, "the guest is too fast");
    assert!(output == expected(), "after {saved} snapshots: {} of {STEPS} steps", output.len());
}

#[test]
fn a_guest_goes_on_in_other_processes() {
    goes_on(1, &["software"]);
}

#[test]
fn a_guest_with_two_vcpus_goes_on_in_other_processes() {
    goes_on(2, &["software"]);
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_goes_on_in_other_processes_on_kvm() {
    goes_on(1, &["kvm"]);
    goes_on(2, &["kvm"]);
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_of_software_goes_on_on_kvm_and_back() {
    goes_on(1, &["software", "kvm"]);
}

/// A folder with a snapshot `saved` of a guest that prints.
fn saved() -> Folder {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    folder.file("data/file", "x");
    let guest = Guest::start(&folder, "software", &["--mount", "data:/data", &image, "a word"]);
    guest.prints();
    let done = guest.ctl(&["snapshot", "saved", "--stop"]);
    assert_eq!((done.code, &*done.stderr), (0, ""), "{done:?}");
    let (code, output, said) = guest.end();
    assert_eq!(code, 143, "{said}");
    assert!(expected().starts_with(&output), "nothing is printed behind the snapshot");
    std::fs::rename(folder.path("output"), folder.path("before")).unwrap();
    folder
}

#[test]
fn a_guest_runs_on_after_a_snapshot_and_can_be_cloned() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    let guest = Guest::start(&folder, "software", &[&image]);
    guest.prints();
    let done = guest.ctl(&["snapshot", "saved"]);
    assert_eq!(done.code, 0, "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(report["data"].as_u64().unwrap() < report["memory"].as_u64().unwrap(), "{report}");
    let again = guest.ctl(&["snapshot", "saved"]);
    again.is_error(243, &["saved", "never overwritten"]);
    let (code, output, said) = guest.end();
    assert!((code, output == expected()) == (RIGHT, true), "{said}");
    let clones: Vec<_> = (0..2)
        .map(|_| {
            let done = folder.run(&["run", "--accel", "software", "--restore", "saved"]);
            assert_eq!((done.code, &*done.stderr), (RIGHT, ""));
            done.stdout
        })
        .collect();
    assert!(clones[0] == clones[1] && output.ends_with(&clones[0]));
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path("")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["image", "output", "saved"], "nothing temporary is left");
}

#[test]
fn what_a_snapshot_is_can_be_printed() {
    let folder = saved();
    let done = folder.run(&["inspect", "--verify", "saved"]);
    assert_eq!((done.code, &*done.stderr), (0, ""));
    for part in ["nerite", "software", "hermit, ", "[\"a word\"]", "/data (ro)", "65536 KiB", "digest"] {
        assert!(done.stdout.contains(part), "{part:?}: {}", done.stdout);
    }
    folder.run(&["inspect", "--verify", "image"]).is_error(240, &["--verify"]);
}

/// Changes a byte of a file.
fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn what_does_not_fit_a_snapshot_is_named() {
    let folder = saved();
    let run = |words: &[&str]| folder.run(&[&["run", "--accel", "software"][..], words].concat());
    run(&["--restore", "nowhere"]).is_error(243, &["nowhere", "No such file"]);
    run(&["--restore", "image"]).is_error(243, &["image", "Not a directory"]);
    run(&["--restore", "saved"]).is_error(240, &["--mount HOST:/data:ro"]);
    let mount = ["--mount", "data:/data", "--restore", "saved"];
    run(&[&["--mount", "data:/more"], &mount[..]].concat()).is_error(240, &["no mount /more"]);
    run(&[&["--net", "user"], &mount[..]].concat()).is_error(240, &["number of network cards"]);
    for option in [&["-m", "64M"][..], &["-c", "2"], &["-e", "A=b"], &["--pit"], &["--no-aslr"]] {
        run(&[option, &mount[..]].concat()).is_error(240, &["--restore"]);
    }
    for words in
        [&["--restore", "saved", "image"][..], &["--verify", "image"], &["--on-changed", "eio", "image"]]
    {
        assert_eq!(run(words).code, 240, "{words:?}");
    }
    let done = run(&mount);
    assert_eq!((done.code, &*done.stderr), (RIGHT, ""));
    assert!(std::fs::read_to_string(folder.path("before")).unwrap() + &done.stdout == expected());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let folder = saved();
    let restore = ["run", "--accel", "software", "--mount", "data:/data", "--restore", "saved"];
    let file = |name: &str| folder.path("saved").join(name);
    let verified = [&restore[..], &["--verify"]].concat();
    assert_eq!(folder.run(&verified).code, RIGHT);
    flip(&file("memory"), 12345);
    folder.run(&verified).is_error(242, &["memory", "damaged"]);
    folder.run(&["inspect", "--verify", "saved"]).is_error(242, &["memory", "damaged"]);
    flip(&file("memory"), 12345);
    let text = std::fs::read_to_string(file("snapshot.json")).unwrap();
    for (changed, part) in [
        (text.replace("\"format\":1", "\"format\":2"), "format 2"),
        (text.replace("\"vcpus\"", "\"VCPUS\""), "damaged"),
        (text[..text.len() / 2].to_owned(), "malformed"),
        (String::new(), "malformed"),
    ] {
        std::fs::write(file("snapshot.json"), changed).unwrap();
        folder.run(&restore).is_error(242, &[part]);
    }
    std::fs::write(file("snapshot.json"), text).unwrap();
    let memory = std::fs::File::options().write(true).open(file("memory")).unwrap();
    memory.set_len(memory.metadata().unwrap().len() - 4096).unwrap();
    folder.run(&restore).is_error(242, &["memory", "truncated"]);
    std::fs::remove_file(file("memory")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", file("memory")).unwrap();
    folder.run(&restore).is_error(243, &["memory"]);
}
