//! Number of runs of each test, and load of the host meanwhile.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Options of the commands that run tests.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Repeat {
    /// Run each test so many times, in labs that stay up, and print a table of how often each
    /// failed
    #[arg(long = "repeat", value_name = "N")]
    pub(crate) rounds: Option<NonZeroUsize>,
    /// Stop at the first failure
    #[arg(long, requires = "rounds")]
    pub(crate) until_fail: bool,
    /// Keep this host busy with so many endless loops meanwhile
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) load: usize,
}

impl Repeat {
    /// `true` if each test runs many times.
    pub(crate) fn is_wanted(self) -> bool {
        self.rounds.is_some()
    }

    /// Starts the endless loops.
    pub(crate) fn load(self) -> Load {
        Load::start(self.load)
    }
}

/// Endless loops, which end when this is dropped. They are threads, so that they end with this
/// process however it ends.
#[derive(Debug)]
pub(crate) struct Load(Arc<AtomicBool>);

impl Load {
    fn start(loops: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..loops {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_ends_when_it_is_dropped() {
        let load = Load::start(1);
        let over = load.0.clone();
        drop(load);
        assert!(over.load(Ordering::Relaxed));
        // The loop drops its own share when it ends.
        while Arc::strong_count(&over) > 1 {
            thread::yield_now();
        }
    }
}
