use std::collections::VecDeque;

use nerite_devices::apic::Target;
use nerite_vcpu::InterruptState;
use nerite_vcpu::scripted::Scripted;

use super::*;

/// A vCPU that plays back exits and keeps what is done to it.
#[derive(Debug, Default)]
struct Fake {
    inner: Scripted,
    /// The states after each exit; the last one stays.
    states: VecDeque<InterruptState>,
    injected: Vec<u8>,
    windows: Vec<bool>,
    nmis: u32,
    timers: Vec<Option<Duration>>,
}

const BASE: u64 = 0xfee0_0d00;

/// 64-bit code with interrupts on, in x2APIC mode.
const READY: InterruptState =
    InterruptState { accepts: true, enabled: true, priority_class: 0, apic_base: BASE };

impl Vcpu for Fake {
    fn index(&self) -> u32 {
        0
    }
    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        if self.states.len() > 1 {
            self.states.pop_front();
        }
        self.inner.run(entry)
    }
    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.inner.complete(entry)
    }
    fn regs(&mut self) -> Result<Regs, Error> {
        self.inner.regs()
    }
    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.inner.set_regs(regs)
    }
    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        self.inner.special_regs()
    }
    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.inner.set_special_regs(regs)
    }
    fn kicker(&self) -> Kicker {
        self.inner.kicker()
    }
    fn take_kick(&mut self) -> bool {
        self.inner.take_kick()
    }
    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.nmis += 1;
        Ok(())
    }
    fn set_engine_debug(&mut self, _: &EngineDebug) -> Result<(), Error> {
        Ok(())
    }
}

impl DirectInterrupts for Fake {
    fn interrupt_state(&mut self) -> InterruptState {
        self.states[0]
    }
    fn inject_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        self.injected.push(vector);
        self.states[0].accepts = false;
        Ok(())
    }
    fn request_interrupt_window(&mut self, wanted: bool) {
        self.windows.push(wanted);
    }
    fn set_priority_class(&mut self, class: u8) {
        self.states.iter_mut().for_each(|state| state.priority_class = class);
    }
    fn set_kick_timer(&mut self, delay: Option<Duration>) -> Result<(), Error> {
        self.timers.push(delay);
        Ok(())
    }
}

fn setting(
    exits: impl IntoIterator<Item = Exit>,
    states: impl IntoIterator<Item = InterruptState>,
) -> UserInterrupts<Fake> {
    let controls: Vec<_> = (0..2).map(|_| Arc::new(Control::new())).collect();
    let fake = Fake { inner: Scripted::new(exits), states: states.into_iter().collect(), ..Fake::default() };
    let vcpu = UserInterrupts::new(fake, Arc::new(Chips::new(&controls)));
    for processor in &vcpu.chips.processors {
        lock(&processor.waiting).apic.write_msr(0x80f, 0x1ff, 0).unwrap();
    }
    vcpu
}

fn to(id: u32, delivery: Delivery) -> Message {
    Message { target: Target::One(id), delivery }
}

#[test]
fn interrupts_are_injected_when_they_are_accepted() {
    let closed = InterruptState { accepts: false, ..READY };
    let mut vcpu = setting([Exit::InterruptWindow, Exit::InterruptWindow], [closed, READY, READY]);
    vcpu.chips.deliver(to(0, Delivery::Fixed(0x41)), 1);
    vcpu.chips.deliver(to(0, Delivery::Fixed(0x61)), 1);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    // The other one waits until the first has ended: it is of a lower class.
    assert_eq!(vcpu.inner.injected, [0x61]);
    assert_eq!(vcpu.inner.windows, [true, false, false]);
    vcpu.with(|waiting| waiting.apic.write_msr(0x80b, 0, 0).unwrap());
    vcpu.inner.states[0].accepts = true;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.inner.injected, [0x61, 0x41]);
}

#[test]
fn cr8_holds_interrupts_back_until_it_is_lowered() {
    let high = InterruptState { priority_class: 7, ..READY };
    let mut vcpu = setting([Exit::Kicked, Exit::PriorityLowered], [high, high, READY]);
    vcpu.note_priority();
    vcpu.chips.deliver(to(0, Delivery::Fixed(0x71)), 1);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert_eq!((vcpu.inner.injected.len(), vcpu.inner.windows[0]), (0, false));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.inner.injected, [0x71]);
}

