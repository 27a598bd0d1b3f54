use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nerite_arch::{Fpu, SpecialRegs};
use nerite_hypervisor::scripted::Scripted;
use nerite_hypervisor::{DebugControl, KickTimer, Kicker};

use super::*;

/// A processor on which every instruction is one byte long: from `out_at` on one writes a port, all
/// others do nothing.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    regs: Regs,
    debug: GuestDebug,
    /// Address of an instruction that writes port 1.
    out_at: u64,
    half_done: bool,
    /// Number of calls of `set_guest_debug`.
    told: Arc<AtomicU32>,
}

impl Toy {
    pub(crate) fn with_out_at(out_at: u64) -> Self {
        Self { out_at, ..Self::default() }
    }
}

impl Vcpu for Toy {
    fn index(&self) -> u32 {
        0
    }

    fn run(&mut self, _: Entry) -> Result<Exit, Error> {
        if std::mem::take(&mut self.half_done) {
            self.regs.rip += 1;
        }
        loop {
            if self.regs.rip == self.out_at {
                self.half_done = true;
                return Ok(Exit::PortOut { port: 1, width: 1, value: 0 });
            }
            if self.regs.rip == 1000 {
                return Ok(Exit::Shutdown);
            }
            let point = DebugPoint { address: self.regs.rip, kind: PointKind::Execute };
            if self.debug.points[0] == Some(point) {
                let cause = DebugCause::Trap { points: 1, single_step: false };
                return Ok(Exit::Debug { rip: self.regs.rip, cause });
            }
            self.regs.rip += 1;
            if self.debug.single_step {
                return Ok(Exit::Debug { rip: self.regs.rip, cause: DebugCause::STEP });
            }
        }
    }

    fn complete(&mut self, _: Entry) -> Result<Option<Exit>, Error> {
        self.regs.rip += u64::from(std::mem::take(&mut self.half_done));
        Ok(None)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        Ok(self.regs)
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.regs = *regs;
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        Ok(SpecialRegs::default())
    }

    fn set_special_regs(&mut self, _: &SpecialRegs) -> Result<(), Error> {
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        Scripted::default().kicker()
    }

    fn take_kick(&mut self) -> bool {
        false
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        Ok(Fpu::default())
    }

    fn set_fpu(&mut self, _: &Fpu) -> Result<(), Error> {
        Ok(())
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        Scripted::default().kick_timer()
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(false)
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        Some(self)
    }
}

impl DebugControl for Toy {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        self.debug = *debug;
        self.told.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The instruction at 20 writes eight bytes at 0x1004, that at 21 reads there.
#[derive(Debug)]
pub(crate) struct Sees;

impl OperandDecoder for Sees {
    fn accesses(
        &mut self,
        _: &mut dyn Vcpu,
        regs: &Regs,
        accesses: &mut Vec<Access>,
    ) -> Result<(), Error> {
        if regs.rip == 20 || regs.rip == 21 {
            let writes = regs.rip == 20;
            accesses.push(Access { address: 0x1004, length: 8, writes, reads: !writes });
        }
        Ok(())
    }

