//! Progress, on standard error: a line that is rewritten on a terminal, a line a minute elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::signals;

/// Time between two lines of a long step where no terminal shows it.
const EVERY: Duration = Duration::from_secs(60);

/// Number of programs that show their own progress on the terminal now.
static OTHERS: AtomicUsize = AtomicUsize::new(0);
/// `true` while several things are built at the same time, whose progress cannot share a line.
static TOGETHER: AtomicBool = AtomicBool::new(false);
/// `true` while the last line of the terminal is one that is rewritten.
static REWRITTEN: Mutex<bool> = Mutex::new(false);

/// Numbers of the steps that are being done; only the last one shows its time.
static STEPS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn with_steps<T>(what: impl FnOnce(&mut Vec<usize>) -> T) -> T {
    what(&mut STEPS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Writes whole lines with `write`, after the line that is rewritten is gone.
fn lines(write: impl FnOnce()) {
    signals::stop_here();
    let mut rewritten = REWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut *rewritten) {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    write();
}

/// Writes a line; in a test, to where the harness collects the test's output.
#[expect(clippy::print_stdout, reason = "only this is collected")]
fn write_line(to: &mut dyn Write, text: &str) {
    if cfg!(test) {
        println!("{text}");
    } else {
        let _ = writeln!(to, "{text}");
    }
}

/// One line of progress, on standard error.
pub(crate) fn say(text: &str) {
    tell(&format!("xtask: {text}"));
}

/// An error with its causes, in one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Text of another program, on standard error.
pub(crate) fn tell(text: &str) {
    // A reader that has gone away has no use for an error either.
    lines(|| write_line(&mut std::io::stderr(), text));
}

/// One line of results, on standard output.
pub(crate) fn print(text: &str) {
    lines(|| write_line(&mut std::io::stdout(), text));
}

/// Rewrites the last line of the terminal.
fn rewrite(text: &str) {
    let mut rewritten = REWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    *rewritten = true;
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

/// While this lives, another program shows its progress on the terminal.
#[derive(Debug)]
pub(crate) struct Other(());

/// The right to show progress on the terminal, for a program that does that itself; `None` if there
/// is no terminal, or if several things are built at the same time.
pub(crate) fn hand_over() -> Option<Other> {
    if !std::io::stderr().is_terminal() || TOGETHER.load(Ordering::Relaxed) {
        return None;
    }
    // It begins on a line of its own.
    lines(|| ());
    OTHERS.fetch_add(1, Ordering::Relaxed);
    Some(Other(()))
}

impl Drop for Other {
    fn drop(&mut self) {
        OTHERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs something that builds several things at the same time.
pub(crate) fn together(what: impl FnOnce()) {
    TOGETHER.store(true, Ordering::Relaxed);
    what();
    TOGETHER.store(false, Ordering::Relaxed);
}

/// A step that takes a while. A thread shows the elapsed time until it is done or dropped.
pub(crate) struct Step {
    text: String,
    start: Instant,
    over: Arc<AtomicBool>,
    number: usize,
}

/// Starts a step.
pub(crate) fn step(text: &str) -> Step {
    say(&format!("{text} ..."));
    let over = Arc::new(AtomicBool::new(false));
    let number = with_steps(|steps| {
        let number = steps.iter().max().map_or(0, |last| last + 1);
        steps.push(number);
        number
    });
    let step = Step { text: text.to_owned(), start: Instant::now(), over: over.clone(), number };
    let (text, start, terminal) = (step.text.clone(), step.start, std::io::stderr().is_terminal());
    thread::spawn(move || {
        let every = if terminal { Duration::from_secs(1) } else { EVERY };
        let mut next = if terminal { Duration::from_secs(3) } else { EVERY };
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
            if start.elapsed() < next || over.load(Ordering::Relaxed) {
                continue;
            }
            next = start.elapsed() + every;
            if with_steps(|steps| steps.last() != Some(&number)) {
                continue;
            }
            let now = format!("xtask: {text} ... {} s", start.elapsed().as_secs());
            match (terminal, OTHERS.load(Ordering::Relaxed)) {
                (true, 0) => rewrite(&now),
                (true, _) => {}
                (false, _) => tell(&now),
            }
        }
    });
    step
}

impl Step {
    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        with_steps(|steps| steps.retain(|number| *number != self.number));
    }

    /// Ends the step and says how long it took.
    pub(crate) fn done(self) {
        self.end();
        say(&format!("{}: {:.1} s", self.text, self.start.elapsed().as_secs_f64()));
    }

    /// Ends the step and says what it came to.
    pub(crate) fn done_with(self, result: &str) {
        self.end();
        say(&format!("{}: {result}, {:.1} s", self.text, self.start.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end();
    }
}
