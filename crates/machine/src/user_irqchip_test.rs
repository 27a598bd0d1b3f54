use std::collections::VecDeque;
use std::time::Instant;

use nerite_hypervisor::scripted::Scripted;
use nerite_irqchip::{Message, Target, Time};
use nerite_vcpu::InterruptState;

use nerite_vcpu::Control;
use parking_lot::Mutex;

use super::*;

/// A vCPU that plays back exits and records what is done to it.
#[derive(Debug)]
struct Fake {
    inner: Scripted,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    /// States after each exit; the last one stays.
    states: VecDeque<InterruptState>,
    entries: Vec<Entry>,
    injected: Vec<u8>,
    windows: Vec<bool>,
    nmis: u32,
    timers: Vec<Duration>,
}

/// A timer that records the times it is set to.
#[derive(Debug)]
struct Timer(Arc<Mutex<Log>>);

impl KickTimer for Timer {
    fn set(&self, first: Duration, _: Duration) -> std::io::Result<()> {
        self.0.lock().timers.push(first);
        Ok(())
    }

    fn stop(&self) -> std::io::Result<()> {
        Ok(())
    }
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
        let mut log = self.log.lock();
        if log.states.len() > 1 {
            log.states.pop_front();
        }
        log.entries.push(entry);
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
        self.log.lock().nmis += 1;
        Ok(())
    }
    fn fpu(&mut self) -> Result<Fpu, Error> {
        self.inner.fpu()
    }
    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.inner.set_fpu(fpu)
    }
    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        Ok(Box::new(Timer(self.log.clone())))
    }
    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        self.inner.debug()
    }
    fn direct_interrupts(&mut self) -> Option<&mut dyn DirectInterrupts> {
        Some(self)
    }
}

impl DirectInterrupts for Fake {
    fn interrupt_state(&mut self) -> InterruptState {
        self.log.lock().states[0]
    }
    fn inject_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        let mut log = self.log.lock();
        log.injected.push(vector);
        log.states[0].accepts = false;
        Ok(())
    }
    fn request_interrupt_window(&mut self, wanted: bool) {
        self.log.lock().windows.push(wanted);
    }
    fn set_priority_class(&mut self, class: u8) {
        self.log.lock().states.iter_mut().for_each(|state| state.priority_class = class);
    }
}

fn setting(
    exits: impl IntoIterator<Item = Exit>,
    states: impl IntoIterator<Item = InterruptState>,
) -> (UserInterrupts, Arc<Mutex<Log>>) {
    let controls: Vec<_> = (0..2).map(|_| Arc::new(Control::new())).collect();
    let log = Arc::new(Mutex::new(Log { states: states.into_iter().collect(), ..Log::default() }));
    let fake = Box::new(Fake { inner: Scripted::new(exits), log: log.clone() });
    let vcpu = UserInterrupts::new(fake, Arc::new(LocalApics::new(&controls)));
    for processor in &vcpu.chips.processors {
        let mut apic = processor.apic.lock();
        apic.set_base(BASE).unwrap();
        apic.write_msr(0x80f, 0x1ff, Time::default()).unwrap();
    }
    (vcpu, log)
}

fn to(id: u32, delivery: Delivery) -> Message {
    Message::new(Target::Physical(id), delivery)
}

#[test]
fn interrupts_are_injected_when_they_are_accepted() {
    let closed = InterruptState { accepts: false, ..READY };
    let (mut vcpu, log) =
        setting([Exit::InterruptWindow, Exit::InterruptWindow], [closed, READY, READY]);
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x41)));
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x61)));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    // The other one waits until the first has ended: it is of a lower class.
    assert_eq!(log.lock().injected, [0x61]);
    assert_eq!(log.lock().windows, [true, false, false]);
    vcpu.with(|apic| apic.write_msr(0x80b, 0, Time::default()).unwrap());
    log.lock().states[0].accepts = true;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(log.lock().injected, [0x61, 0x41]);
}

#[test]
fn an_nmi_goes_before_an_interrupt() {
    let (mut vcpu, log) = setting([Exit::InterruptWindow], [READY]);
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x41)));
    vcpu.chips.deliver(&to(0, Delivery::Nmi));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    let log = log.lock();
    assert_eq!((log.nmis, &log.injected[..]), (1, &[0x41][..]));
    // The interrupt has waited for the next entry.
    assert_eq!(log.windows, [true, false]);
}

