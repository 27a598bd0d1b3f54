//! Every order in which a vCPU's thread and those that hold, ask and stop it can come. Not in a
//! plain `cargo test`:
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p nerite-vcpu --test loom --release

#![cfg(test)]
#![cfg(loom)]

use std::ops::ControlFlow;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_vcpu::{
    Control, Entry, Error, Exit, HaltWait, Handler, Held, Kick, KickTimer, Kicker, RunState, Vcpu,
    drive_controlled,
};
use std::time::Duration;

/// The `immediate_exit` flag and the kernel that looks at it: a guest that loops until it is
/// kicked.
#[derive(Debug, Default)]
struct Flag {
    kicked: Mutex<bool>,
    came: Condvar,
}

/// A kicker must be of the standard library's `Arc`.
struct Handle(Arc<Flag>);

impl Kick for Handle {
    fn kick(&self) {
        *self.0.kicked.lock().unwrap() = true;
        self.0.came.notify_all();
    }
}

/// A guest that writes a port `exits` times and then loops without end.
#[derive(Debug)]
struct Guest {
    flag: Arc<Flag>,
    exits: u32,
    /// Instructions executed.
    executed: Arc<AtomicU32>,
}

impl Vcpu for Guest {
    fn index(&self) -> u32 {
        0
    }

    fn run(&mut self, _: Entry) -> Result<Exit, Error> {
        let mut kicked = self.flag.kicked.lock().unwrap();
        if !*kicked {
            self.executed.fetch_add(1, Ordering::Relaxed);
            if self.exits > 0 {
                self.exits -= 1;
                return Ok(Exit::PortOut { port: 1, width: 1, value: 0 });
            }
        }
        while !*kicked {
            kicked = self.flag.came.wait(kicked).unwrap();
        }
        *kicked = false;
        Ok(Exit::Kicked)
    }

    fn complete(&mut self, _: Entry) -> Result<Option<Exit>, Error> {
        Ok(None)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        Ok(Regs::default())
    }

    fn set_regs(&mut self, _: &Regs) -> Result<(), Error> {
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        Ok(SpecialRegs::default())
    }

    fn set_special_regs(&mut self, _: &SpecialRegs) -> Result<(), Error> {
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(std::sync::Arc::new(Handle(self.flag.clone())))
    }

    fn take_kick(&mut self) -> bool {
        std::mem::take(&mut *self.flag.kicked.lock().unwrap())
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        Ok(Fpu::default())
    }

    fn set_fpu(&mut self, _: &Fpu) -> Result<(), Error> {
        Ok(())
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        Err(Error::Unsupported { index: 0, operation: "a timer" })
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
}

/// Counts what it sees.
#[derive(Default)]
struct Count {
    kicks: u32,
}

impl Handler for Count {
    type End = ();

    fn handle(&mut self, _: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<(), Entry> {
        self.kicks += u32::from(*exit == Exit::Kicked);
        ControlFlow::Continue(Entry::Resume)
    }
}

struct Model {
    control: Arc<Control>,
    executed: Arc<AtomicU32>,
    thread: thread::JoinHandle<u32>,
}

/// Starts a vCPU; its thread gives how many kicks it saw before it was stopped.
fn start(exits: u32) -> Model {
    let executed = Arc::new(AtomicU32::new(0));
    let mut guest = Guest { flag: Arc::default(), exits, executed: executed.clone() };
    let control = Arc::new(Control::new());
    control.set_kicker(guest.kicker());
    let thread = thread::spawn({
        let control = control.clone();
        move || {
            let mut count = Count::default();
            let end = drive_controlled(&mut guest, &mut count, &control).unwrap();
            assert_eq!(end, None, "only the control ends this loop");
            control.leave();
            count.kicks
        }
    });
    Model { control, executed, thread }
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Holds, checks that nothing runs, releases.
fn hold_and_look(control: &Control, executed: &AtomicU32) {
    control.hold();
    assert_eq!(control.wait_held(Duration::MAX), Held::Paused);
    assert_eq!(control.state(), RunState::Paused);
    let before = executed.load(Ordering::Relaxed);
    thread::yield_now();
    assert_eq!(executed.load(Ordering::Relaxed), before, "a held guest ran");
    control.release();
}

#[test]
fn a_held_guest_does_not_run_and_goes_on_after() {
    check(3, || {
        let model = start(1);
        hold_and_look(&model.control, &model.executed);
        model.control.stop();
        model.thread.join().unwrap();
        assert_eq!(model.control.state(), RunState::Stopped);
        assert_eq!(model.control.wait_held(Duration::MAX), Held::Stopped);
    });
}

#[test]
fn no_kick_is_left_over_for_the_next_run() {
    check(3, || {
        let model = start(0);
        hold_and_look(&model.control, &model.executed);
        model.control.stop();
        // One kick at most for the hold and one for the stop, which ends the loop before it is
        // seen.
        assert!(model.thread.join().unwrap() <= 1);
    });
}

#[test]
fn two_hold_and_each_finds_it_held() {
    check(2, || {
        let model = start(0);
        let other = thread::spawn({
            let (control, executed) = (model.control.clone(), model.executed.clone());
            move || hold_and_look(&control, &executed)
        });
        hold_and_look(&model.control, &model.executed);
        other.join().unwrap();
        model.control.stop();
        assert!(model.thread.join().unwrap() <= 2);
    });
}

#[test]
fn a_job_is_done_once_or_dropped_with_the_vcpu() {
    check(3, || {
        let model = start(1);
        let done = Arc::new(AtomicU32::new(0));
        model.control.post(Box::new({
            let done = done.clone();
            move |_, state| {
                assert_eq!(state, RunState::Paused);
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
        model.control.stop();
        model.thread.join().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_stop_while_it_is_held_ends_it() {
    check(3, || {
        let model = start(1);
        let stopper = thread::spawn({
            let control = model.control.clone();
            move || control.stop()
        });
        model.control.hold();
        assert!(matches!(model.control.wait_held(Duration::MAX), Held::Paused | Held::Stopped));
        stopper.join().unwrap();
        model.thread.join().unwrap();
    });
}

#[test]
fn a_rest_ends_with_an_interrupt_whoever_else_wants_something() {
    check(3, || {
        let control = Arc::new(Control::new());
        let interrupt = Arc::new(AtomicU32::new(0));
        let mut guest = Guest { flag: Arc::default(), exits: 0, executed: Arc::default() };
        control.set_kicker(guest.kicker());
        let vcpu = thread::spawn({
            let (control, interrupt) = (control.clone(), interrupt.clone());
            move || {
                while control.wait_for_interrupt(None, || interrupt.load(Ordering::Acquire) == 1)
                    == HaltWait::Request
                {
                    assert_eq!(
                        control.service_requests(&mut guest, RunState::Paused),
                        ControlFlow::Continue(())
                    );
                }
                control.leave();
            }
        });
        let sender = thread::spawn({
            let (control, interrupt) = (control.clone(), interrupt.clone());
            move || {
                interrupt.store(1, Ordering::Release);
                control.wake();
            }
        });
        control.hold();
        let held = control.wait_held(Duration::from_secs(1));
        assert!(matches!(held, Held::Paused | Held::Stopped), "{held:?}");
        control.release();
        sender.join().unwrap();
        vcpu.join().unwrap();
    });
}
