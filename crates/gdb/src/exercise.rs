//! A session with any packets, for the fuzz target and the test that look for some that the server
//! does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support; a failure is what it looks for"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use nerite_arch::SpecialRegs;
use nerite_hypervisor::scripted::Scripted;
use nerite_memory::{Backing, GuestRam, Region};
use nerite_service::{DebugEvent, DebugReason, DebugTarget, Machine, Refusal};
use nerite_vcpu::{
    DebugPlan, DebugStop, Debugger, Entry, Error, Exit, Held, Job, Layer, RunState, Vcpu,
};
use rustix::event::{EventfdFlags, eventfd};

use crate::connection::{Connection, Stream};
use crate::guest::Guest;
use crate::session;

/// RAM, from 0 on.
const BYTES: u64 = 64 << 10;
const VCPUS: u32 = 2;
/// Page tables, which the debugger can change.
const TABLES: u64 = 0xe000;
const CR0_PG_PE: u64 = 1 << 31 | 1;
const EFER_LMA_LME: u64 = 1 << 10 | 1 << 8;

/// A debugger that has said everything already, and does not listen.
struct Tape {
    words: Cursor<Vec<u8>>,
    /// Always readable, as the tape is.
    ready: File,
}

impl Read for Tape {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.words.read(bytes)
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Tape {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Stream for Tape {}

/// A vCPU without a processor: it is at once at whatever it is to stop at.
#[derive(Debug, Default)]
struct Stage {
    registers: Scripted,
    plan: DebugPlan,
    /// Number of holds.
    holds: u32,
}

impl Stage {
    /// Resumes the guest to the next stop, and returns that.
    fn next_stop(&mut self) -> Option<DebugStop> {
        if self.plan.step {
            let regs = &mut self.registers.regs;
            regs.rip = regs.rip.wrapping_add(1);
            return Some(DebugStop::Step);
        }
        if let Some(address) = self.plan.breakpoints.first() {
            self.registers.regs.rip = *address;
            return Some(DebugStop::Breakpoint);
        }
        self.plan.watchpoints.first().copied().map(DebugStop::Watch)
    }
}

impl Layer for Stage {
    fn inner(&self) -> &dyn Vcpu {
        &self.registers
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut self.registers
    }

    fn run_layer(&mut self, _: Entry) -> Result<Exit, Error> {
        panic!("a debugger runs no vCPU itself")
    }

    fn complete_layer(&mut self, _: Entry) -> Result<Option<Exit>, Error> {
        panic!("a debugger completes no access itself")
    }

    fn debugger_layer(&mut self) -> Option<&mut dyn Debugger> {
        Some(self)
    }
}

impl Debugger for Stage {
    fn set_debug_plan(&mut self, plan: &DebugPlan) -> Result<(), Error> {
        self.plan = plan.clone();
        Ok(())
    }

    fn take_debug_stop(&mut self) -> Option<DebugStop> {
        None
    }
}

#[derive(Debug, Default)]
struct State {
    vcpus: Vec<Stage>,
    events: VecDeque<DebugEvent>,
    attached: bool,
    ending: bool,
}

/// A machine in which nothing takes time.
#[derive(Debug, Clone)]
struct MadeUp {
    ram: Arc<GuestRam>,
    state: Arc<Mutex<State>>,
    /// Never readable.
    quiet: Arc<OwnedFd>,
}

impl MadeUp {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic before")
    }

    fn job(&self, vcpu: usize, job: Job) {
        if let Some(vcpu) = self.lock().vcpus.get_mut(vcpu) {
            job(vcpu, RunState::Paused);
        }
    }
}

impl Machine for MadeUp {
    fn vcpu_count(&self) -> usize {
        self.lock().vcpus.len()
    }

    fn states(&self) -> Vec<RunState> {
        vec![RunState::Paused; self.vcpu_count()]
    }

    fn hold(&self, vcpu: usize) {
        self.lock().vcpus[vcpu].holds += 1;
    }

    fn wait_held(&self, vcpu: usize) -> Held {
        assert_ne!(
            self.lock().vcpus[vcpu].holds,
            0,
            "vCPU {vcpu} has no hold and would never stop"
        );
        Held::Paused
    }

    fn release(&self, vcpu: usize) {
        let mut state = self.lock();
        let stage = &mut state.vcpus[vcpu];
        stage.holds = stage.holds.checked_sub(1).expect("a hold");
        if stage.holds == 0
            && let Some(stop) = stage.next_stop()
        {
            stage.holds = 1;
            state.events.push_back(DebugEvent { vcpu, why: DebugReason::Stop(stop) });
        }
    }

    fn post(&self, vcpu: usize, job: Job) {
        self.job(vcpu, job);
    }

    fn ask(&self, vcpu: usize, job: Job) -> Result<(), Refusal> {
        self.job(vcpu, job);
        Ok(())
    }

    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn port_name(&self, _: u16) -> Option<&'static str> {
        None
    }

    fn stop(&self) {
        self.lock().ending = true;
    }

    fn is_ending(&self) -> bool {
        self.lock().ending
    }

