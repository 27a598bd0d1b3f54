use std::sync::Mutex;

use super::*;

/// Keeps what is logged.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[test]
fn a_flood_is_a_few_lines_and_a_count() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let budget = LogBudget::new("driver", 3);
    for number in 0..10_000 {
        budget.warn(format_args!("message {number}"));
    }
    assert_eq!(budget.dropped(), 9_997);
    drop(budget);
    drop(LogBudget::new("quiet", 3));
    let silent = LogBudget::new("silent", 0);
    silent.error(format_args!("never seen"));
    silent.report();
    assert_eq!(silent.dropped(), 0, "reported once");
    drop(silent);
    let lines = std::mem::take(&mut *LINES.0.lock().unwrap());
    assert_eq!(
        lines,
        [
            "message 0",
            "message 1",
            "message 2",
            "driver: further messages are counted, not logged",
            "driver: 9997 more messages were not logged",
            "silent: 1 more messages were not logged",
        ]
    );
}
