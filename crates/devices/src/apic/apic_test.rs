use super::*;

const ENABLE: u32 = 0x1ff;

fn enabled(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id);
    apic.write_msr(0x80f, ENABLE.into(), 0).unwrap();
    apic
}

#[test]
fn interrupts_come_in_the_order_of_their_priority() {
    let mut apic = enabled(0);
    [0x31, 0x95, 0x42, 0x95].into_iter().for_each(|vector| apic.request(vector));
    assert_eq!(apic.pending(), Some(0x95));
    apic.begin(0x95);
    // What is in service keeps its class and those below away.
    apic.request(0x9f);
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.read_msr(0x80a, 0), Ok(0x90), "processor priority");
    assert_eq!(apic.read_msr(0x814, 0), Ok(1 << 21), "in service, vectors 0x80 to 0x9f");
    assert_eq!(apic.read_msr(0x824, 0), Ok(1 << 31), "requested");
    apic.request(0xa0);
    assert_eq!(apic.pending(), Some(0xa0));
    apic.begin(0xa0);
    for left in [None, Some(0x9f)] {
        apic.write_msr(0x80b, 0, 0).unwrap();
        assert_eq!(apic.pending(), left);
    }
}

#[test]
fn the_task_priority_and_cr8_are_the_same() {
    let mut apic = enabled(0);
    apic.request(0x55);
    apic.write_msr(0x808, 0x5c, 0).unwrap();
    assert_eq!((apic.pending(), apic.priority_class()), (None, 5));
    apic.set_priority_class(5);
    assert_eq!(apic.read_msr(0x808, 0), Ok(0x5c), "the lower bits stay");
    apic.set_priority_class(4);
    assert_eq!((apic.read_msr(0x808, 0), apic.pending()), (Ok(0x40), Some(0x55)));
}

#[test]
fn a_disabled_apic_takes_nothing_and_low_vectors_are_errors() {
    let mut apic = LocalApic::new(0);
    apic.request(0x55);
    assert_eq!(apic.pending(), None);
    let mut apic = enabled(0);
    apic.request(15);
    assert_eq!(apic.write_msr(0x830, 3, 0), Ok(None), "an illegal vector is not sent");
    assert_eq!(apic.read_msr(0x828, 0), Ok(0));
    apic.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(apic.read_msr(0x828, 0), Ok(0x60));
    apic.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(apic.read_msr(0x828, 0), Ok(0));
}

#[test]
fn the_timer_comes_once_or_again_and_again() {
    let mut apic = enabled(0);
    apic.write_msr(0x83e, 0b0010, 0).unwrap();
    apic.write_msr(0x832, 0x40, 0).unwrap();
    apic.write_msr(0x838, 1000, 500).unwrap();
    assert_eq!((apic.deadline(), apic.read_msr(0x839, 4500)), (Some(8500), Ok(500)));
    apic.advance(8499);
    assert_eq!(apic.pending(), None);
    apic.advance(8500);
    assert_eq!((apic.pending(), apic.deadline(), apic.read_msr(0x839, 9000)), (Some(0x40), None, Ok(0)));
    apic.begin(0x40);
    apic.write_msr(0x80b, 0, 0).unwrap();
    // Periodic, seen late: one interrupt, and on with the beat.
    apic.write_msr(0x832, 0x2_0041, 0).unwrap();
    apic.write_msr(0x838, 10, 10_000).unwrap();
    apic.advance(10_265);
    assert_eq!((apic.pending(), apic.deadline()), (Some(0x41), Some(10_320)));
    // Masked, it goes on in silence; a count of zero stops it.
    apic.begin(0x41);
    apic.write_msr(0x80b, 0, 0).unwrap();
    apic.write_msr(0x832, 0x3_0041, 0).unwrap();
    apic.advance(10_330);
    assert_eq!((apic.pending(), apic.deadline()), (None, Some(10_400)));
    apic.write_msr(0x838, 0, 10_400).unwrap();
    assert_eq!(apic.deadline(), None);
}

#[test]
fn messages_go_where_the_command_says() {
    let mut apic = enabled(3);
    let mut send = |command: u64| apic.write_msr(0x830, command, 0).unwrap();
    let one = |target, delivery| Some(Message { target, delivery });
    assert_eq!(send(5 << 32 | 0x4041), one(Target::One(5), Delivery::Fixed(0x41)));
    assert_eq!(send(0xffff_ffff << 32 | 0x4041), one(Target::All, Delivery::Fixed(0x41)));
    assert_eq!(send(3 << 18 | 0x4400), one(Target::Others, Delivery::Nmi));
    assert_eq!(send(1 << 18 | 0x4041), one(Target::One(3), Delivery::Fixed(0x41)));
    assert_eq!(send(1 << 32 | 0xc500), one(Target::One(1), Delivery::Init));
    assert_eq!(send(1 << 32 | 0x8500), None, "INIT, de-asserted");
    assert_eq!(send(1 << 32 | 0x4609), one(Target::One(1), Delivery::Startup(9)));
    let logical = Target::Logical { cluster: Some(1), places: 0b101 };
    assert_eq!(send(0x1_0005 << 32 | 0x4841), one(logical, Delivery::Fixed(0x41)));
    assert_eq!(apic.write_msr(0x83f, 0x77, 0), Ok(one(Target::One(3), Delivery::Fixed(0x77))));
    let meant = |target| (0..20).filter(|id| LocalApic::new(*id).is_meant(target, 3)).count();
    assert_eq!([Target::One(5), Target::All, Target::Others, logical].map(meant), [1, 20, 19, 2]);

    assert_eq!(Message::from_device(0xfee0_2000, 0x51), one(Target::One(2), Delivery::Fixed(0x51)));
    assert_eq!(Message::from_device(0xfef0_2000, 0x51), None);
}

#[test]
fn the_older_interface_has_the_same_registers() {
    let mut apic = enabled(1);
    apic.write_page(0xd0, 0x0200_0000, 0);
    apic.write_page(0x310, 2 << 24, 0);
    let to_two = Message { target: Target::One(2), delivery: Delivery::Fixed(0x33) };
    assert_eq!(apic.write_page(0x300, 0x4033, 0), Some(to_two));
    assert_eq!([0x300, 0x310, 0x20, 0xff0].map(|at| apic.read_page(at, 0)), [0x4033, 2 << 24, 1 << 24, 0]);
    assert!(apic.is_meant(Target::Logical { cluster: None, places: 2 }, 0));
    assert!(!apic.is_meant(Target::Logical { cluster: None, places: 1 }, 0));
}

#[test]
fn what_is_not_there_is_refused() {
    let mut apic = enabled(17);
    for msr in [0x800, 0x80b, 0x80e, 0x831, 0x83f, 0x8ff, 0x7ff] {
        assert_eq!(apic.read_msr(msr, 0), Err(Refused), "{msr:#x}");
    }
    for (msr, value) in
        [(0x802, 0), (0x80b, 1), (0x80d, 0), (0x80e, 0), (0x839, 1), (0x808, 1 << 32), (0x8ff, 0)]
    {
        assert_eq!(apic.write_msr(msr, value, 0), Err(Refused), "{msr:#x}");
    }
    assert_eq!(apic.read_msr(0x802, 0), Ok(17));
    assert_eq!(apic.read_msr(0x803, 0), Ok(0x5_0014));
    assert_eq!(apic.read_msr(0x80d, 0), Ok(1 << 16 | 2));
}
