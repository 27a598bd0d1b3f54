//! The guest as gdbstub's target. Threads are vCPUs: thread 1 is vCPU 0.

use std::num::NonZeroUsize;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::section_offsets::{Offsets, SectionOffsets, SectionOffsetsOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use nerite_vcpu::Watchpoint;

use crate::guest::{Action, Guest, Others};
use crate::monitor;
use crate::registers::{State, X86_64};

/// EFAULT and EINVAL, as GDB shows them.
const FAULT: u8 = 14;
const INVALID: u8 = 22;
/// Maximum number of breakpoints and watchpoints together: each is compared at each step.
const MAX_POINTS: usize = 256;

/// A failure of the target that ends the session: there is none.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum Never {}

const fn vcpu(tid: Tid) -> usize {
    tid.get().saturating_sub(1)
}

pub(crate) fn tid(vcpu: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(vcpu)
}

fn failed<T>(result: Result<T, String>) -> TargetResult<T, Guest> {
    result.map_err(|error| {
        log::debug!("{error}");
        TargetError::Errno(FAULT)
    })
}

impl Target for Guest {
    type Arch = X86_64;
    type Error = Never;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_section_offsets(&mut self) -> Option<SectionOffsetsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, regs: &mut State, tid: Tid) -> TargetResult<(), Self> {
        *regs = failed(self.state(vcpu(tid)))?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &State, tid: Tid) -> TargetResult<(), Self> {
        // What the protocol does not carry is as it was.
        let mut state = failed(self.state(vcpu(tid)))?;
        let mut bytes = Vec::new();
        gdbstub::arch::Registers::gdb_serialize(regs, |byte| bytes.push(byte.unwrap_or_default()));
        gdbstub::arch::Registers::gdb_deserialize(&mut state, &bytes)
            .map_err(|()| TargetError::Errno(INVALID))?;
        failed(self.set_state(vcpu(tid), &state))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match self.read(vcpu(tid), start, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(FAULT)),
            length => Ok(length),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let written = self.write(vcpu(tid), start, data);
        if written == data.len() { Ok(()) } else { Err(TargetError::Errno(FAULT)) }
    }

    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), Never> {
        (0..self.count()).for_each(|vcpu| each(tid(vcpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Never> {
        let vcpu = vcpu(tid);
        let state = self.machine.states().get(vcpu).map_or("gone", |state| state.name());
        let text = format!("vCPU {vcpu}, {state}");
        let length = text.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(length)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Never> {
        self.go_on();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Never> {
        self.actions.fill(None);
        self.others = Others::GoOn;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Never> {
        if let Some(action) = self.actions.get_mut(vcpu(tid)) {
            *action = Some(Action::Continue);
        }
        Ok(())
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Never> {
        self.others = Others::Wait;
        Ok(())
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Never> {
        if let Some(action) = self.actions.get_mut(vcpu(tid)) {
            *action = Some(Action::Step);
        }
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl Guest {
    fn is_full(&self) -> bool {
        let points = self.software.len().saturating_add(self.hardware.len());
        points.saturating_add(self.watchpoints.len()) >= MAX_POINTS
    }

    /// Returns `true` if there is memory at `address`: a breakpoint elsewhere would never be hit,
    /// and is refused.
    fn can_break(&mut self, address: u64) -> bool {
        self.read(0, address, &mut [0]) == 1
    }
}

fn add(points: &mut Vec<u64>, address: u64) -> bool {
    if !points.contains(&address) {
        points.push(address);
    }
    true
}

fn remove(points: &mut Vec<u64>, address: u64) -> bool {
    let before = points.len();
    points.retain(|point| *point != address);
    points.len() < before
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(!self.is_full() && self.can_break(address) && add(&mut self.software, address))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(remove(&mut self.software, address))
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        // As many as the processor has, even where they are kept by stepping.
        let is_room = self.hardware.len() < nerite_vcpu::DEBUG_REGISTERS;
        Ok(is_room && add(&mut self.hardware, address))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(remove(&mut self.hardware, address))
    }
}

fn watchpoint(address: u64, length: u64, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Write => nerite_vcpu::WatchKind::Write,
        WatchKind::Read => nerite_vcpu::WatchKind::Read,
        WatchKind::ReadWrite => nerite_vcpu::WatchKind::Access,
    };
    Watchpoint { address, length, kind }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let point = watchpoint(address, length, kind);
        if self.is_full() || length == 0 {
            return Ok(false);
        }
        if !self.watchpoints.contains(&point) {
            self.watchpoints.push(point);
        }
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let point = watchpoint(address, length, kind);
        let before = self.watchpoints.len();
        self.watchpoints.retain(|other| *other != point);
        Ok(self.watchpoints.len() < before)
    }
}

impl SectionOffsets for Guest {
    fn get_section_offsets(&mut self) -> Result<Offsets<u64>, Never> {
        let offset = self.machine.kernel_offset();
        Ok(Offsets::Sections { text: offset, data: offset, bss: None })
    }
}

impl MonitorCmd for Guest {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Never> {
        let answer = monitor::answer(self, &String::from_utf8_lossy(command));
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}
