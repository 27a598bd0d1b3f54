use super::*;

type Change = dyn Fn(&mut VcpuState);

/// A state that passes all checks: a processor after a reset.
fn valid() -> VcpuState {
    let mut xsave = nerite_arch::Fpu::default().to_xsave().to_vec();
    xsave.resize(4096, 0);
    VcpuState {
        version: STATE_VERSION,
        regs: nerite_arch::reset::regs(),
        special: nerite_arch::reset::special_regs(0xfee0_0900),
        xcr0: 7,
        xsave,
        tsc_khz: Some(1_000_000),
        ..VcpuState::default()
    }
}

#[test]
fn the_state_after_a_reset_passes() {
    valid().check().unwrap();
    VmState::default().check().unwrap();
}

/// Puts the state into 64-bit mode.
fn long(state: &mut VcpuState) {
    state.special.cr0 |= 0x8000_0001;
    state.special.cr4 = 1 << 5;
    state.special.efer = 0x500;
    state.special.cs.l = true;
}

#[test]
fn impossible_fields_are_named() {
    let check = |change: &Change| {
        let mut state = valid();
        change(&mut state);
        state.check().unwrap_err().to_string()
    };
    let mut in_long_mode = valid();
    long(&mut in_long_mode);
    in_long_mode.check().unwrap();
    assert_eq!(check(&|state| state.version = 9), "state has version 9, expected 1");
    assert_eq!(check(&|state| state.regs.rflags = 0), "rflags has an impossible value: 0x0");
    let cases: &[(&str, &Change)] = &[
        ("cpuid", &|state| state.cpuid.resize(1025, CpuidEntry::default())),
        ("msrs", &|state| state.msrs.resize(1025, Msr::default())),
        ("rflags", &|state| state.regs.rflags |= 1 << 15),
        ("rip", &|state| state.regs.rip = 1 << 32),
        ("rip", &|state| {
            long(state);
            state.regs.rip = 1 << 47;
        }),
        ("dr6", &|state| state.debug.dr6 = 1 << 32),
        ("dr7", &|state| state.debug.dr7 = 1 << 40),
        ("xcr0", &|state| state.xcr0 = 6),
        ("xcr0", &|state| state.xcr0 = 5),
        ("xsave length", &|state| state.xsave.truncate(575)),
        ("xsave length", &|state| state.xsave.resize(1 << 20, 0)),
        ("mxcsr", &|state| state.xsave[27] = 1),
        ("xsave header", &|state| state.xsave[527] = 0x80),
        ("pending NMIs", &|state| state.events.nmis = 3),
        ("exception vector", &|state| {
            state.events.exception = Some(PendingException { vector: 32, error: None });
        }),
        ("exception error code", &|state| {
            state.events.exception = Some(PendingException { vector: 6, error: Some(0) });
        }),
        ("apic_base", &|state| {
            let apic = nerite_irqchip::LocalApic::new(0, nerite_irqchip::ApicConfig::of(0));
            state.apic = Some(apic.save(nerite_irqchip::Time::default()));
            state.special.apic_base = 0;
        }),
        ("cr0", &|state| state.special.cr0 |= 1 << 31),
        ("cr0", &|state| state.special.cr0 ^= 1 << 30),
        ("cr3", &|state| state.special.cr3 = 1 << 63),
        ("cr4", &|state| state.special.cr4 = 1 << 15),
        ("cr4", &|state| {
            long(state);
            state.special.cr4 = 0;
        }),
        ("cr8", &|state| state.special.cr8 = 16),
        ("efer", &|state| state.special.efer = 1 << 10),
        ("efer", &|state| state.special.efer = 1 << 9),
        ("fs", &|state| state.special.fs.base = 1 << 62),
        ("ss", &|state| state.special.ss.dpl = 4),
        ("tr", &|state| state.special.tr.kind = 16),
        ("gdt", &|state| state.special.gdt.base = 1 << 48),
        ("idt", &|state| state.special.idt.base = 1 << 48),
    ];
    for (name, change) in cases {
        let error = check(change);
        assert!(error.starts_with(&format!("{name} has")), "{name}: {error}");
    }
}

#[test]
fn counters_read_one_after_the_other_are_made_one() {
    let with = |tsc| VcpuState { tsc, ..valid() };
    let mut vcpus = [with(10_000_000_000), with(10_000_500_000), with(3)];
    synchronise_tscs(&mut vcpus);
    assert_eq!(vcpus.map(|vcpu| vcpu.tsc), [10_000_500_000, 10_000_500_000, 3]);
    synchronise_tscs(&mut []);
}

#[test]
fn accepted_events_end_a_halt() {
    let with = |change: fn(&mut PendingEvents)| {
        let mut state = VcpuState { run_state: Activity::Halted, ..valid() };
        change(&mut state.events);
        state.activity()
    };
    assert_eq!(with(|_| ()), Activity::Halted);
    assert_eq!(with(|events| events.interrupt = Some(0x41)), Activity::Runnable);
    assert_eq!(with(|events| events.exception = Some(Default::default())), Activity::Runnable);
    assert_eq!(with(|events| events.nmis = 1), Activity::Runnable);
    assert_eq!(with(|events| (events.nmis, events.nmi_masked) = (1, true)), Activity::Halted);
    let waits = VcpuState { run_state: Activity::WaitForSipi, ..valid() };
    assert_eq!(waits.activity(), Activity::WaitForSipi);
}

#[cfg(feature = "serde")]
#[test]
fn states_are_plain_data() {
    let state = valid();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<VcpuState>(&text).unwrap(), state);
    let board = nerite_irqchip::Board::new(Default::default(), Default::default()).save(0);
    let state = VmState { board: Some(board), ..VmState::default() };
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<VmState>(&text).unwrap(), state);
}
