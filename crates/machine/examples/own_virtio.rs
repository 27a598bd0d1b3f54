//! An own virtio device: it answers each request with a greeting.
//! `cargo run -p nerite-machine --example own_virtio`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nerite_machine::config::Accelerator;
use nerite_machine::nerite_virtio::{
    Activation, Chain, DeviceState, Kind, Notifier, Queue, QueueError, RestoreError, StartError,
    VirtioDevice, Worker, lock,
};
use nerite_machine::{Config, Embedding, Machine};
use nerite_testkit::guest::Guest;

const GREETING: &[u8] = b"hello from the device\n";

/// The queue, once the driver is ready, and whether the device may touch it.
#[derive(Default)]
struct Live {
    queue: Option<(Queue, Arc<Notifier>)>,
    is_paused: bool,
}

impl Live {
    /// Answers one request. Returns `true` if there may be more.
    fn serve(&mut self) -> Result<bool, QueueError> {
        let Self { queue: Some((queue, notifier)), is_paused: false } = self else {
            return Ok(false);
        };
        let mut chain = Chain::new();
        if !queue.pop(&mut chain)? {
            return queue.enable_kicks();
        }
        let written = chain.copy_in(queue.ram(), 0, GREETING);
        queue.push(chain.head(), u32::try_from(written).unwrap_or(u32::MAX))?;
        if queue.wants_interrupt()? {
            notifier.queue(0);
        }
        Ok(true)
    }
}

struct Greeter {
    live: Arc<Mutex<Live>>,
    worker: Worker,
}

impl VirtioDevice for Greeter {
    type State = ();

    fn kind(&self) -> Kind {
        Kind { id: 0x3f, class: 0xff_00_00 }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[4]
    }

    fn read_config(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let queue = activation.queue(0)?;
        lock(&self.live).queue = Some((queue, activation.notifier));
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        lock(&self.live).queue = None;
    }

    fn pause(&self) {
        lock(&self.live).is_paused = true;
    }

    fn resume(&self) {
        lock(&self.live).is_paused = false;
        self.worker.wake();
    }

    fn save(&self) -> io::Result<DeviceState<()>> {
        let live = lock(&self.live);
        let queues = live.queue.iter().map(|(queue, _)| Some(queue.state(0))).collect();
        Ok(DeviceState { queues, device: () })
    }

    fn restore(&self, (): &()) -> Result<(), RestoreError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let greeter = Greeter { live: Arc::default(), worker: Worker::new("greeter")? };
    let embedding = Embedding::new().image(driver()).virtio(greeter, |function| {
        let (device, live) = (function.device(), function.device().live.clone());
        let (notifier, log) = (function.notifier().clone(), function.log().clone());
        device.worker.run(function.notifier(), function.kicks(), Box::new(|| Ok(())), move || {
            lock(&live).serve().unwrap_or_else(|error| {
                // The driver breaks the rules of the queue: it has to reset the device.
                log.warn(format_args!("the guest's driver: {error}"));
                notifier.fail();
                false
            })
        })
    });
    let (mut output, guests_output) = io::pipe()?;
    let mut config = Config { accelerator: Accelerator::Software, ..Config::default() };
    // The driver waits for its answer.
    config.observe.time_limit = Some(Duration::from_secs(60));
    let machine = Machine::embed(&config, embedding.output(guests_output))?;
    println!("{}", machine.start()?.wait(None)?);
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    println!("{}", String::from_utf8_lossy(&text));
    assert_eq!(text, GREETING);
    Ok(())
}

/// A guest whose driver makes one request and prints the answer (virtio 1.2, 3.1 and 4.1).
fn driver() -> Vec<u8> {
    let (registers, rings, buffer) = (0xc000_0000, 0x20_0000, 0x20_3000);
    let (status, available, used) = (registers + 0x14, rings + 0x1000, rings + 0x2000);
    Guest::new()
        // Slot 1 answers memory accesses and is a bus master.
        .out32(0xcf8, 0x8000_0804)
        .out32(0xcfc, 6)
        .store8(status, 1)
        .store8(status, 3)
        .store32(registers + 8, 1)
        .store32(registers + 12, 1)
        .store8(status, 11)
        .store16(registers + 0x16, 0)
        .store32(registers + 0x20, rings)
        .store32(registers + 0x28, available)
        .store32(registers + 0x30, used)
        .store16(registers + 0x1c, 1)
        .store8(status, 15)
        // One buffer of 64 bytes for the device to write.
        .store32(rings, buffer)
        .store32(rings + 8, 64)
        .store16(rings + 12, 2)
        .store16(available + 2, 1)
        .store16(registers + 0x3000, 0)
        .wait16(used + 2, 1)
        .print_memory(buffer, 22)
        .image()
}
