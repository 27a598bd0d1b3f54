//! Measurements of a run.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nerite_service::{DeviceCounters, DeviceTables};
use nerite_vcpu::{ExitKind, Histogram, Statistics};

use crate::{InstructionCounts, ProcessorCounts, Timeline};

/// Maximum number of listed ports that belong to no hypercall.
const MAX_PORTS: usize = 16;

/// Measurements of a run. Without [`crate::config::Observe::statistics`], exits are counted and not
/// timed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Each vCPU's, in order of their index.
    pub vcpus: Vec<Statistics>,
    /// From the start of the vCPUs to their end.
    pub wall_time: Duration,
    /// Bytes of guest RAM that the host has had to provide, if it says.
    pub memory_touched: Option<u64>,
    /// Bytes of guest RAM.
    pub memory_size: u64,
    /// Number of restarts after reboots of the guest.
    pub restarts: u64,
    /// Hardware counts of the guest; `None` where the processor has none.
    pub processor: Option<ProcessorCounts>,
    /// Instructions of each function, if they are counted.
    pub instructions: Option<InstructionCounts>,
    /// Port writes that the guest did not wait for: KVM collected them.
    pub coalesced_writes: u64,
    /// Counters of each device that has some.
    pub devices: Vec<DeviceCounters>,
    /// Steps of the start and their durations.
    pub timeline: Option<Timeline>,
    /// The core file, if the guest crashed and it is written.
    pub core_file: Option<PathBuf>,
}

impl Report {
    /// All vCPUs together.
    pub fn total(&self) -> Statistics {
        self.vcpus.iter().fold(Statistics::default(), |mut sum, vcpu| {
            sum.merge(vcpu);
            sum
        })
    }
}

/// The name of the hypercall that a write or read of `port` makes, if it makes one.
pub fn hypercall_name(port: u16) -> Option<&'static str> {
    use nerite_hypercall::{v1, v2};
    v2::Call::from_port(port)
        .map(v2::Call::name)
        .or_else(|| v1::Call::from_port(port).map(v1::Call::name))
}

/// Accesses of ports that make hypercalls, by name, and of all others, by port; the most frequent
/// first.
pub type ByName = (Vec<(&'static str, u64)>, Vec<(u16, u64)>);

/// Splits accesses of ports into hypercalls and others.
pub fn hypercalls(statistics: &Statistics) -> ByName {
    let mut calls: Vec<(&'static str, u64)> = Vec::new();
    let mut ports: Vec<(u16, u64)> = Vec::new();
    for &(port, count) in statistics.port_writes.iter().chain(&statistics.port_reads) {
        if let Some(name) = hypercall_name(port) {
            add(&mut calls, name, count);
        } else {
            add(&mut ports, port, count);
        }
    }
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ports.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    (calls, ports)
}

fn add<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, count: u64) {
    match counts.iter_mut().find(|(other, _)| *other == key) {
        Some((_, sum)) => *sum = sum.saturating_add(count),
        None => counts.push((key, count)),
    }
}

/// A table for people, as `--stats` prints it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        writeln!(f, "run time        {:>12}", Time(self.wall_time))?;
        if let Some(touched) = self.memory_touched {
            let (touched, size) = (touched >> 10, self.memory_size >> 10);
            writeln!(f, "memory touched  {touched:>8} KiB of {size} KiB")?;
        }
        if self.restarts > 0 {
            writeln!(f, "restarts        {:>8}", self.restarts)?;
        }
        if let Some(ProcessorCounts { instructions, cycles }) = self.processor {
            writeln!(f, "instructions    {instructions:>8} in {cycles} cycles")?;
        }
        writeln!(f, "\nvCPU      exits        in guest          in vmm")?;
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            let (guest, vmm) = (Time(vcpu.in_guest.sum()), Time(vcpu.time_in_vmm()));
            writeln!(f, "{index:>4} {:>10}  {guest:>14}  {vmm:>14}", vcpu.exits.total())?;
        }
        writeln!(
            f,
            "\nexits                   count  time in vmm       mean       50 %       99 %      100 %"
        )?;
        for kind in ExitKind::ALL {
            if total.exits.of(kind) > 0 {
                row(f, kind.name(), total.exits.of(kind), &total.service_of(kind))?;
            }
        }
        for (name, count) in [
            ("completions only", total.completions),
            ("signals", total.signals),
            ("posted writes", self.coalesced_writes),
        ] {
            if count > 0 {
                writeln!(f, "{name:<18} {count:>10}")?;
            }
        }
        if let Some(counts) = total.in_kernel {
            writeln!(f, "\nin the kernel           count")?;
            for (name, count) in [
                ("processor exits", counts.exits),
                ("interrupts", counts.interrupts),
                ("NMIs", counts.nmis),
                ("halts", counts.halts),
            ] {
                writeln!(f, "{name:<18} {count:>10}")?;
            }
        }
        if let Some(timeline) = &self.timeline {
            writeln!(f, "\nstep of the start        time")?;
            for (name, time) in timeline.durations() {
                writeln!(f, "{name:<24} {:>10}", Time(time))?;
            }
        }
        let (calls, ports) = hypercalls(&total);
        if !calls.is_empty() {
            writeln!(f, "\nhypercalls              count")?;
        }
        for (name, count) in calls {
            writeln!(f, "{name:<18} {count:>10}")?;
        }
        if !ports.is_empty() {
            writeln!(f, "\nother ports             count")?;
        }
        for (port, count) in ports.iter().take(MAX_PORTS) {
            writeln!(f, "{:<18} {count:>10}", format!("{port:#06x}"))?;
        }
        if let Some(more) = ports.len().checked_sub(MAX_PORTS).filter(|more| *more > 0) {
            writeln!(f, "and {more} more")?;
        }
        write!(f, "{}", DeviceTables(&self.devices))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, count: u64, times: &Histogram) -> fmt::Result {
    write!(f, "{name:<18} {count:>10}")?;
    if times.count() > 0 {
        write!(f, "  {:>11}  {:>9}", Time(times.sum()), Time(times.mean()))?;
        for quantile in [500, 990, 1000] {
            write!(f, "  {:>9}", format!("<{}", Time(times.quantile(quantile))))?;
        }
    }
    writeln!(f)
}

