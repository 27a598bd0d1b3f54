//! Rate of the host's time-stamp counter.

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// Time over which the counter is measured.
const SPAN: Duration = Duration::from_millis(20);
/// Readings of counter and clock of which the closest pair is used. A thread that loses its
/// processor between the two makes the others useless.
const READINGS: usize = 32;

/// Measures the rate of the host's time-stamp counter in kHz against the monotonic clock, to a few
/// parts in 100 000 also on a busy host. It takes about 20 ms.
///
/// An emulator that passes the counter on (QEMU's TCG) has it run at this rate, and no CPUID leaf
/// says so to its guest.
pub fn measure_khz() -> u64 {
    let (start, first) = reading();
    thread::sleep(SPAN);
    let (end, last) = reading();
    let nanoseconds = end.saturating_duration_since(start).as_nanos();
    let ticks = u128::from(last.saturating_sub(first));
    let khz = ticks.saturating_mul(1_000_000).checked_div(nanoseconds).unwrap_or_default();
    u64::try_from(khz).unwrap_or(u64::MAX)
}

/// Time and counter, read as close to each other as possible.
fn reading() -> (Instant, u64) {
    let read = || {
        let time = Instant::now();
        // SAFETY: the instruction has no operand and touches no memory. Linux lets programs execute
        // it unless one asks for the opposite (PR_SET_TSC), which nothing here does.
        let counter = unsafe { _rdtsc() };
        (time.elapsed(), time, counter)
    };
    let closest = (1..READINGS).map(|_| read()).fold(read(), |best, next| best.min(next));
    (closest.1, closest.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (measure_khz(), measure_khz());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(two) < one / 1000, "{one} and {two} kHz");
    }
}
