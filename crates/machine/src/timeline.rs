//! Duration of each step of a start.

use std::fmt;
use std::time::{Duration, Instant};

/// The steps of a start in order, each with the time from the beginning to its end.
///
/// The beginning is where the machine's files are opened; what the program did before is not part
/// of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    beginning: Instant,
    steps: Vec<Step>,
}

/// A step of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Name of the step.
    pub name: &'static str,
    /// When it was done, from the beginning on.
    pub end: Duration,
}

impl Timeline {
    /// Number of steps, so that noting them allocates once.
    const STEPS: usize = 12;

    pub(crate) fn begin() -> Self {
        Self { beginning: Instant::now(), steps: Vec::with_capacity(Self::STEPS) }
    }

    /// Moment at which the machine's files began to be opened.
    pub(crate) const fn beginning(&self) -> Instant {
        self.beginning
    }

    /// Notes that a step is done.
    pub(crate) fn done(&mut self, name: &'static str) {
        self.steps.push(Step { name, end: self.beginning.elapsed() });
    }

    /// The steps so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The steps with the time that each took.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        let before = std::iter::once(Duration::ZERO).chain(self.steps.iter().map(|step| step.end));
        self.steps
            .iter()
            .zip(before)
            .map(|(step, before)| (step.name, step.end.saturating_sub(before)))
    }
}

impl fmt::Display for Timeline {
    /// One line: the whole time, and the steps' shares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.steps.last().map_or(Duration::ZERO, |step| step.end);
        write!(f, "start took {} us", whole.as_micros())?;
        for (position, (name, time)) in self.durations().enumerate() {
            let separator = if position == 0 { ':' } else { ',' };
            write!(f, "{separator} {name} {}", time.as_micros())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let mut timeline = Timeline::begin();
        timeline.done("one");
        timeline.done("two");
        let sum: Duration = timeline.durations().map(|(_, time)| time).sum();
        assert_eq!(sum, timeline.steps()[1].end);
        let text = timeline.to_string();
        assert!(
            text.starts_with("start took ") && text.contains(": one ") && text.contains(", two "),
            "{text}"
        );
    }
}
