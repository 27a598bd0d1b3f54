//! Multiboot kernels of a few dozen bytes for tests, and machines that run them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use crate::config::{Accelerator, Config};
use crate::{Embedding, Error, Handle, Machine, Outcome, Report};

const LOAD: u32 = 0x10_0000;
/// Address of the first instruction.
pub(crate) const ENTRY: u32 = LOAD + 32;
pub(crate) const JZ: u8 = 0x84;
pub(crate) const JNZ: u8 = 0x85;

/// 32-bit code with jumps to names.
#[derive(Default)]
pub(crate) struct Code {
    bytes: Vec<u8>,
    labels: Vec<(&'static str, usize)>,
    jumps: Vec<(usize, &'static str)>,
}

impl Code {
    pub(crate) fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.push((name, self.bytes.len()));
        self
    }

    /// `jz` or `jnz`.
    pub(crate) fn jump(&mut self, opcode: u8, target: &'static str) -> &mut Self {
        self.add(&[0x0f, opcode]);
        self.jumps.push((self.bytes.len(), target));
        self.add(&[0; 4])
    }

    /// Writes `?` and the end of the line to the serial port.
    pub(crate) fn ask(&mut self) -> &mut Self {
        self.add(&[0x66, 0xba, 0xf8, 0x03, 0xb0, b'?', 0xee, 0xb0, b'\n', 0xee])
    }

    /// The kernel, a file with load addresses (Multiboot Specification 0.6.96, 3.1).
    pub(crate) fn kernel(mut self) -> Vec<u8> {
        for (at, target) in self.jumps {
            let (_, place) = self.labels.iter().find(|(name, _)| *name == target).unwrap();
            let distance = i32::try_from(*place).unwrap() - i32::try_from(at + 4).unwrap();
            self.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        let (magic, flags) = (0x1bad_b002_u32, 1 << 16);
        let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
        let words = [magic, flags, checksum, LOAD, LOAD, 0, 0, ENTRY];
        let header = words.iter().flat_map(|word: &u32| word.to_le_bytes());
        header.chain(self.bytes).collect()
    }
}

/// A PC with 32 MiB, on the processor in software.
pub(crate) fn config() -> Config {
    let mut config = Config { accelerator: Accelerator::Software, ..Config::default() };
    config.memory.size = Some(32 << 20);
    config
}

/// A guest that runs, and its serial line.
pub(crate) struct Guest {
    line: BufReader<UnixStream>,
    handle: Handle,
    /// The descriptor that [`crate::Running::wait`] waits for.
    stop: UnixStream,
    machine: JoinHandle<(Result<Outcome, Error>, Report)>,
}

impl Guest {
    pub(crate) fn start(kernel: Vec<u8>, config: &Config) -> Self {
        let (ours, guests) = UnixStream::pair().unwrap();
        let embedding =
            Embedding::new().image(kernel).input(guests.try_clone().unwrap()).output(guests);
        let running = Machine::embed(config, embedding).unwrap().start().unwrap();
        let handle = running.handle();
        let (stop, theirs) = UnixStream::pair().unwrap();
        let machine = std::thread::spawn(move || running.wait_and_report(Some(theirs.as_fd())));
        Self { line: BufReader::new(ours), handle, stop, machine }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// As a signal does.
    pub(crate) fn stop(&mut self) {
        self.stop.write_all(&[1]).unwrap();
    }

    /// Waits until the guest asks.
    pub(crate) fn wait_for_question(&mut self) {
        let mut line = String::new();
        self.line.read_line(&mut line).unwrap();
        assert_eq!(line, "?\n");
    }

    /// Waits until the guest asks, and answers.
    pub(crate) fn tell(&mut self, answer: u8) {
        self.wait_for_question();
        self.line.get_mut().write_all(&[answer]).unwrap();
    }

    pub(crate) fn end(self) -> (Outcome, Report) {
        let (outcome, report) = self.machine.join().unwrap();
        (outcome.unwrap(), report)
    }
}
