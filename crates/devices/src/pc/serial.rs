//! A 16550A serial port (National Semiconductor PC16550D), on vm-superio's model.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_bus::{Device, Width};
use nerite_event::Event;
use nerite_saved::{RestoreError, refuse};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{Error, SerialEvents};

use super::{Request, Requests};
use crate::Console;

/// Interrupt enable: the interrupts that there are (table II).
const INTERRUPTS: u8 = 0x0f;
/// Line status: there is input.
const DATA_READY: u8 = 1;

/// Saved state of a [`Serial`]. Line and modem status follow from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialState {
    /// Baud rate divisor.
    pub divisor: u16,
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register, without the bits for the FIFO.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Input that waits in the FIFO, at most 64 bytes.
    #[serde(with = "nerite_saved::bytes")]
    pub input: Vec<u8>,
}

/// The model with its three ends: interrupt, events, output.
type Model = vm_superio::Serial<Interrupt, Room, Output>;

/// Counts one up on an eventfd.
fn signal(event: &OwnedFd) -> io::Result<()> {
    match rustix::io::write(event, &1_u64.to_ne_bytes()) {
        // A full counter is readable already.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The interrupt line: each signal of the event is a rising edge.
#[derive(Debug)]
struct Interrupt(Event);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.signal();
        Ok(())
    }
}

/// Says that there is room for input again.
#[derive(Debug)]
struct Room(Arc<OwnedFd>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        if let Err(error) = signal(&self.0) {
            log::error!("signalling room for serial input: {error}");
        }
    }
}