#[test]
fn cr8_holds_interrupts_back_until_it_is_lowered() {
    let high = InterruptState { priority_class: 7, ..READY };
    let (mut vcpu, log) = setting([Exit::Kicked, Exit::TprBelowThreshold], [high, high, READY]);
    vcpu.note_state().unwrap();
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x71)));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert_eq!(
        {
            let log = log.lock();
            (log.injected.len(), log.windows[0])
        },
        (0, false)
    );
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(log.lock().injected, [0x71]);
}

#[test]
fn a_halted_vcpu_is_woken_by_what_it_would_take() {
    let off = InterruptState { enabled: false, accepts: false, ..READY };
    let (mut vcpu, log) = setting([Exit::Halt], [off]);
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x71)));
    let (chips, control) = (vcpu.chips.clone(), vcpu.chips.processors[0].control.clone());
    let other = std::thread::spawn(move || {
        while control.state() != nerite_vcpu::RunState::Halted {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(control.state(), nerite_vcpu::RunState::Halted, "the interrupt is held back");
        chips.deliver(&to(0, Delivery::Nmi));
    });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    other.join().unwrap();
    assert_eq!(
        {
            let log = log.lock();
            (log.nmis, log.injected.len(), vcpu.halts)
        },
        (1, 0, 1)
    );
}

#[test]
fn a_halt_ends_for_whoever_wants_something_and_goes_on_after_it() {
    let (mut vcpu, log) = setting([Exit::Halt], [READY]);
    let control = vcpu.chips.processors[0].control.clone();
    control.hold();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert!(vcpu.is_halted().unwrap());
    control.release();
    vcpu.chips.deliver(&to(0, Delivery::Fixed(0x71)));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(log.lock().injected, [0x71]);
}

#[test]
fn the_timer_ends_a_halt_and_kicks_a_guest_that_runs() {
    let write = |index, value| Exit::MsrWrite { index, value };
    let start = [write(0x83e, 0b1011), write(0x832, 0x40), write(0x838, 2_000_000), Exit::Halt];
    let (mut vcpu, log) = setting(start, [READY]);
    let began = Instant::now();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert!(began.elapsed() >= Duration::from_micros(1900), "{:?}", began.elapsed());
    assert_eq!(log.lock().injected, [0x40]);
    assert!(log.lock().timers[0] <= Duration::from_millis(2));
}

#[test]
fn the_apic_is_answered_in_the_mode_it_is_in() {
    let message = Exit::MsrWrite { index: 0x830, value: 1 << 32 | 0x4055 };
    let reads = [Exit::MsrRead { index: 0x802 }, Exit::MsrRead { index: 0x8ff }, message];
    let (mut vcpu, log) = setting(reads, [READY]);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(log.lock().entries[1..], [Entry::Data(0), Entry::Fault, Entry::Resume]);
    assert_eq!(vcpu.chips.processors[1].apic.lock().pending(), Some(0x55));

    let older = InterruptState { apic_base: 0xfee0_0900, ..READY };
    let exits = [
        Exit::MsrRead { index: 0x802 },
        Exit::MmioRead { address: 0xfee0_0030, width: 4 },
        Exit::MmioWrite { address: 0xfee0_0080, width: 4, value: 0x20 },
        Exit::MmioRead { address: 0xfee0_1000, width: 4 },
    ];
    let (mut vcpu, log) = setting(exits, [older]);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::MmioRead { address: 0xfee0_1000, width: 4 });
    assert_eq!(log.lock().entries[1..], [Entry::Fault, Entry::Data(0x5_0014), Entry::Resume]);
    assert_eq!(log.lock().states[0].priority_class, 2);
}

#[test]
fn init_and_a_start_make_a_processor_begin_anew() {
    let (mut vcpu, _) = setting([], [READY]);
    vcpu.chips.deliver(&to(0, Delivery::Startup(8)));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    assert_eq!(vcpu.regs().unwrap(), Regs::default(), "a start without INIT does nothing");
    vcpu.chips.deliver(&to(0, Delivery::Init));
    vcpu.chips.deliver(&to(0, Delivery::Startup(9)));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    let special = vcpu.special_regs().unwrap();
    assert_eq!((special.cs.base, special.cr0 & 1, special.apic_base), (0x9000, 0, BASE));
    assert_eq!(vcpu.regs().unwrap().rip, 0);
}

#[test]
fn an_access_ends_a_step() {
    let (mut vcpu, _) = setting([Exit::MsrRead { index: 0x802 }], [READY]);
    vcpu.set_guest_debug(&GuestDebug { single_step: true, ..GuestDebug::default() }).unwrap();
    let exit = vcpu.run(Entry::Resume).unwrap();
    assert!(matches!(exit, Exit::Debug { cause: DebugCause::STEP, .. }), "{exit:?}");
}
