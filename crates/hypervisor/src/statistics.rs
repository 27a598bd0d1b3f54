//! Measurements of vCPUs, as data.

use std::fmt;
use std::time::Duration;

use crate::ExitKind;

/// Number of buckets of a histogram: one for each power of two of nanoseconds that 64 bits hold.
const BUCKETS: usize = 64;

/// Histogram of durations, by powers of two of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// Adds one that took this long.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum = self.sum.saturating_add(nanos);
        let bucket = usize::try_from(nanos.checked_ilog2().unwrap_or(0)).unwrap_or(0);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Sum of the durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The mean; zero if there were none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// A time that this share of them, in thousandths, did not exceed, to a power of two: the end
    /// of its bucket.
    pub fn quantile(&self, thousandths: u64) -> Duration {
        let count = u128::from(self.count());
        let wanted = count.saturating_mul(thousandths.into()).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for (from, bucket) in self.buckets() {
            seen = seen.saturating_add(bucket.into());
            if seen >= wanted {
                return Duration::from_nanos(from.saturating_mul(2));
            }
        }
        Duration::ZERO
    }

    /// The buckets that are not empty: from how many nanoseconds on (to less than twice as many;
    /// the first one from 0), and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let starts = std::iter::successors(Some(1_u64), |start| start.checked_mul(2));
        starts.zip(self.buckets).filter(|(_, count)| *count > 0)
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        for (to, from) in self.buckets.iter_mut().zip(other.buckets) {
            *to = to.saturating_add(from);
        }
    }
}

/// Counters that the kernel part of a hypervisor keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Exits of the processor from the guest; most of them the kernel answers itself.
    pub exits: u64,
    /// Interrupts that the guest took.
    pub interrupts: u64,
    /// Non-maskable interrupts that the guest took.
    pub nmis: u64,
    /// Number of times the guest halted.
    pub halts: u64,
}

impl KernelCounts {
    fn add(self, other: Self) -> Self {
        Self {
            exits: self.exits.saturating_add(other.exits),
            interrupts: self.interrupts.saturating_add(other.interrupts),
            nmis: self.nmis.saturating_add(other.nmis),
            halts: self.halts.saturating_add(other.halts),
        }
    }
}

/// Measurements of one vCPU, or of several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Exits by kind.
    pub exits: ExitCounts,
    /// Time the VMM took to answer, by kind, in the order of [`ExitKind::ALL`].
    pub service: [Histogram; ExitKind::ALL.len()],
    /// Time of each stay in the guest, with the way there and back.
    pub in_guest: Histogram,
    /// Entries that only completed an access.
    pub completions: u64,
    /// Signals that ended a stay in the guest, kicks among them.
    pub signals: u64,
    /// Counters of the hypervisor's kernel part, if it has any.
    pub in_kernel: Option<KernelCounts>,
    /// Writes to ports: port and how many, in order of the port.
    pub port_writes: Vec<(u16, u64)>,
    /// Reads of ports: port and how many, in order of the port.
    pub port_reads: Vec<(u16, u64)>,
}

impl Statistics {
    /// Time the VMM took to answer exits of this kind.
    pub fn service_of(&self, kind: ExitKind) -> Histogram {
        self.service.get(usize::from(kind as u8)).copied().unwrap_or_default()
    }

    /// Time the VMM took for all exits.
    pub fn time_in_vmm(&self) -> Duration {
        self.service
            .iter()
            .fold(Duration::ZERO, |sum, histogram| sum.saturating_add(histogram.sum()))
    }

    /// Adds what was measured of another vCPU.
    pub fn merge(&mut self, other: &Self) {
        self.exits.add(&other.exits);
        for (to, from) in self.service.iter_mut().zip(&other.service) {
            to.merge(from);
        }
        self.in_guest.merge(&other.in_guest);
        self.completions = self.completions.saturating_add(other.completions);
        self.signals = self.signals.saturating_add(other.signals);
        self.in_kernel = match (self.in_kernel, other.in_kernel) {
            (Some(one), Some(two)) => Some(one.add(two)),
            (one, two) => one.or(two),
        };
        self.port_writes = merged(&self.port_writes, &other.port_writes);
        self.port_reads = merged(&self.port_reads, &other.port_reads);
    }
}

fn merged(one: &[(u16, u64)], two: &[(u16, u64)]) -> Vec<(u16, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for (port, count) in one.iter().chain(two) {
        let sum: &mut u64 = sums.entry(*port).or_default();
        *sum = sum.saturating_add(*count);
    }
    sums.into_iter().collect()
}

/// Number of exits of a vCPU, by [`ExitKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitCounts {
    by_kind: [u64; ExitKind::ALL.len()],
}

impl ExitCounts {
    /// Counts one exit.
    pub fn count(&mut self, kind: ExitKind) {
        if let Some(count) = self.by_kind.get_mut(usize::from(kind as u8)) {
            *count = count.wrapping_add(1);
        }
    }

    /// Number of exits of `kind`.
    pub fn of(&self, kind: ExitKind) -> u64 {
        self.by_kind.get(usize::from(kind as u8)).copied().unwrap_or_default()
    }

    /// Number of exits of all kinds.
    pub fn total(&self) -> u64 {
        self.by_kind.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds the counts of another vCPU.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.by_kind.iter_mut().zip(other.by_kind) {
            *to = to.wrapping_add(from);
        }
    }
}

impl fmt::Display for ExitCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exits", self.total())?;
        for kind in ExitKind::ALL {
            if self.of(kind) > 0 {
                write!(f, ", {} {}", self.of(kind), kind.name())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_to_powers_of_two() {
        let mut histogram = Histogram::default();
        for nanos in [0, 1, 2, 3, 1023, 1024, u64::MAX] {
            histogram.add(Duration::from_nanos(nanos));
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(1, 2), (2, 2), (512, 1), (1024, 1), (1 << 63, 1)]);
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.quantile(500), Duration::from_nanos(4));
        assert_eq!(histogram.quantile(1000), Duration::from_nanos(u64::MAX));
        assert_eq!(Histogram::default().quantile(990), Duration::ZERO);
        let mut twice = histogram;
        twice.merge(&histogram);
        assert_eq!(twice.count(), 14);
    }

    #[test]
    fn what_the_kernel_counts_is_added_up_where_it_is_known() {
        let counts = KernelCounts { exits: 10, interrupts: 3, nmis: 1, halts: 2 };
        let mut one = Statistics { in_kernel: Some(counts), signals: 4, ..Statistics::default() };
        one.merge(&Statistics { signals: 1, ..Statistics::default() });
        assert_eq!((one.in_kernel, one.signals), (Some(counts), 5));
        one.merge(&one.clone());
        let twice = KernelCounts { exits: 20, interrupts: 6, nmis: 2, halts: 4 };
        assert_eq!((one.in_kernel, one.signals), (Some(twice), 10));
    }
}