/// Destination of output bytes.
#[derive(Debug)]
struct Output(Arc<Console>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.put(*byte)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A serial port: eight registers, an interrupt, output to a [`Console`], input by
/// [`Serial::enqueue`].
pub struct Serial {
    model: Mutex<Model>,
    console: Arc<Console>,
    interrupt: Event,
    room: Arc<OwnedFd>,
    requests: Arc<Requests>,
}

impl Serial {
    /// Number of registers.
    pub const PORTS: u16 = 8;

    /// A port that writes to `console` and signals `interrupt`. An output that fails becomes a
    /// request.
    ///
    /// # Errors
    /// If the host has no file descriptor left.
    pub fn new(
        console: Arc<Console>,
        interrupt: Event,
        requests: Arc<Requests>,
    ) -> io::Result<Self> {
        let room = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let ends = (Interrupt(interrupt.clone()), Room(room.clone()), Output(console.clone()));
        let model = Model::with_events(ends.0, ends.1, ends.2);
        Ok(Self { model: Mutex::new(model), console, interrupt, room, requests })
    }

    /// Registers and waiting input.
    pub fn save(&self) -> SerialState {
        let state = self.lock().state();
        SerialState {
            divisor: u16::from_le_bytes([state.baud_divisor_low, state.baud_divisor_high]),
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            modem_control: state.modem_control,
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }

    /// Takes saved registers and waiting input. An interrupt that is pending is signalled again.
    ///
    /// # Errors
    /// Fails if the port cannot have this state.
    pub fn restore(&self, saved: &SerialState) -> Result<(), RestoreError> {
        const PART: &str = "serial port";
        refuse(PART, "interrupt enable", saved.interrupt_enable & !INTERRUPTS != 0)?;
        let is_identification = matches!(saved.interrupt_identification, 1 | 2 | 4 | 6);
        refuse(PART, "interrupt identification", !is_identification)?;
        let [baud_divisor_low, baud_divisor_high] = saved.divisor.to_le_bytes();
        let initial = vm_superio::SerialState::default();
        let data_ready = if saved.input.is_empty() { 0 } else { DATA_READY };
        let state = vm_superio::SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: saved.interrupt_enable,
            interrupt_identification: saved.interrupt_identification,
            line_control: saved.line_control,
            line_status: initial.line_status | data_ready,
            modem_control: saved.modem_control,
            modem_status: initial.modem_status,
            scratch: saved.scratch,
            in_buffer: saved.input.clone(),
        };
        let ends = (
            Interrupt(self.interrupt.clone()),
            Room(self.room.clone()),
            Output(self.console.clone()),
        );
        let model = Model::from_state(&state, ends.0, ends.1, ends.2);
        // There is no other reason than more input than there is room for.
        *self.lock() = model.map_err(|_| RestoreError::Field { part: PART, field: "input" })?;
        signal(&self.room).map_err(RestoreError::failed(PART))
    }

    /// Hands input to the guest and says how much of it was taken.
    pub fn enqueue(&self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        match self.lock().enqueue_raw_bytes(bytes) {
            Ok(taken) => taken,
            Err(Error::FullFifo) => 0,
            Err(error) => {
                log::error!("serial input: {error:?}");
                0
            }
        }
    }

    /// Number of input bytes that the guest can take now.
    pub fn capacity(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// Readable when the guest has read all of its input; [`Self::acknowledge`] takes that back.
    pub fn room(&self) -> BorrowedFd<'_> {
        self.room.as_fd()
    }

    /// Makes [`Self::room`] unreadable until there is room again.
    pub fn acknowledge(&self) {
        if let Err(error) = rustix::io::read(&self.room, &mut [0_u8; 8])
            && error != Errno::AGAIN
        {
            log::error!("waiting for room for serial input: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        // Registers and a queue of bytes: a panic elsewhere cannot have left them in a state that
        // is worse than a lost byte.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Serial {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match (u8::try_from(offset), width.bytes()) {
            (Ok(offset @ 0..8), 1) => self.lock().read(offset).into(),
            _ => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let (Ok(offset @ 0..8), 1, [value, ..]) =
            (u8::try_from(offset), width.bytes(), value.to_le_bytes())
        else {
            return;
        };
        let written = self.lock().write(offset, value);
        match written {
            Ok(()) => {}
            Err(Error::IOError(error)) => self.requests.raise(Request::Failed(error)),
            Err(error) => log::error!("serial output: {error:?}"),
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::Sink;

    const BYTE: Width = Width::new(1).unwrap();
    const DATA: u64 = 0;
    const IER: u64 = 1;
    const IIR: u64 = 2;
    const LSR: u64 = 5;

    struct Rig {
        serial: Serial,
        output: UnixStream,
        interrupt: Event,
        requests: Arc<Requests>,
    }

    fn rig() -> Rig {
        let (ours, output) = UnixStream::pair().unwrap();
        let console = Arc::new(Console::new(Sink::Fd(ours.into())));
        let interrupt = Event::new().unwrap();
        let requests = Arc::new(Requests::default());
        let serial = Serial::new(console, interrupt.clone(), requests.clone()).unwrap();
        Rig { serial, output, interrupt, requests }
    }

    fn interrupts(event: &impl AsFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn output_goes_to_the_console() {
        let mut rig = rig();
        for byte in *b"hi\n" {
            rig.serial.write(DATA, BYTE, byte.into());
        }
        let mut text = [0; 3];
        rig.output.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hi\n");
        assert_eq!(rig.serial.read(LSR, BYTE) & 0x60, 0x60, "ready for more");
        assert!(rig.requests.take().is_none());
    }

    #[test]
    fn input_interrupts_and_makes_room_again() {
        let rig = rig();
        rig.serial.write(IER, BYTE, 1);
        assert_eq!(rig.serial.enqueue(b"ab"), 2);
        assert_eq!(interrupts(&rig.interrupt), 1);
        assert_eq!(rig.serial.read(IIR, BYTE) & 0xf, 4, "data available");
        assert_eq!(rig.serial.read(LSR, BYTE) & 1, 1);
        assert_eq!(rig.serial.read(DATA, BYTE), u64::from(b'a'));
        assert_eq!(rig.serial.read(DATA, BYTE), u64::from(b'b'));
        assert_eq!(rig.serial.read(LSR, BYTE) & 1, 0);
        assert_eq!(interrupts(&rig.serial.room), 1);
    }

    #[test]
    fn a_guest_that_does_not_read_stops_the_input() {
        let rig = rig();
        let taken = rig.serial.enqueue(&[b'x'; 1000]);
        assert!(taken > 0 && taken < 1000, "{taken}");
        assert_eq!((rig.serial.capacity(), rig.serial.enqueue(b"y")), (0, 0));
    }

    #[test]
    fn a_closed_output_ends_the_machine() {
        let rig = rig();
        drop(rig.output);
        rig.serial.write(DATA, BYTE, u64::from(b'\n'));
        assert!(matches!(rig.requests.take(), Some(Request::Failed(_))));
    }

    #[test]
    fn only_bytes_reach_the_registers() {
        let rig = rig();
        let word = Width::new(2).unwrap();
        assert_eq!(rig.serial.read(DATA, word), 0xffff);
        assert_eq!(rig.serial.read(8, BYTE), 0xff);
        rig.serial.write(7, word, 0x55);
        rig.serial.write(7, BYTE, 0x155);
        assert_eq!(rig.serial.read(7, BYTE), 0x55, "the scratch register");
    }
}
