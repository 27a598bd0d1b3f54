//! Accesses of ports, by name.

use std::cmp::Reverse;

use nerite_vcpu::Statistics;

/// Accesses of ports, the most frequent first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Accesses that make hypercalls, by the call's name.
    pub calls: Vec<(&'static str, u64)>,
    /// All others, by port.
    pub ports: Vec<(u16, u64)>,
}

/// Splits accesses of ports into hypercalls, which `name` knows, and others.
pub fn port_counts(
    statistics: &Statistics,
    name: impl Fn(u16) -> Option<&'static str>,
) -> PortCounts {
    let mut counts = PortCounts::default();
    for &(port, count) in statistics.port_writes.iter().chain(&statistics.port_reads) {
        match name(port) {
            Some(name) => add(&mut counts.calls, name, count),
            None => add(&mut counts.ports, port, count),
        }
    }
    counts.calls.sort_by_key(|(_, count)| Reverse(*count));
    counts.ports.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

fn add<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, count: u64) {
    match counts.iter_mut().find(|(other, _)| *other == key) {
        Some((_, sum)) => *sum = sum.saturating_add(count),
        None => counts.push((key, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_of_a_port_add_up_by_name() {
        let statistics = Statistics {
            port_writes: vec![(1, 2), (2, 3), (0x80, 1)],
            port_reads: vec![(1, 2), (0x81, 5)],
            ..Statistics::default()
        };
        let counts = port_counts(&statistics, |port| (port < 3).then_some("call"));
        let expected = PortCounts { calls: vec![("call", 7)], ports: vec![(0x81, 5), (0x80, 1)] };
        assert_eq!(counts, expected);
    }
}
