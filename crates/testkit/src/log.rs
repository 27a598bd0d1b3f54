//! A log that tests can read, one for each thread.

use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Runs `what`; gives its result and the warnings and errors it logged on this thread.
pub fn lines_of<T>(what: impl FnOnce() -> T) -> (T, Vec<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&Lines).unwrap();
        log::set_max_level(LevelFilter::Warn);
    });
    LINES.take();
    let result = what();
    (result, LINES.take())
}

/// Runs `what`, which must log one line; gives that line.
#[track_caller]
pub fn line_of(what: impl FnOnce()) -> String {
    let ((), lines) = lines_of(what);
    let [line] = lines.as_slice() else { panic!("not one line: {lines:?}") };
    line.clone()
}