/// A time with three digits or so.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1?}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use nerite_vcpu::KernelCounts;

    use super::*;

    fn report() -> Report {
        let mut vcpu = Statistics::default();
        for _ in 0..3 {
            vcpu.exits.count(ExitKind::PortOut);
            vcpu.service[ExitKind::PortOut as usize].add(Duration::from_micros(3));
        }
        vcpu.in_guest.add(Duration::from_millis(2));
        vcpu.signals = 2;
        vcpu.in_kernel = Some(KernelCounts { exits: 100, interrupts: 30, nmis: 0, halts: 5 });
        vcpu.port_writes = vec![(0xcf8, 1), (0x800, 1), (0x1030, 1)];
        vcpu.port_reads = vec![(0xcf8, 2)];
        Report {
            vcpus: vec![vcpu.clone(), vcpu],
            wall_time: Duration::from_millis(1500),
            memory_touched: Some(1 << 20),
            memory_size: 64 << 20,
            restarts: 2,
            processor: Some(ProcessorCounts { instructions: 4711, cycles: 9422 }),
            instructions: None,
            coalesced_writes: 17,
            devices: vec![DeviceCounters {
                device: "disk",
                name: "disk.img".into(),
                counters: vec![("reads", 3), ("errors", 77)],
                ..DeviceCounters::default()
            }],
            timeline: None,
            core_file: None,
        }
    }

    #[test]
    fn hypercalls_are_told_from_other_ports() {
        let (calls, ports) = hypercalls(&report().total());
        assert_eq!(calls, [("SerialWriteByte", 2), ("SerialWriteBuffer", 2)]);
        assert_eq!(ports, [(0xcf8, 6)]);
    }

    #[test]
    fn the_table_has_all_parts() {
        let text = report().to_string();
        for part in [
            "run time                1.5s\n",
            "memory touched      1024 KiB of 65536 KiB\n",
            "restarts               2\n",
            "instructions        4711 in 9422 cycles\n",
            "   1          3           2.0ms           9.0µs\n",
            "port out                    6       18.0µs      3.0µs",
            "SerialWriteBuffer           2\n",
            "signals                     4\n",
            "posted writes              17\n",
            "processor exits           200\n",
            "interrupts                 60\n",
            "0x0cf8                      6\n",
            "\n\ndisk disk.img\n",
            "             3             77\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        let quiet = Report::default().to_string();
        assert!(
            !quiet.contains("hypercalls")
                && !quiet.contains("instructions")
                && !quiet.contains("other ports")
                && !quiet.contains("restarts")
                && !quiet.contains("disk"),
            "{quiet}"
        );
    }
}
