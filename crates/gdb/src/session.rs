//! One debugger's session.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use nerite_service::{DebugEvent, DebugReason};
use nerite_vcpu::DebugStop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::connection::Connection;
use crate::guest::Guest;
use crate::target::{Never, tid};

/// Interval at which stepped vCPUs are woken: an interrupt handler may run without steps.
const NUDGE: Duration = Duration::from_millis(20);

/// End of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The debugger has gone, and the guest keeps running.
    Detached,
    /// The debugger wants the guest ended.
    Kill,
    /// The guest has ended.
    Over,
}

/// Serves a debugger until it goes, or the guest ends. The guest runs on after it, with nothing to
/// stop at.
pub(crate) fn serve(guest: &mut Guest, connection: Connection) -> Ended {
    guest.machine.set_attached(true);
    guest.hold_all();
    let ended = match GdbStub::new(connection).run_blocking::<Loop>(guest) {
        Ok(DisconnectReason::Kill) => Ended::Kill,
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => {
            Ended::Over
        }
        Ok(DisconnectReason::Disconnect) => Ended::Detached,
        Err(error) => {
            log::info!("the debugger's session ended: {error}");
            if guest.machine.is_ending() { Ended::Over } else { Ended::Detached }
        }
    };
    if ended == Ended::Kill {
        guest.machine.stop();
    }
    guest.let_go();
    ended
}

type Stop = MultiThreadStopReason<u64>;

struct Loop;

impl BlockingEventLoop for Loop {
    type Target = Guest;
    type Connection = Connection;
    type StopReason = Stop;

    fn wait_for_stop_reason(
        guest: &mut Guest,
        connection: &mut Connection,
    ) -> Result<Event<Stop>, WaitForStopReasonError<Never, io::Error>> {
        use gdbstub::conn::ConnectionExt as _;
        loop {
            if let Some(event) = guest.take_event() {
                return Ok(Event::TargetStopped(reason(guest, &event)));
            }
            if guest.machine.is_ending() {
                return Ok(Event::TargetStopped(match guest.machine.exit_code() {
                    Some(code) => {
                        Stop::Exited(code.to_le_bytes().first().copied().unwrap_or_default())
                    }
                    None => Stop::Terminated(Signal::SIGKILL),
                }));
            }
            if connection.has_input() {
                let byte = connection.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            let timeout = guest.is_stepped().then_some(NUDGE);
            match wait(guest, connection, timeout) {
                Ok(Ready::Connection) => {
                    let byte = connection.read().map_err(WaitForStopReasonError::Connection)?;
                    return Ok(Event::IncomingData(byte));
                }
                Ok(Ready::Guest) => {}
                Ok(Ready::Nothing) => guest.nudge(),
                Err(error) => return Err(WaitForStopReasonError::Connection(error)),
            }
        }
    }

    fn on_interrupt(guest: &mut Guest) -> Result<Option<Stop>, Never> {
        guest.hold_all();
        Ok(Some(Stop::SignalWithThread { tid: tid(0), signal: Signal::SIGINT }))
    }
}

enum Ready {
    Connection,
    Guest,
    Nothing,
}

fn wait(guest: &Guest, connection: &Connection, timeout: Option<Duration>) -> io::Result<Ready> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let [events, end] = guest.machine.event_fds();
    let mut polled =
        [connection.fd(), events, end].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut polled, timeout.as_ref()) {
        Err(Errno::INTR) => return Ok(Ready::Guest),
        other => other?,
    };
    let [from_connection, events, end] = &polled;
    Ok(if !events.revents().is_empty() || !end.revents().is_empty() {
        Ready::Guest
    } else if !from_connection.revents().is_empty() {
        Ready::Connection
    } else {
        Ready::Nothing
    })
}

/// Stop reason in the terms of the protocol.
fn reason(guest: &Guest, event: &DebugEvent) -> Stop {
    use gdbstub::target::ext::breakpoints::WatchKind;
    let tid = tid(event.vcpu);
    match &event.why {
        DebugReason::Stop(DebugStop::Step) => {
            Stop::SignalWithThread { tid, signal: Signal::SIGTRAP }
        }
        DebugReason::Stop(DebugStop::Breakpoint) => {
            let rip = guest.state(event.vcpu).map(|state| state.regs.rip).unwrap_or_default();
            if guest.hardware.contains(&rip) { Stop::HwBreak(tid) } else { Stop::SwBreak(tid) }
        }
        DebugReason::Stop(DebugStop::Watch(point)) => {
            let kind = match point.kind {
                nerite_vcpu::WatchKind::Write => WatchKind::Write,
                nerite_vcpu::WatchKind::Read => WatchKind::Read,
                nerite_vcpu::WatchKind::Access => WatchKind::ReadWrite,
            };
            Stop::Watch { tid, kind, addr: point.address }
        }
        _ => Stop::SignalWithThread { tid, signal: Signal::SIGSEGV },
    }
}

/// Signals an end.
pub(crate) fn signal(end: &Arc<OwnedFd>) {
    if let Err(error) = rustix::io::write(end, &1_u64.to_ne_bytes()) {
        log::error!("ending the GDB server: {error}");
    }
}