    fn confine_thread(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl DebugTarget for MadeUp {
    fn is_debuggable(&self) -> bool {
        true
    }

    fn debug_registers(&self) -> usize {
        nerite_vcpu::DEBUG_REGISTERS
    }

    fn prepare_steps(&self, _: bool) -> bool {
        false
    }

    fn kernel_offset(&self) -> u64 {
        0x20_0000
    }

    fn take_event(&self) -> Option<DebugEvent> {
        self.lock().events.pop_front()
    }

    fn set_attached(&self, attached: bool) {
        self.lock().attached = attached;
    }

    fn exit_code(&self) -> Option<i32> {
        None
    }

    fn event_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.quiet.as_fd(), self.quiet.as_fd()]
    }
}

fn quiet() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

/// Bytes on the connection: a packet for each part of `bytes` between bytes 255, with its correct
/// checksum. A part that begins with a 0 is sent as it is; one that begins with a 3 is Ctrl-C.
fn wire(bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in bytes.split(|&byte| byte == 0xff) {
        match part.split_first() {
            None => {}
            Some((0, raw)) => wire.extend_from_slice(raw),
            Some((3, _)) => wire.push(3),
            Some(_) => {
                let sum = part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                wire.push(b'$');
                wire.extend_from_slice(part);
                wire.extend_from_slice(format!("#{sum:02x}+").as_bytes());
            }
        }
    }
    wire
}

/// Serves a debugger that says this, and then one that says it again.
///
/// # Panics
/// If a vCPU is released that is not held, and if one is held, or told to stop somewhere, when the
/// debugger has gone.
pub fn exercise(bytes: &[u8]) {
    let machine = MadeUp::new();
    machine.serve(bytes);
    machine.serve(bytes);
}

impl MadeUp {
    fn new() -> Self {
        let ram = GuestRam::new(&[Region { start: 0, size: BYTES }], &Backing::default())
            .expect("memory");
        // One page of 1 GiB at address 0 (Intel SDM vol. 3, 5.5.4): present, writable, large.
        ram.write_obj(TABLES, &((TABLES + 0x1000) | 0x3)).expect("RAM");
        ram.write_obj(TABLES + 0x1000, &0x83_u64).expect("RAM");
        let special = SpecialRegs {
            cr0: CR0_PG_PE,
            cr3: TABLES,
            efer: EFER_LMA_LME,
            ..SpecialRegs::default()
        };
        let vcpus = (0..VCPUS).map(|_| {
            let mut stage = Stage::default();
            stage.registers.special_regs = special;
            stage
        });
        let vcpus = vcpus.collect();
        let state = State { vcpus, ..State::default() };
        Self { ram: Arc::new(ram), state: Arc::new(Mutex::new(state)), quiet: Arc::new(quiet()) }
    }

    fn serve(&self, bytes: &[u8]) {
        let mut guest = Guest::new(Box::new(self.clone()), false);
        let ready = File::open("/dev/null").expect("/dev/null");
        let tape = Tape { words: Cursor::new(wire(bytes)), ready };
        let connection = Connection::new(Box::new(tape), self.quiet.clone());
        session::serve(&mut guest, connection);
        let state = self.lock();
        assert!(!state.attached && state.events.is_empty(), "{state:?}");
        for vcpu in &state.vcpus {
            assert!(vcpu.holds == 0 && !vcpu.plan.is_active(), "{vcpu:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_leave_nothing_behind() {
        for parts in [
            &[][..],
            &["qSupported", "?", "g", "p10", "Hg2", "g", "m0,40", "M100,2:9090", "m100,2"],
            &[
                "QStartNoAckMode",
                "vCont;s:1;c",
                "\u{3}",
                "Z0,100,1",
                "Z1,200,1",
                "vCont;c",
                "z0,100,1",
                "vCont;c",
            ],
            &["Z2,300,8", "Z3,310,8", "Z4,ffffffffffffffff,8", "c", "c", "z2,300,8", "s", "s", "D"],
            &[
                "qRcmd,7374617473",
                "qRcmd,6578697473",
                "qRcmd,706167657461626c652030",
                "qOffsets",
                "k",
            ],
            &["Z0,100,1", "vCont;s:1;s:2", "vCont;s:1", "m0,ffffffffffffffff", "G00", "P10=00"],
            &["\0$g#00$?#3f+-$m0,4#fd", "\u{3}", "g"],
        ] {
            exercise(&parts.join("\u{ff}").chars().map(|char| char as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn packets_take_effect() {
        let machine = MadeUp::new();
        machine.serve(b"M100,2:90c3\xffZ0,100,1\xffvCont;c:1\xffvCont;s:1\xffvCont;s:2");
        let mut bytes = [0; 2];
        machine.ram.read(0x100, &mut bytes).unwrap();
        assert_eq!(bytes, [0x90, 0xc3]);
        let rips: Vec<u64> =
            machine.lock().vcpus.iter().map(|vcpu| vcpu.registers.regs.rip).collect();
        assert_eq!(rips, [0x101, 1]);
        assert!(!machine.lock().ending);
        machine.serve(b"k");
        assert!(machine.lock().ending);
    }

    #[test]
    fn parts_become_packets() {
        assert_eq!(wire(b"g\xff\xff?\xff\x03\xff\0raw"), b"$g#67+$?#3f+\x03raw");
    }
}
