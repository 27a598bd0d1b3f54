//! Between a local APIC's saved state and KVM's page of registers (Intel SDM vol. 3, table 12-1).

use kvm_bindings::kvm_lapic_state;
use nerite_irqchip::{APIC_VERSION, SavedLocalApic};

/// Offsets of registers.
const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const LOGICAL_DESTINATION: usize = 0xd0;
const DESTINATION_FORMAT: usize = 0xe0;
const SPURIOUS: usize = 0xf0;
const IN_SERVICE: usize = 0x100;
const TRIGGER_MODE: usize = 0x180;
const REQUESTED: usize = 0x200;
const ERROR_STATUS: usize = 0x280;
const COMMAND: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const FIRST_ENTRY: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;
/// Distance of registers.
const STRIDE: usize = 0x10;

/// `IA32_APIC_BASE`: x2APIC mode.
const X2APIC: u64 = 1 << 10;
/// Bits of the entries that mean something: timer, thermal sensor, counter, LINT0, LINT1, error.
const ENTRY_BITS: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_e7ff, 0x1_a7ff, 0x1_00ff];
const MASKED: u32 = 1 << 16;
const EXT_INT: u32 = 7 << 8;
/// Bits of the spurious-interrupt vector register, and the one that enables the APIC.
const SPURIOUS_BITS: u32 = 0x3ff;
const ENABLED: u32 = 1 << 8;
/// Status of a command's delivery, which is over.
const DELIVERY_STATUS: u32 = 1 << 12;
/// Mode of the timer's entry.
const TIMER_MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 2 << 17;
/// Errors that are reported: illegal vectors sent and received, illegal register.
const ERRORS: u32 = 0xe0;
/// Vectors below 16 are illegal.
const LEGAL: u32 = 0xffff_0000;

/// Nanoseconds that a count takes, by the divide configuration (Intel SDM vol. 3, figure 12-10).
/// KVM's timer has 1 GHz.
const fn divider(divide: u32) -> u64 {
    match divide & 0b1011 {
        0b0000 => 2,
        0b0001 => 4,
        0b0010 => 8,
        0b0011 => 16,
        0b1000 => 32,
        0b1001 => 64,
        0b1010 => 128,
        _ => 1,
    }
}

fn word(state: &kvm_lapic_state, offset: usize) -> u32 {
    let bytes = state.regs.get(offset..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes.map(i8::cast_unsigned)))
}

fn set_word(state: &mut kvm_lapic_state, offset: usize, value: u32) {
    if let Some(bytes) = state.regs.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *bytes = value.to_le_bytes().map(u8::cast_signed);
    }
}

fn offsets<const N: usize>(first: usize) -> [usize; N] {
    std::array::from_fn(|index| first.saturating_add(index.saturating_mul(STRIDE)))
}

fn vectors(state: &kvm_lapic_state, first: usize) -> [u32; 8] {
    let mut words = offsets::<8>(first).map(|offset| word(state, offset));
    let [lowest, ..] = &mut words;
    *lowest &= LEGAL;
    words
}

/// The state of the APIC with this ID; `base` is its `IA32_APIC_BASE` and `deadline` its
/// `IA32_TSC_DEADLINE`, which are not in the page.
pub(crate) fn from_kvm(
    state: &kvm_lapic_state,
    id: u32,
    base: u64,
    deadline: u64,
) -> SavedLocalApic {
    let is_x2apic = base & X2APIC != 0;
    let [own_id, ..] = id.to_le_bytes();
    let [.., xapic_id] = word(state, ID).to_le_bytes();
    let spurious = word(state, SPURIOUS) & SPURIOUS_BITS;
    let mut entries = offsets::<6>(FIRST_ENTRY).map(|offset| word(state, offset));
    for (entry, bits) in entries.iter_mut().zip(ENTRY_BITS) {
        *entry &= bits;
        if spurious & ENABLED == 0 && *entry != EXT_INT {
            *entry |= MASKED;
        }
    }
    let [timer, ..] = entries;
    let (initial_count, divide) = (word(state, INITIAL_COUNT), word(state, DIVIDE) & 0b1011);
    // In KVM's saved page the current count is that of the moment.
    let left = u64::from(word(state, CURRENT_COUNT));
    let counts = match timer & TIMER_MODE {
        PERIODIC => true,
        0 => left != 0,
        _ => false,
    };
    let remaining = (counts && initial_count != 0).then(|| left.saturating_mul(divider(divide)));
    let command = u64::from(word(state, COMMAND_HIGH)) << 32;
    SavedLocalApic {
        version: APIC_VERSION,
        id,
        base,
        xapic_id: if is_x2apic { own_id } else { xapic_id },
        task_priority: word(state, TASK_PRIORITY).to_le_bytes()[0],
        // In x2APIC mode it follows from the ID.
        logical_destination: if is_x2apic {
            0
        } else {
            word(state, LOGICAL_DESTINATION) & 0xff00_0000
        },
        destination_format: word(state, DESTINATION_FORMAT) | 0x0fff_ffff,
        spurious,
        requested: vectors(state, REQUESTED),
        in_service: vectors(state, IN_SERVICE),
        level: vectors(state, TRIGGER_MODE),
        errors: word(state, ERROR_STATUS) & ERRORS,
        new_errors: 0,
        command: command | u64::from(word(state, COMMAND) & !DELIVERY_STATUS),
        entries,
        initial_count,
        divide,
        remaining,
        tsc_deadline: if timer & TIMER_MODE == DEADLINE { deadline } else { 0 },
        pins: [false; 2],
        init: false,
        startup: None,
        nmis: 0,
    }
}

