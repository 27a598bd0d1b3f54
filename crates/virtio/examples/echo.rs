//! A device that says how many bytes it was given, and a driver that asks it. Needs the feature
//! `fake`.

#![allow(clippy::print_stdout)]

use std::sync::{Arc, Mutex, PoisonError};

use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{
    Activation, Chain, DeviceState, Kind, NoDoorbells, Queue, RestoreError, StartError,
    VirtioDevice, VirtioPci, Wiring,
};

#[derive(Default)]
struct Counter(Mutex<Option<Queue>>);

impl Counter {
    fn serve(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_mut().ok_or("the driver is not ready")?;
        let mut chain = Chain::new();
        while queue.pop(&mut chain)? {
            let answer = chain.writable().first().ok_or("no room for an answer")?;
            queue.ram().write_obj(answer.address, &chain.readable_bytes())?;
            queue.push(chain.head(), 8)?;
        }
        Ok(())
    }
}

impl VirtioDevice for Counter {
    type State = ();

    fn kind(&self) -> Kind {
        Kind { id: 0x3f, class: 0xff_00_00 }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16]
    }

    fn read_config(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(activation.queue(0)?);
        Ok(())
    }

    fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    // Queues are only served when `main` says so.
    fn pause(&self) {}

    fn resume(&self) {}

    fn save(&self) -> std::io::Result<DeviceState<()>> {
        let queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(DeviceState {
            queues: queue.iter().map(|queue| Some(queue.state(0))).collect(),
            device: (),
        })
    }

    fn restore(&self, (): &()) -> Result<(), RestoreError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Counter::default()), wiring)?);
    let driver = Driver::new(function.clone());
    driver.negotiate(0);
    let rings = Rings::at(RAM, 16);
    driver.set_queue(0, &rings);
    driver.ready();
    let mut queue = FakeQueue::new(ram.clone(), rings);
    queue.add(&[(RAM + 0x8000, 100, 0), (RAM + 0x9000, 23, 0), (RAM + 0xa000, 8, WRITE)]);
    driver.kick(0);
    function.device().serve()?;
    println!("used: {:?}, answer: {}", queue.take_used(), ram.read_obj::<u64>(RAM + 0xa000)?);
    Ok(())
}
