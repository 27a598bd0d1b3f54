//! Figures that exercises measure.

use std::fmt;
use std::time::Instant;

/// A number with a name; the bench understands the line it makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(super) name: &'static str,
    value: f64,
    unit: &'static str,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} {}", self.name, self.value, self.unit)
    }
}

/// So many bytes since then.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn rate(name: &'static str, bytes: usize, since: Instant) -> Figure {
    let value = bytes as f64 / f64::from(1 << 20) / since.elapsed().as_secs_f64();
    Figure { name, value, unit: "MiB/s" }
}

/// The time that each of `count` took.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn each(name: &'static str, count: usize, since: Instant) -> Figure {
    Figure { name, value: since.elapsed().as_secs_f64() * 1e9 / count.max(1) as f64, unit: "ns" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::worker::value;

    #[test]
    fn the_bench_understands_figures() {
        let since = Instant::now();
        for figure in [rate("stream", 1 << 20, since), each("answer", 3, since)] {
            let (name, _, unit) = value(&figure.to_string()).unwrap();
            assert_eq!((name.as_str(), unit.as_str()), (figure.name, figure.unit));
        }
    }
}
