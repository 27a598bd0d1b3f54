use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nerite_event::Event;
use nerite_hypervisor::scripted::{Interrupt, Program, ScriptedHypervisor};
use nerite_hypervisor::{
    Entry, Error, Exit, GuestDebug, Hypervisor, InterruptController, Vcpu, VcpuStart, VcpuState,
    Vm, VmOptions,
};
use nerite_memory::{Backing, GuestRam, Region};

use super::{Side, Switch, Switchable};

/// A guest that adds `step` to RAX and writes it to a port.
fn adder(step: u64) -> Program {
    Box::new(move |vcpu, _| {
        vcpu.regs.rax += step;
        let value = u32::try_from(vcpu.regs.rax).unwrap();
        Some(Exit::PortOut { port: 1, width: 4, value })
    })
}

struct Machine {
    hypervisors: [Arc<ScriptedHypervisor>; 2],
    both: Switchable,
    vm: Box<dyn Vm>,
    vcpu: Box<dyn Vcpu>,
}

impl Machine {
    /// A machine whose guest adds 1 on the first hypervisor and 100 on the second.
    fn new(start: Side) -> Self {
        let hypervisors = [1, 100].map(|step| {
            let programs = move |_| adder(step);
            Arc::new(ScriptedHypervisor::new(programs))
        });
        let [first, second] = hypervisors.clone();
        let both = Switchable::new(first, second, start);
        let ram =
            GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default()).unwrap();
        let vm = both.create_vm(Arc::new(ram), &VmOptions::default()).unwrap();
        let vcpu = vm.create_vcpu(0, VcpuStart::WaitForSipi(&[]), &[]).unwrap();
        Self { hypervisors, both, vm, vcpu }
    }

    fn switch(&self) -> &Switch {
        self.both.switch()
    }

    fn written(&mut self) -> u32 {
        let Exit::PortOut { value, .. } = self.vcpu.run(Entry::Resume).unwrap() else { panic!() };
        value
    }

    fn hand_over(&mut self, side: Side) -> Result<(), Error> {
        let (vcpu, vm) = (RefCell::new(&mut self.vcpu), &self.vm);
        let save = || Ok((vcpu.borrow_mut().save()?, vm.save()?));
        self.both.switch().hand_over(side, save, |(state, chips)| {
            vcpu.borrow_mut().restore(&state)?;
            vm.restore(&chips)
        })
    }

    fn controller(&self) -> Arc<dyn InterruptController> {
        self.vm.interrupt_controller().unwrap()
    }

    /// Interrupts that each hypervisor has got.
    fn raised(&self) -> [Vec<Interrupt>; 2] {
        self.hypervisors.each_ref().map(|it| it.interrupts().raised())
    }
}

#[test]
fn a_guest_goes_on_with_the_other_hypervisor_and_back() {
    let mut machine = Machine::new(Side::First);
    assert_eq!([machine.written(), machine.written()], [1, 2]);
    machine.hand_over(Side::Second).unwrap();
    assert_eq!([machine.written(), machine.written()], [102, 202]);
    machine.hand_over(Side::First).unwrap();
    assert_eq!(machine.written(), 203);
    assert_eq!(Machine::new(Side::Second).written(), 100);
}

#[test]
fn a_guest_that_cannot_be_handed_over_stays() {
    let mut machine = Machine::new(Side::First);
    assert_eq!(machine.written(), 1);
    let state = VcpuState::default();
    let switch = machine.both.switch();
    let refused = switch.hand_over(Side::Second, || Ok(()), |()| machine.vcpu.restore(&state));
    assert!(matches!(refused, Err(Error::State { .. })), "{refused:?}");
    assert_eq!(machine.switch().active(), Side::First);
    assert_eq!(machine.written(), 2);
}

#[test]
fn debugging_and_kicks_follow_the_guest() {
    let mut machine = Machine::new(Side::First);
    let kicker = machine.vcpu.kicker();
    let step = GuestDebug { single_step: true, ..GuestDebug::default() };
    machine.vcpu.debug().unwrap().set_guest_debug(&step).unwrap();
    machine.hand_over(Side::Second).unwrap();
    kicker.kick();
    assert!(machine.vcpu.take_kick());
    kicker.kick();
    assert_eq!(machine.vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert_eq!(machine.written(), 100);
}

#[test]
fn interrupts_reach_the_hypervisor_that_has_the_guest() {
    let mut machine = Machine::new(Side::First);
    let controller = machine.controller();
    let [edge, raise, lowered, message] = [(); 4].map(|()| Event::new().unwrap());
    controller.connect_edge(4, &edge).unwrap();
    controller.connect_level(11, &raise, &lowered).unwrap();
    let id = controller.reserve_message().unwrap();
    controller.connect_message(id, &message, 0xfee0_0000, 0x31).unwrap();
    let expected = [
        Interrupt::Line(4, true),
        Interrupt::Line(4, false),
        Interrupt::Raise(11),
        Interrupt::Message(0xfee0_0000, 0x31),
    ];
    let signal = || [&edge, &raise, &message].iter().for_each(|event| event.signal());
    signal();
    assert_eq!(machine.raised(), [expected.to_vec(), vec![]]);
    assert!(!lowered.take());
    machine.hand_over(Side::Second).unwrap();
    assert!(lowered.take(), "devices raise their lines again");
    signal();
    assert_eq!(machine.raised(), [expected.to_vec(), expected.to_vec()]);
    controller.disconnect_message(id, &message).unwrap();
    message.signal();
    assert!(message.take(), "it stays in the event");
}

#[test]
fn a_line_that_is_raised_by_hand_stays_raised() {
    let mut machine = Machine::new(Side::Second);
    machine.controller().set_line(5, true).unwrap();
    machine.hand_over(Side::First).unwrap();
    machine.controller().set_line(5, false).unwrap();
    machine.hand_over(Side::Second).unwrap();
    let line = |level| Interrupt::Line(5, level);
    assert_eq!(machine.raised(), [[line(true), line(false)], [line(true), line(false)]]);
}

#[test]
fn an_interrupt_during_a_hand_over_waits_for_it() {
    let machine = Machine::new(Side::First);
    let event = Event::new().unwrap();
    machine.controller().connect_edge(4, &event).unwrap();
    // From before the state is saved on.
    let save = || {
        let event = event.clone();
        let device = thread::spawn(move || event.signal());
        // Time for it to go wrong.
        thread::sleep(Duration::from_millis(20));
        assert_eq!(machine.raised(), [[], []]);
        Ok::<_, Error>(device)
    };
    let mut device = None;
    let handed_over = machine.switch().hand_over(Side::Second, save, |waits| {
        assert_eq!(machine.raised(), [[], []]);
        device = Some(waits);
        Ok(())
    });
    handed_over.unwrap();
    device.unwrap().join().unwrap();
    assert_eq!(machine.raised()[1], [Interrupt::Line(4, true), Interrupt::Line(4, false)]);
}

#[test]
fn doorbells_ring_on_both() {
    let machine = Machine::new(Side::First);
    let (doorbells, event) = (machine.vm.doorbells(), Event::new().unwrap());
    doorbells.attach(0x1000, &event).unwrap();
    doorbells.detach(0x1000, &event).unwrap();
    assert!(doorbells.detach(0x1000, &event).is_err());
}
