//! Says on standard error what is going on and for how long.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::signals;

/// How often a long step says that it is still at work where nobody watches a terminal.
const EVERY: Duration = Duration::from_secs(30);

/// One line of progress, on standard error.
pub(crate) fn say(text: &str) {
    signals::stop_here();
    // Whoever stopped reading has no use for an error either.
    let _ = writeln!(std::io::stderr(), "xtask: {text}");
}

/// One line of results, on standard output.
pub(crate) fn print(text: &str) {
    signals::stop_here();
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A step that takes a while. A thread shows the elapsed time until it is done or dropped.
pub(crate) struct Step {
    text: String,
    start: Instant,
    over: Arc<AtomicBool>,
}

/// Starts a step.
pub(crate) fn step(text: &str) -> Step {
    say(&format!("{text} ..."));
    let over = Arc::new(AtomicBool::new(false));
    let step = Step { text: text.to_owned(), start: Instant::now(), over: over.clone() };
    let (text, start, terminal) = (step.text.clone(), step.start, std::io::stderr().is_terminal());
    thread::spawn(move || {
        let every = if terminal { Duration::from_secs(5) } else { EVERY };
        let mut next = every;
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
            if start.elapsed() >= next && !over.load(Ordering::Relaxed) {
                next += every;
                say(&format!("{text} ... {} s", start.elapsed().as_secs()));
            }
        }
    });
    step
}

impl Step {
    /// Ends the step and says how long it took.
    pub(crate) fn done(self) {
        say(&format!("{}: {:.1} s", self.text, self.start.elapsed().as_secs_f64()));
    }

    /// Ends the step and says what it came to.
    pub(crate) fn done_with(self, result: &str) {
        say(&format!("{}: {result}, {:.1} s", self.text, self.start.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = std::io::stderr().flush();
    }
}