/// Returns `true` if the timer is in TSC deadline mode.
pub(crate) fn has_deadline(state: &kvm_lapic_state) -> bool {
    word(state, FIRST_ENTRY) & TIMER_MODE == DEADLINE
}

/// Returns `true` if the timer counts, once or periodically, and interrupts.
pub(crate) fn counts(state: &kvm_lapic_state) -> bool {
    let timer = word(state, FIRST_ENTRY);
    let is_counting = matches!(timer & TIMER_MODE, 0 | PERIODIC);
    is_counting && timer & MASKED == 0 && word(state, INITIAL_COUNT) != 0
}

/// Returns `true` if a timer that counts once has come to zero.
pub(crate) fn is_over(state: &kvm_lapic_state) -> bool {
    word(state, FIRST_ENTRY) & TIMER_MODE == 0 && word(state, CURRENT_COUNT) == 0
}

/// Returns `true` if a timer that counts may have come to zero between these two moments.
pub(crate) fn has_expired_between(before: &kvm_lapic_state, after: &kvm_lapic_state) -> bool {
    let [before, now] = [before, after].map(|state| word(state, CURRENT_COUNT));
    match word(after, FIRST_ENTRY) & TIMER_MODE {
        PERIODIC => now > before,
        _ => now == 0 && before != 0,
    }
}

/// Puts a saved state into a page that KVM gave, so that what is not in the state stays.
pub(crate) fn to_kvm(saved: &SavedLocalApic, state: &mut kvm_lapic_state) {
    let is_x2apic = saved.base & X2APIC != 0;
    let [timer, ..] = saved.entries;
    let [command_low, command_high] = [saved.command & 0xffff_ffff, saved.command >> 32]
        .map(|half| u32::try_from(half).unwrap_or(0));
    // A count of less than one is one, or it would not come to its end.
    let left = saved.remaining.map_or(0, |left| {
        let count = left.div_ceil(divider(saved.divide)).max(1);
        u32::try_from(count).unwrap_or(u32::MAX)
    });
    // KVM starts a one-shot timer with what is left of its count, and one of which nothing is left
    // would expire a second time.
    let is_over = saved.remaining.is_none() && timer & TIMER_MODE == 0;
    let initial_count = if is_over { 0 } else { saved.initial_count };
    let own_id = if is_x2apic { saved.id } else { u32::from(saved.xapic_id) << 24 };
    for (offset, value) in [
        (ID, own_id),
        (TASK_PRIORITY, saved.task_priority.into()),
        (LOGICAL_DESTINATION, saved.logical_destination),
        (DESTINATION_FORMAT, saved.destination_format),
        (SPURIOUS, saved.spurious),
        (ERROR_STATUS, saved.errors | saved.new_errors),
        (COMMAND, command_low),
        (COMMAND_HIGH, command_high),
        (INITIAL_COUNT, initial_count),
        (CURRENT_COUNT, left),
        (DIVIDE, saved.divide),
    ] {
        set_word(state, offset, value);
    }
    for (first, words) in
        [(REQUESTED, saved.requested), (IN_SERVICE, saved.in_service), (TRIGGER_MODE, saved.level)]
    {
        for (offset, value) in offsets::<8>(first).into_iter().zip(words) {
            set_word(state, offset, value);
        }
    }
    for (offset, value) in offsets::<6>(FIRST_ENTRY).into_iter().zip(saved.entries) {
        set_word(state, offset, value);
    }
}

