//! Clocks that go forwards, and sleeping.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Maximum time between the host's clock reading and this program's first instruction.
const WITHIN: u64 = 30 * 60;

/// `expected` is the host's time in seconds since 1970.
pub fn run(expected: u64) {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    assert!(
        now.abs_diff(expected) < WITHIN,
        "the clock says {now}, and the host's said {expected}"
    );
    println!("the wall clock is right");

    let start = Instant::now();
    let mut last = start;
    for _ in 0..20_000 {
        let next = Instant::now();
        assert!(next >= last, "the clock went back from {last:?} to {next:?}");
        last = next;
    }
    assert!(last > start, "the clock stands still");
    println!("the clock goes forwards");

    for asked in [1, 20, 150].map(Duration::from_millis) {
        let (start, wall) = (Instant::now(), SystemTime::now());
        thread::sleep(asked);
        let (slept, wall) =
            (start.elapsed(), wall.elapsed().expect("the wall clock goes forwards"));
        assert!(slept >= asked, "{slept:?} is less than the {asked:?} asked for");
        assert!(slept < asked + Duration::from_secs(10), "{slept:?} is far more than {asked:?}");
        assert!(
            wall.abs_diff(slept) < Duration::from_secs(1),
            "clocks differ: {wall:?} and {slept:?}"
        );
        println!("slept at least {} ms", asked.as_millis());
    }
}
