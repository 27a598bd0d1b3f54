use nerite_arch::SpecialRegs;

use super::*;
use crate::Kicker;
use crate::scripted::Scripted;

/// A processor on which every instruction is one byte long: from `out_at` on one writes a port, all others do nothing.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    regs: Regs,
    debug: EngineDebug,
    /// Where an instruction writes port 1.
    out_at: u64,
    half_done: bool,
    /// How often the engine was told something.
    told: u32,
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
            let hit = self.debug.address.iter().position(|address| *address == self.regs.rip);
            if self.debug.dr7 & 2 != 0 && hit == Some(0) {
                return Ok(Exit::Debug { rip: self.regs.rip, exception: 1, dr6: 1 });
            }
            self.regs.rip += 1;
            if self.debug.single_step {
                return Ok(Exit::Debug { rip: self.regs.rip, exception: 1, dr6: DR6_SINGLE_STEP });
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

    fn set_engine_debug(&mut self, debug: &EngineDebug) -> Result<(), Error> {
        self.debug = *debug;
        self.told += 1;
        Ok(())
    }
}

/// The instruction at 20 writes eight bytes at 0x1004, that at 21 reads there.
#[derive(Debug)]
pub(crate) struct Sees;

impl Foresee for Sees {
    fn foresee(&mut self, _: &mut dyn Vcpu, regs: &Regs, accesses: &mut Vec<Access>) -> Result<(), Error> {
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

fn toy(native: Native) -> Debugged<Toy> {
    Debugged::new(Toy { out_at: 10, ..Toy::default() }, native, Box::new(Sees))
}

const NOTHING: Native = Native { software: false, hardware: false };
const ALL: Native = Native { software: true, hardware: true };
const OUT: Exit = Exit::PortOut { port: 1, width: 1, value: 0 };

fn plan(breakpoints: &[u64], watchpoints: &[Watchpoint]) -> DebugPlan {
    DebugPlan { breakpoints: breakpoints.into(), watchpoints: watchpoints.into(), ..DebugPlan::default() }
}

/// Where it stops next, and why; exits on the way go on.
fn go(vcpu: &mut Debugged<Toy>) -> (u64, Option<DebugStop>) {
    loop {
        let exit = vcpu.run(Entry::Resume).unwrap();
        if exit != OUT {
            return (vcpu.regs().unwrap().rip, vcpu.take_debug_stop());
        }
    }
}

#[test]
fn without_a_plan_the_engine_is_told_nothing() {
    let mut vcpu = toy(NOTHING);
    assert_eq!(go(&mut vcpu), (1000, None));
    assert_eq!(vcpu.inner().told, 0);
}

#[test]
fn breakpoints_stop_before_the_instruction_also_right_after_an_access() {
    for native in [NOTHING, ALL] {
        for address in [0, 5, 11, 12, 500] {
            let mut vcpu = toy(native);
            vcpu.set_debug_plan(&plan(&[address], &[])).unwrap();
            assert_eq!(go(&mut vcpu), (address, Some(DebugStop::Breakpoint)), "{native:?}");
            // It stays there until it is taken away.
            assert_eq!(go(&mut vcpu), (address, Some(DebugStop::Breakpoint)));
            vcpu.set_debug_plan(&plan(&[], &[])).unwrap();
            assert_eq!(go(&mut vcpu), (1000, None));
        }
    }
}

#[test]
fn one_step_is_one_instruction_with_and_without_an_access() {
    for native in [NOTHING, ALL] {
        let mut vcpu = toy(native);
        vcpu.set_debug_plan(&DebugPlan { step: true, ..DebugPlan::default() }).unwrap();
        for rip in 1..30 {
            assert_eq!(go(&mut vcpu), (rip, Some(DebugStop::Step)), "{native:?}");
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
fn debug_registers_are_as_the_processor_has_them() {
    let watch = Watchpoint { address: 0x2000, length: 8, kind: WatchKind::Write };
    let access = Watchpoint { address: 0x3000, length: 2, kind: WatchKind::Access };
    let debug = registers(&plan(&[0x1000], &[watch, access]));
    assert_eq!(debug.address, [0x1000, 0x2000, 0x3000, 0]);
    assert_eq!(debug.dr7, 0x0790_002a);
    for bad in [(0x2001, 8, WatchKind::Write), (0x2000, 3, WatchKind::Write), (0x2000, 8, WatchKind::Read)] {
        let (address, length, kind) = bad;
        assert!(!has_register_shape(&Watchpoint { address, length, kind }));
    }
}

#[test]
fn more_addresses_than_registers_are_kept_by_stepping() {
    let mut vcpu = toy(ALL);
    vcpu.set_debug_plan(&plan(&[901, 902, 903, 904, 905], &[])).unwrap();
    assert_eq!(go(&mut vcpu), (901, Some(DebugStop::Breakpoint)));
    assert!(vcpu.inner().told > 800);
}

#[test]
fn a_trap_flag_that_is_left_over_is_taken_away() {
    let mut vcpu = toy(NOTHING);
    vcpu.set_debug_plan(&plan(&[5], &[])).unwrap();
    go(&mut vcpu);
    vcpu.set_debug_plan(&plan(&[], &[])).unwrap();
    vcpu.inner_mut().regs.rflags |= Regs::RFLAGS_TF;
    // A debug exception that nobody asked for: here from an address register.
    vcpu.engine = EngineDebug { trap: true, ..EngineDebug::default() };
    assert_eq!(vcpu.reason(1, DR6_SINGLE_STEP), None);
    assert_eq!(go(&mut vcpu), (1000, None));
}
