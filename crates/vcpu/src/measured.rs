//! Measuring the steps of a vCPU.

use std::time::Instant;

use nerite_hypervisor::{Entry, Error, Exit, ExitKind, Layer, Statistics, Vcpu};

/// Number of I/O ports.
const PORTS: usize = 0x1_0000;

/// A vCPU that measures its steps. Each step costs two looks at the clock more.
#[derive(Debug)]
pub struct Measured {
    inner: Box<dyn Vcpu>,
    statistics: Statistics,
    /// Counts by port. Pages of it that no port touches cost nothing.
    writes: Vec<u64>,
    reads: Vec<u64>,
    /// The last exit, and when it came.
    left: Option<(ExitKind, Instant)>,
}

impl Measured {
    /// Measures `inner` from now on.
    pub fn new(inner: Box<dyn Vcpu>) -> Self {
        Self {
            inner,
            statistics: Statistics::default(),
            writes: vec![0; PORTS],
            reads: vec![0; PORTS],
            left: None,
        }
    }

    /// The way into the guest begins.
    fn enter(&mut self) -> Instant {
        let now = Instant::now();
        if let Some((kind, since)) = self.left.take()
            && let Some(histogram) = self.statistics.service.get_mut(usize::from(kind as u8))
        {
            histogram.add(now.saturating_duration_since(since));
        }
        now
    }

    fn left(&mut self, entered: Instant, exit: &Exit) {
        let now = Instant::now();
        self.statistics.in_guest.add(now.saturating_duration_since(entered));
        self.statistics.exits.count(exit.kind());
        self.left = Some((exit.kind(), now));
        let count = match exit {
            Exit::PortOut { port, .. } => self.writes.get_mut(usize::from(*port)),
            Exit::PortIn { port, .. } => self.reads.get_mut(usize::from(*port)),
            _ => None,
        };
        if let Some(count) = count {
            *count = count.saturating_add(1);
        }
    }
}

fn counted(by_port: &[u64]) -> Vec<(u16, u64)> {
    let all = (0..=u16::MAX).zip(by_port.iter().copied());
    all.filter(|(_, count)| *count > 0).collect()
}

impl Layer for Measured {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        let entered = self.enter();
        let exit = self.inner.run(entry)?;
        self.left(entered, &exit);
        Ok(exit)
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let entered = self.enter();
        self.statistics.completions = self.statistics.completions.saturating_add(1);
        let exit = self.inner.complete(entry)?;
        if let Some(exit) = &exit {
            self.left(entered, exit);
        }
        Ok(exit)
    }

    fn statistics_layer(&self) -> Option<Statistics> {
        let engine = self.inner.statistics().unwrap_or_default();
        Some(Statistics {
            port_writes: counted(&self.writes),
            port_reads: counted(&self.reads),
            signals: engine.signals,
            in_kernel: engine.in_kernel,
            ..self.statistics.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nerite_hypervisor::scripted::Scripted;

    use super::*;

    #[test]
    fn steps_are_measured_by_kind_and_port() {
        let out = Exit::PortOut { port: 0x1020, width: 4, value: 1 };
        let read = Exit::PortIn { port: 0xcfc, width: 4 };
        let mut vcpu = Measured::new(Box::new(Scripted::new([out, out, read])));
        while vcpu.run(Entry::Resume).unwrap() != Exit::Shutdown {}
        assert_eq!(vcpu.complete(Entry::Resume).unwrap(), None);
        let mut statistics = vcpu.statistics().unwrap();
        assert_eq!(statistics.exits.of(ExitKind::PortOut), 2);
        assert_eq!(statistics.service_of(ExitKind::PortOut).count(), 2);
        assert_eq!(statistics.in_guest.count(), 4);
        assert_eq!(statistics.completions, 1);
        assert_eq!(statistics.port_writes, [(0x1020, 2)]);
        assert_eq!(statistics.port_reads, [(0xcfc, 1)]);
        statistics.merge(&statistics.clone());
        assert_eq!(statistics.port_writes, [(0x1020, 4)]);
        assert_eq!(statistics.exits.total(), 8);
        assert!(statistics.time_in_vmm() > Duration::ZERO);
    }
}