    fn is_repeated(&mut self, _: &mut dyn Vcpu, _: &Regs) -> Result<bool, Error> {
        Ok(false)
    }
}

fn toy(caps: DebugCaps) -> Debugged {
    counting_toy(caps).0
}

/// The vCPU, and how often its `set_guest_debug` was called.
fn counting_toy(caps: DebugCaps) -> (Debugged, Arc<AtomicU32>) {
    let toy = Toy::with_out_at(10);
    let told = toy.told.clone();
    (Debugged::new(Box::new(toy), caps, Box::new(Sees)), told)
}

const NOTHING: DebugCaps = DebugCaps { software: false, hardware: false };
const ALL: DebugCaps = DebugCaps { software: true, hardware: true };
const OUT: Exit = Exit::PortOut { port: 1, width: 1, value: 0 };

fn plan(breakpoints: &[u64], watchpoints: &[Watchpoint]) -> DebugPlan {
    DebugPlan {
        breakpoints: breakpoints.into(),
        watchpoints: watchpoints.into(),
        ..DebugPlan::default()
    }
}

/// Continues to the next stop, past exits: the address, and the reason.
fn go(vcpu: &mut Debugged) -> (u64, Option<DebugStop>) {
    loop {
        let exit = vcpu.run(Entry::Resume).unwrap();
        if exit != OUT {
            return (vcpu.regs().unwrap().rip, vcpu.take_debug_stop());
        }
    }
}

#[test]
fn without_a_plan_nothing_is_set() {
    let (mut vcpu, told) = counting_toy(NOTHING);
    assert_eq!(go(&mut vcpu), (1000, None));
    assert_eq!(told.load(Ordering::Relaxed), 0);
}

#[test]
fn breakpoints_stop_before_the_instruction_also_right_after_an_access() {
    for caps in [NOTHING, ALL] {
        for address in [0, 5, 11, 12, 500] {
            let mut vcpu = toy(caps);
            vcpu.set_debug_plan(&plan(&[address], &[])).unwrap();
            assert_eq!(go(&mut vcpu), (address, Some(DebugStop::Breakpoint)), "{caps:?}");
            // It stays there until it is taken away.
            assert_eq!(go(&mut vcpu), (address, Some(DebugStop::Breakpoint)));
            vcpu.set_debug_plan(&plan(&[], &[])).unwrap();
            assert_eq!(go(&mut vcpu), (1000, None));
        }
    }
}

#[test]
fn one_step_is_one_instruction_with_and_without_an_access() {
    for caps in [NOTHING, ALL] {
        let mut vcpu = toy(caps);
        vcpu.set_debug_plan(&DebugPlan { step: true, ..DebugPlan::default() }).unwrap();
        for rip in 1..30 {
            assert_eq!(go(&mut vcpu), (rip, Some(DebugStop::Step)), "{caps:?}");
        }
    }
}

#[test]
fn watchpoints_stop_after_the_instruction() {
    let point = |address, length, kind| Watchpoint { address, length, kind };
    for (watch, rip) in [
        (point(0x1004, 4, WatchKind::Write), 21),
        (point(0x100b, 1, WatchKind::Write), 21),
        (point(0x1000, 5, WatchKind::Access), 21),
        (point(0x1004, 8, WatchKind::Read), 22),
        (point(0x1000, 4, WatchKind::Access), 1000),
        (point(0x100c, 4, WatchKind::Access), 1000),
    ] {
        let mut vcpu = toy(NOTHING);
        vcpu.set_debug_plan(&plan(&[], &[watch])).unwrap();
        let expected = (rip < 1000).then_some(DebugStop::Watch(watch));
        assert_eq!(go(&mut vcpu), (rip, expected), "{watch:?}");
    }
}

#[test]
fn points_are_breakpoints_and_then_watchpoints() {
    let watch = Watchpoint { address: 0x2000, length: 8, kind: WatchKind::Write };
    let access = Watchpoint { address: 0x3000, length: 2, kind: WatchKind::Access };
    let debug = points(&plan(&[0x1000], &[watch, access]));
    let point = |address, kind| Some(DebugPoint { address, kind });
    let expected = [
        point(0x1000, PointKind::Execute),
        point(0x2000, PointKind::Write { length: 8 }),
        point(0x3000, PointKind::Access { length: 2 }),
        None,
    ];
    assert_eq!(debug.points, expected);
    for bad in
        [(0x2001, 8, WatchKind::Write), (0x2000, 3, WatchKind::Write), (0x2000, 8, WatchKind::Read)]
    {
        let (address, length, kind) = bad;
        assert!(!has_register_shape(&Watchpoint { address, length, kind }));
    }
}

#[test]
fn more_addresses_than_registers_are_kept_by_stepping() {
    let (mut vcpu, told) = counting_toy(ALL);
    vcpu.set_debug_plan(&plan(&[901, 902, 903, 904, 905], &[])).unwrap();
    assert_eq!(go(&mut vcpu), (901, Some(DebugStop::Breakpoint)));
    assert!(told.load(Ordering::Relaxed) > 800);
}

#[test]
fn a_trap_flag_that_is_left_over_is_taken_away() {
    let mut vcpu = toy(NOTHING);
    vcpu.set_debug_plan(&plan(&[5], &[])).unwrap();
    go(&mut vcpu);
    vcpu.set_debug_plan(&plan(&[], &[])).unwrap();
    let mut regs = vcpu.regs().unwrap();
    regs.rflags |= Regs::RFLAGS_TF;
    vcpu.set_regs(&regs).unwrap();
    // A debug exception without a breakpoint of the debugger: here from an address register.
    vcpu.debug = GuestDebug { trap: true, ..GuestDebug::default() };
    assert_eq!(vcpu.reason(DebugCause::STEP), None);
    assert_eq!(go(&mut vcpu), (1000, None));
}
