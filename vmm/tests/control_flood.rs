//! A thousand pauses in the middle of a flood of output and file calls, through the control socket,
//! and the guest's own checksums after that. `cargo xtask test-host` names the kernel in the
//! environment.

#![cfg(test)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::{Folder, code, wait_for, wait_until};
use serde_json::{Value, json};

/// Variable with the path of the kernel `flood-sums`.
const KERNEL: &str = "NERITE_TEST_FLOOD_SUMS";
/// Number of times that the guest of two vCPUs is paused, inspected and resumed.
const CYCLES: usize = 1000;
/// Every so often memory is read, too, and the registers once more; and every so often `vmm ctl`
/// does it, a process for each command.
const THOROUGH: usize = 10;
const BY_PROGRAM: usize = 250;

/// FNV-1a, 64 bits.
fn sum(start: u64, bytes: &[u8]) -> u64 {
    let mut sum = start;
    for &byte in bytes {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    sum
}

const FIRST_SUM: u64 = 0xcbf2_9ce4_8422_2325;

/// Asks through a connection, or by `vmm ctl`.
struct Asker<'a> {
    folder: &'a Folder,
    connection: BufReader<UnixStream>,
    cpus: usize,
}

impl Asker<'_> {
    /// Makes all these requests at once, and gives what came of them.
    fn ask(&mut self, requests: &[Value]) -> Vec<Value> {
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        self.connection.get_mut().write_all(lines.as_bytes()).unwrap();
        let answers = requests.iter().map(|_| {
            let mut answer = String::new();
            self.connection.read_line(&mut answer).unwrap();
            let answer: Value =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
            assert!(answer["ok"].is_object(), "{answer}");
            answer["ok"].clone()
        });
        answers.collect()
    }

    /// So many times a pause, a look at one vCPU and the way on, without waiting for answers in
    /// between.
    fn quick_cycles(&mut self, count: usize) {
        let command = |command: &str| json!({ "version": 1, "command": command });
        let cycle = |number: usize| {
            let look = json!({ "version": 1, "command": "regs", "vcpu": number % self.cpus });
            [command("pause"), look, command("resume")]
        };
        let requests: Vec<Value> = (0..count).flat_map(cycle).collect();
        for (number, answers) in self.ask(&requests).chunks(3).enumerate() {
            let [held, regs, resumed] = answers else { panic!("{answers:?}") };
            self.check(held, regs, regs, resumed);
            assert_eq!(regs["vcpus"][0]["vcpu"], number % self.cpus);
        }
    }

    /// One pause, three looks and the way on.
    fn cycle(&mut self, start: &Value) {
        let command = |command: &str| json!({ "version": 1, "command": command });
        let memory =
            json!({ "version": 1, "command": "read-memory", "address": start, "length": 4096 });
        let requests =
            [command("pause"), command("regs"), memory, command("regs"), command("resume")];
        let [held, before, memory, after, resumed] = self.ask(&requests).try_into().unwrap();
        self.check(&held, &before, &after, &resumed);
        assert_eq!(memory["data"].as_str().unwrap().len(), 8192);
    }

    /// The same by a program for each command.
    fn cycle_by_program(&self) {
        let [held, before, after, resumed] = ["pause", "regs", "regs", "resume"].map(|command| {
            let done = self.folder.run(&["ctl", "socket", command]);
            assert_eq!((done.code, &*done.stderr), (0, ""), "{done:?}");
            serde_json::from_str(&done.stdout).unwrap()
        });
        self.check(&held, &before, &after, &resumed);
    }

    fn check(&self, held: &Value, before: &Value, after: &Value, resumed: &Value) {
        assert_eq!(held["vcpus"], json!(vec!["paused"; self.cpus]));
        assert_eq!(before, after, "a paused guest ran");
        assert_eq!(resumed["resumed"], self.cpus);
    }
}

fn pauses(cpus: usize, cycles: usize) {
    let kernel = std::env::var(KERNEL).expect("`cargo xtask test-host` names the kernel");
    let folder = Folder::new();
    std::fs::create_dir(folder.path("data")).unwrap();
    let count = cpus.to_string();
    let words =
        ["run", "-c", &count, "--mount", "data:/data:rw", "--api-socket", "socket", &kernel];
    let mut command = folder.vmm(&words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        bytes
    });
    wait_until("the flood", || folder.path("data/flood").exists());
    let connection = BufReader::new(UnixStream::connect(folder.path("socket")).unwrap());
    let mut asker = Asker { folder: &folder, connection, cpus };
    let status = asker.ask(&[json!({ "version": 1, "command": "status" })]);
    for cycle in (0..cycles).step_by(THOROUGH) {
        if cycle % BY_PROGRAM == 0 {
            asker.cycle_by_program();
        } else {
            asker.cycle(&status[0]["memory"][0]["start"]);
        }
        asker.quick_cycles(THOROUGH - 1);
    }
    folder.file("data/stop", "");
    let ended = wait_for(child, common::STEPPED);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let bytes = reader.join().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (lines, told) = text.split_at(text.find("console: ").unwrap_or_else(|| panic!("{said}")));
    assert_eq!(code(ended.status), 0, "{told}{said}");
    assert!(told.ends_with("flood-sums: ok\n"), "{told}");
    // All that was written has arrived once, in order; and the file is what the last chunks make
    // it.
    let total = sum(FIRST_SUM, lines.as_bytes());
    assert!(
        told.contains(&format!("console: {} lines, sum {total:016x}\n", lines.len() / 64)),
        "{told}"
    );
    let file = std::fs::read(folder.path("data/flood")).unwrap();
    let chunks: u64 =
        told.split("file: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut total = FIRST_SUM;
    let first: Vec<u8> = (0..4096_u64).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect();
    for round in 0..chunks {
        let more = round.wrapping_mul(31).to_le_bytes()[0];
        let mut chunk = first.clone();
        for byte in &mut chunk {
            *byte = byte.wrapping_add(more);
        }
        total = sum(total, &chunk);
        if round + 16 >= chunks {
            let at = usize::try_from(round % 16 * 4096).unwrap();
            assert_eq!(file[at..at + 4096], chunk, "chunk {round}");
        }
    }
    assert!(told.contains(&format!("file: {chunks} chunks, sum {total:016x}\n")), "{told}");
    assert!(chunks > 20 && lines.len() > 64 * 20, "little was done meanwhile: {told}");
}

#[test]
#[ignore = "needs a KVM"]
fn pauses_in_a_flood_of_one_vcpu() {
    pauses(1, CYCLES / 10);
}

#[test]
#[ignore = "needs a KVM"]
fn a_thousand_pauses_in_a_flood_of_two_vcpus() {
    pauses(2, CYCLES);
}
