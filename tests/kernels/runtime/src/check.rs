//! Checks that go on after a failure, so that one run shows all that is wrong.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{entry, exit, println};

static FAILED: AtomicU32 = AtomicU32::new(0);

/// Only the first failures are printed: a check in a loop over memory may fail a million times.
const PRINTED: u32 = 20;

/// Counts and prints a failure; [`check!`](crate::check!) and [`check_eq!`](crate::check_eq!) call
/// it.
#[cold]
pub fn failed(what: fmt::Arguments<'_>) {
    if FAILED.fetch_add(1, Ordering::AcqRel) < PRINTED {
        println!("FAILED: {what}");
    }
}

/// Ends the guest: `<name>: ok` and exit code 0 if no check failed, else `<name>: FAILED` and 1.
pub fn finish() -> ! {
    exit(i32::from(!report()))
}

/// Prints the last line; whether all is well.
pub fn report() -> bool {
    let failures = FAILED.load(Ordering::Acquire);
    let name = entry::kernel().name;
    if failures == 0 {
        println!("{name}: ok");
    } else {
        println!("{name}: FAILED {failures} checks");
    }
    failures == 0
}

/// Checks a condition: `check!(a < b, "a is {a}")`.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            $crate::check::failed(format_args!($($what)+));
        }
    };
}

/// Checks that two values are equal, and prints both if not: `check_eq!(seen, expected, "the
/// size")`.
#[macro_export]
macro_rules! check_eq {
    ($seen:expr, $expected:expr, $($what:tt)+) => {{
        let (seen, expected) = ($seen, $expected);
        if seen != expected {
            $crate::check::failed(format_args!(
                "{}: {seen:#x?} instead of {expected:#x?}", format_args!($($what)+)
            ));
        }
    }};
}
