use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const BYTE: Width = Width::new(1).unwrap();
const EQUIPMENT: Equipment = Equipment { low_memory: 3 << 30, high_memory: 2 << 30, cpus: 4 };

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Milliseconds since the Unix epoch.
#[derive(Debug)]
struct Set(AtomicU64);

impl TimeSource for Set {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn with_time(time: Arc<Set>) -> Clock {
    Clock::new(&EQUIPMENT, time, Box::new(|_| ()), Box::new(|| ()))
}

fn clock(seconds: u64) -> Clock {
    with_time(Arc::new(Set(AtomicU64::new(seconds * 1000))))
}

fn register(clock: &Clock, index: u64) -> u64 {
    clock.write(0, BYTE, index);
    clock.read(1, BYTE)
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, expected) in [
        (0, (1970, 1, 1, 5, 0, 0, 0)),
        (951_782_399, (2000, 2, 28, 2, 23, 59, 59)),
        (951_782_400, (2000, 2, 29, 3, 0, 0, 0)),
        (1_709_251_199, (2024, 2, 29, 5, 23, 59, 59)),
        (1_735_689_599, (2024, 12, 31, 3, 23, 59, 59)),
        (4_107_542_400, (2100, 3, 1, 2, 0, 0, 0)),
    ] {
        let date = DateTime::new(at(seconds));
        let DateTime { year, month, day, weekday, hour, minute, second } = date;
        assert_eq!((year, month, day, weekday, hour, minute, second), expected);
    }
}

#[test]
fn registers_are_binary_coded_decimal() {
    let clock = clock(1_735_689_599);
    let shown = [0, 2, 4, 6, 7, 8, 9, 0x32].map(|index| register(&clock, index));
    assert_eq!(shown, [0x59, 0x59, 0x23, 3, 0x31, 0x12, 0x24, 0x20]);
    assert_eq!(register(&clock, 0x0a) & 0x80, 0, "no update in progress");
    assert_eq!((register(&clock, 0x0b), register(&clock, 0x0d)), (2, 0x80));
}

#[test]
fn one_moment_is_read_and_not_two() {
    let time = Arc::new(Set(AtomicU64::new(1_735_689_599_900)));
    let clock = with_time(time.clone());
    assert_eq!(register(&clock, 0), 0x59);
    time.0.fetch_add(200, Ordering::Relaxed);
    assert_eq!((register(&clock, 2), register(&clock, 9)), (0x59, 0x24));
    assert_eq!((register(&clock, 0), register(&clock, 2), register(&clock, 9)), (0, 0, 0x25));
}

#[test]
fn memory_holds_what_is_written_and_time_does_not() {
    let clock = clock(0);
    for index in [0x40, 9, 0x0d] {
        clock.write(0, BYTE, index);
        clock.write(1, BYTE, 0x77);
    }
    assert_eq!((register(&clock, 0x40), register(&clock, 9)), (0x77, 0x70));
    assert_eq!(register(&clock, 0x0d), 0x80);
    // The NMI mask is no part of the index.
    assert_eq!(register(&clock, 0xc0), 0x77);
}

#[test]
fn firmware_notes_the_equipment() {
    let clock = clock(0);
    let word = |low, high| register(&clock, low) | register(&clock, high) << 8;
    assert_eq!(word(0x15, 0x16), 640);
    assert_eq!(word(0x30, 0x31), 0xffff);
    assert_eq!(word(0x34, 0x35) << 16, (3 << 30) - (16 << 20));
    assert_eq!(word(0x5b, 0x5c) << 16, 2 << 30);
    assert_eq!(register(&clock, 0x5f), 3);
}

/// A clock at 10:20:30 of a day, and what its owner sees of it.
struct Rig {
    clock: Clock,
    time: Arc<Set>,
    /// Levels that the line has had.
    levels: Arc<Mutex<Vec<bool>>>,
    /// Number of changes of the alarm.
    changes: Arc<AtomicU64>,
}

impl Rig {
    fn new() -> Self {
        let start = (20_000 * 86_400 + 10 * 3600 + 20 * 60 + 30) * 1000;
        let (time, levels) =
            (Arc::new(Set(AtomicU64::new(start))), Arc::<Mutex<Vec<_>>>::default());
        let (line, changes) = (levels.clone(), Arc::new(AtomicU64::new(0)));
        let changed = changes.clone();
        let clock = Clock::new(
            &EQUIPMENT,
            time.clone(),
            Box::new(move |level| line.lock().unwrap().push(level)),
            Box::new(move || {
                changed.fetch_add(1, Ordering::Relaxed);
            }),
        );
        Self { clock, time, levels, changes }
    }
}

fn set(clock: &Clock, index: u64, value: u64) {
    clock.write(0, BYTE, index);
    clock.write(1, BYTE, value);
}

#[test]
fn the_alarm_is_an_interrupt_until_status_c_is_read() {
    let Rig { clock, time, levels, changes } = Rig::new();
    for (index, value) in [(5, 0x10), (3, 0x20), (1, 0x32)] {
        set(&clock, index, value);
    }
    assert_eq!((clock.due(), register(&clock, 0x0b)), (None, 2));
    set(&clock, 0x0b, 0xff);
    assert_eq!((clock.due(), register(&clock, 0x0b)), (Some(Duration::from_secs(2)), 0x22));
    assert_eq!(changes.load(Ordering::Relaxed), 4);
    clock.check_alarm();
    time.0.fetch_add(2500, Ordering::Relaxed);
    assert_eq!((levels.lock().unwrap().len(), clock.due()), (0, Some(Duration::ZERO)));
    clock.check_alarm();
    assert_eq!(*levels.lock().unwrap(), [true]);
    // Tomorrow again.
    assert_eq!(clock.due(), Some(Duration::from_millis(86_399_500)));
    assert_eq!((register(&clock, 0x0c), register(&clock, 0x0c)), (0xa0, 0));
    assert_eq!(*levels.lock().unwrap(), [true, false]);
    set(&clock, 0x0b, 2);
    assert_eq!(clock.due(), None);
}

#[test]
fn an_alarm_is_saved() {
    let Rig { clock, time, .. } = Rig::new();
    set(&clock, 1, 0xff);
    set(&clock, 3, 0xff);
    set(&clock, 5, 0xff);
    set(&clock, 0x0b, 0x22);
    time.0.fetch_add(1000, Ordering::Relaxed);
    clock.check_alarm();
    let saved = clock.save();
    let Rig { clock: other, levels, .. } = Rig::new();
    other.restore(&saved).unwrap();
    assert_eq!(
        (levels.lock().unwrap().as_slice(), other.due()),
        (&[true][..], Some(Duration::from_secs(1)))
    );
    assert_eq!(other.save(), saved);
    assert!(other.restore(&ClockState { status_c: 0x20, ..saved }).is_err());
}