#[test]
fn a_halted_vcpu_is_woken_by_what_it_would_take() {
    let off = InterruptState { enabled: false, accepts: false, ..READY };
    let mut vcpu = setting([Exit::Halt], [off]);
    vcpu.chips.deliver(to(0, Delivery::Fixed(0x71)), 1);
    let (chips, control) = (vcpu.chips.clone(), vcpu.chips.processors[0].control.clone());
    let other = std::thread::spawn(move || {
        while control.state() != nerite_vcpu::RunState::Halted {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(control.state(), nerite_vcpu::RunState::Halted, "the interrupt is held back");
        chips.deliver(to(0, Delivery::Nmi), 1);
    });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    other.join().unwrap();
    assert_eq!((vcpu.inner.nmis, vcpu.inner.injected.len(), vcpu.halts), (1, 0, 1));
}

#[test]
fn a_halt_ends_for_whoever_wants_something_and_goes_on_after_it() {
    let mut vcpu = setting([Exit::Halt], [READY]);
    let control = vcpu.chips.processors[0].control.clone();
    control.hold();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert!(vcpu.is_halted().unwrap());
    control.release();
    vcpu.chips.deliver(to(0, Delivery::Fixed(0x71)), 1);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.inner.injected, [0x71]);
}

#[test]
fn the_timer_ends_a_halt_and_kicks_a_guest_that_runs() {
    let write = |index, value| Exit::MsrWrite { index, value };
    let start = [write(0x83e, 0b1011), write(0x832, 0x40), write(0x838, 2_000_000), Exit::Halt];
    let mut vcpu = setting(start, [READY]);
    let began = Instant::now();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert!(began.elapsed() >= Duration::from_micros(1900), "{:?}", began.elapsed());
    assert_eq!(vcpu.inner.injected, [0x40]);
    assert!(vcpu.inner.timers[0].is_some_and(|delay| delay <= Duration::from_millis(2)));
}

#[test]
fn the_apic_is_answered_in_the_mode_it_is_in() {
    let message = Exit::MsrWrite { index: 0x830, value: 1 << 32 | 0x4055 };
    let reads = [Exit::MsrRead { index: 0x802 }, Exit::MsrRead { index: 0x8ff }, message];
    let mut vcpu = setting(reads, [READY]);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.inner.inner.entries[1..], [Entry::Data(0), Entry::Fault, Entry::Resume]);
    assert_eq!(lock(&vcpu.chips.processors[1].waiting).apic.pending(), Some(0x55));

    let older = InterruptState { apic_base: 0xfee0_0900, ..READY };
    let exits = [
        Exit::MsrRead { index: 0x802 },
        Exit::MmioRead { address: 0xfee0_0030, width: 4 },
        Exit::MmioWrite { address: 0xfee0_0080, width: 4, value: 0x20 },
        Exit::MmioRead { address: 0xfee0_1000, width: 4 },
    ];
    let mut vcpu = setting(exits, [older]);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::MmioRead { address: 0xfee0_1000, width: 4 });
    assert_eq!(vcpu.inner.inner.entries[1..], [Entry::Fault, Entry::Data(0x5_0014), Entry::Resume]);
    assert_eq!(vcpu.inner.states[0].priority_class, 2);
}

#[test]
fn init_and_a_start_make_a_processor_begin_anew() {
    let mut vcpu = setting([], [READY]);
    vcpu.chips.deliver(to(0, Delivery::Startup(8)), 1);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.inner.inner.regs, Regs::default(), "a start without INIT does nothing");
    vcpu.chips.deliver(to(0, Delivery::Init), 1);
    vcpu.chips.deliver(to(0, Delivery::Startup(9)), 1);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    let special = vcpu.inner.inner.special_regs;
    assert_eq!((special.cs.base, special.cr0 & 1, special.apic_base), (0x9000, 0, BASE));
    assert_eq!(vcpu.inner.inner.regs.rip, 0);
}

#[test]
fn an_access_ends_a_step() {
    let mut vcpu = setting([Exit::MsrRead { index: 0x802 }], [READY]);
    vcpu.set_engine_debug(&EngineDebug { single_step: true, ..EngineDebug::default() }).unwrap();
    let exit = vcpu.run(Entry::Resume).unwrap();
    assert!(matches!(exit, Exit::Debug { dr6: DR6_SINGLE_STEP, .. }), "{exit:?}");
}
