//! Recording every exit by wrapping the step.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nerite_hypervisor::{DebugCause, Entry, Error, Exit, Layer, Vcpu};

/// Recorder of the exits of all vCPUs of a machine, as lines of JSON in the order in which they
/// came.
#[derive(Clone)]
pub struct Tracer {
    shared: Arc<Mutex<Shared>>,
    start: Instant,
}

struct Shared {
    sink: BufWriter<Box<dyn Write + Send>>,
    number: u64,
    /// The first error; nothing is written after it.
    failed: Option<io::Error>,
}

impl Tracer {
    /// Records to `sink`. Times count from now.
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        let sink = BufWriter::new(Box::new(sink) as Box<dyn Write + Send>);
        Self {
            shared: Arc::new(Mutex::new(Shared { sink, number: 0, failed: None })),
            start: Instant::now(),
        }
    }

    fn record(&self, vcpu: u32, entry: Entry, exit: &Exit) {
        let nanos = self.start.elapsed().as_nanos();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.failed.is_some() {
            return;
        }
        shared.number = shared.number.wrapping_add(1);
        let line = Line { number: shared.number, nanos, vcpu, entry, exit };
        if let Err(error) = writeln!(shared.sink, "{line}") {
            shared.failed = Some(error);
        }
    }

    /// Writes out what waits.
    ///
    /// # Errors
    /// The first error there was since the start.
    pub fn finish(&self) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.failed.take() {
            Some(error) => Err(error),
            None => shared.sink.flush(),
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

/// One line of a trace.
struct Line<'a> {
    number: u64,
    nanos: u128,
    vcpu: u32,
    entry: Entry,
    exit: &'a Exit,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"n\":{},\"ns\":{},\"vcpu\":{}", self.number, self.nanos, self.vcpu)?;
        match self.entry {
            Entry::Resume => {}
            Entry::Data(value) => write!(f, ",\"answer\":{value}")?,
            Entry::Fault => f.write_str(",\"answer\":\"fault\"")?,
        }
        write!(f, ",\"exit\":\"{}\"", self.exit.kind().name())?;
        fields(self.exit, f)?;
        f.write_char('}')
    }
}

fn fields(exit: &Exit, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match exit {
        Exit::PortIn { port, width } => write!(f, ",\"port\":{port},\"width\":{width}"),
        Exit::PortOut { port, width, value } => {
            write!(f, ",\"port\":{port},\"width\":{width},\"value\":{value}")
        }
        Exit::MmioRead { address, width } => write!(f, ",\"address\":{address},\"width\":{width}"),
        Exit::MmioWrite { address, width, value } => {
            write!(f, ",\"address\":{address},\"width\":{width},\"value\":{value}")
        }
        Exit::Hypercall { number, .. } => write!(f, ",\"number\":{number}"),
        Exit::MsrRead { index } => write!(f, ",\"index\":{index}"),
        Exit::MsrWrite { index, value } => write!(f, ",\"index\":{index},\"value\":{value}"),
        Exit::Debug { rip, cause } => match cause {
            DebugCause::Breakpoint => write!(f, ",\"rip\":{rip},\"cause\":\"breakpoint\""),
            DebugCause::Trap { points, single_step } => {
                write!(
                    f,
                    ",\"rip\":{rip},\"cause\":\"trap\",\"points\":{points},\"step\":{single_step}"
                )
            }
        },
        Exit::InstructionLimit { rip } => write!(f, ",\"rip\":{rip}"),
        Exit::EntryFailed { hardware_reason } => write!(f, ",\"reason\":{hardware_reason}"),
        Exit::InternalError(error) => write!(f, ",\"suberror\":{}", error.suberror),
        Exit::Unknown { reason } => write!(f, ",\"reason\":{reason}"),
        // These have no further data.
        _ => Ok(()),
    }
}

/// A vCPU whose exits are recorded.
#[derive(Debug)]
pub struct Traced {
    inner: Box<dyn Vcpu>,
    tracer: Tracer,
}

impl Traced {
    /// Records the exits of `inner` from now on.
    pub fn new(inner: Box<dyn Vcpu>, tracer: Tracer) -> Self {
        Self { inner, tracer }
    }
}

impl Layer for Traced {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        let exit = self.inner.run(entry)?;
        self.tracer.record(self.inner.index(), entry, &exit);
        Ok(exit)
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let exit = self.inner.complete(entry)?;
        if let Some(exit) = &exit {
            self.tracer.record(self.inner.index(), entry, exit);
        }
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use nerite_hypervisor::scripted::Scripted;

    struct ToChannel(Sender<Vec<u8>>);

    impl Write for ToChannel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_exit_is_a_line() {
        let (sender, receiver) = channel();
        let tracer = Tracer::new(ToChannel(sender));
        let read = Exit::PortIn { port: 0x60, width: 1 };
        let write = Exit::MmioWrite { address: 0xd000_0000, width: 8, value: u64::MAX };
        let mut vcpu = Traced::new(Box::new(Scripted::new([read, write])), tracer.clone());
        for entry in [Entry::Resume, Entry::Data(7), Entry::Fault] {
            vcpu.run(entry).unwrap();
        }
        tracer.finish().unwrap();
        let text = String::from_utf8(receiver.try_iter().flatten().collect()).unwrap();
        let lines: Vec<_> =
            text.lines().map(|line| line.split_once(",\"vcpu\":").unwrap().1).collect();
        assert_eq!(
            lines,
            [
                "0,\"exit\":\"port in\",\"port\":96,\"width\":1}",
                "0,\"answer\":7,\"exit\":\"mmio write\",\"address\":3489660928,\"width\":8,\"value\":18446744073709551615}",
                "0,\"answer\":\"fault\",\"exit\":\"shutdown\"}",
            ]
        );
        assert!(text.starts_with("{\"n\":1,\"ns\":"));
    }

    #[test]
    fn the_first_error_is_told_at_the_end() {
        let (sender, receiver) = channel();
        drop(receiver);
        let tracer = Tracer::new(ToChannel(sender));
        let mut vcpu = Traced::new(Box::new(Scripted::new([])), tracer.clone());
        for _ in 0..1000 {
            vcpu.run(Entry::Resume).unwrap();
        }
        assert!(tracer.finish().is_err());
    }
}