#[cfg(test)]
mod tests {
    use nerite_irqchip::{ApicConfig, Delivery, LocalApic, Time};

    use super::*;

    fn there_and_back(saved: &SavedLocalApic) -> SavedLocalApic {
        let mut page = kvm_lapic_state { regs: [0; 1024] };
        to_kvm(saved, &mut page);
        from_kvm(&page, saved.id, saved.base, saved.tsc_deadline)
    }

    /// An APIC in x2APIC mode with a timer of 1 ms that counts, and interrupts in all registers.
    fn busy(id: u32) -> LocalApic {
        let mut apic = LocalApic::new(id, ApicConfig::of(id));
        apic.write_base(0xfee0_0c00).unwrap();
        for (msr, value) in [(0x80f, 0x1ff), (0x83e, 0xb), (0x832, 0x2_0040), (0x838, 1_000_000)] {
            apic.write_msr(msr, value, Time::default()).unwrap();
        }
        assert!(apic.accept(Delivery::Fixed(0x61), true));
        apic.acknowledge();
        assert!(apic.accept(Delivery::Fixed(0x71), false));
        apic
    }

    #[test]
    fn an_apic_comes_back_as_it_went() {
        for id in [0, 5, 300] {
            let saved = busy(id).save(Time::from_nanoseconds(300_000));
            assert_eq!(saved.remaining, Some(700_000));
            assert_eq!(there_and_back(&saved), saved);
        }
        let mut xapic = LocalApic::new(1, ApicConfig::of(1));
        for (offset, value) in [(0xf0, 0x1ff), (0x20, 9 << 24), (0xd0, 0x200_0000), (0x350, 0x8700)]
        {
            xapic.write_mmio(offset, 4, value, Time::default());
        }
        let saved = xapic.save(Time::default());
        assert_eq!((saved.xapic_id, there_and_back(&saved)), (9, saved));
    }

    #[test]
    fn the_state_after_a_reset_can_be_restored() {
        for id in [0, 1] {
            let config = ApicConfig::of(id);
            let saved = there_and_back(&LocalApic::new(id, config).save(Time::default()));
            assert!(LocalApic::restore(config, &saved, Time::default()).is_ok());
        }
    }

    #[test]
    fn a_timer_that_is_over_does_not_start_again() {
        let mut saved = busy(0).save(Time::default());
        [saved.entries[0], ..] = [0x40; 6];
        saved.remaining = None;
        assert_eq!(
            (there_and_back(&saved).initial_count, there_and_back(&saved).remaining),
            (0, None)
        );
        // And one that is about to end does end.
        saved.remaining = Some(0);
        assert_eq!(there_and_back(&saved).remaining, Some(1));
    }

    #[test]
    fn the_end_of_a_count_is_noticed() {
        let page = |timer: u32, left: u32| {
            let mut page = kvm_lapic_state { regs: [0; 1024] };
            for (offset, value) in
                [(FIRST_ENTRY, timer), (INITIAL_COUNT, 100), (CURRENT_COUNT, left)]
            {
                set_word(&mut page, offset, value);
            }
            page
        };
        let expired =
            |timer, before, after| has_expired_between(&page(timer, before), &page(timer, after));
        assert!(expired(0x40, 1, 0) && !expired(0x40, 0, 0) && !expired(0x40, 9, 8));
        assert!(expired(0x2_0040, 1, 99) && !expired(0x2_0040, 9, 0));
        assert!(counts(&page(0x40, 0)) && counts(&page(0x2_0040, 0)));
        assert!(!counts(&page(0x4_0040, 0)) && !counts(&page(0x1_0040, 0)));
        assert!(is_over(&page(0x40, 0)) && !is_over(&page(0x40, 1)));
        assert!(!is_over(&page(0x2_0040, 0)));
    }

    #[test]
    fn a_deadline_is_kept_in_its_mode_only() {
        let mut saved = busy(0).save(Time::default());
        (saved.entries[0], saved.initial_count, saved.remaining) = (0x4_0040, 0, None);
        saved.tsc_deadline = 77;
        assert_eq!(there_and_back(&saved).tsc_deadline, 77);
        saved.entries[0] = 0x40;
        assert_eq!(there_and_back(&saved).tsc_deadline, 0);
    }
}
