//! A device that copies what it reads to what it writes.

use super::*;

#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) running: Mutex<Option<(Activation, Queue)>>,
    pub(crate) is_paused: AtomicBool,
    /// Works on a request that takes its time.
    pub(crate) is_busy: AtomicBool,
}

impl Echo {
    /// Work of the device's thread.
    pub(crate) fn serve(&self) -> bool {
        let mut running = self.running.lock().unwrap();
        let Some((activation, queue)) = running.as_mut() else { return false };
        if self.is_paused.load(Ordering::Acquire) {
            return false;
        }
        activation.kicks[0].take();
        let mut chain = Chain::new();
        loop {
            match queue.pop(&mut chain) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    activation.notifier.fail();
                    return false;
                }
            }
            let mut text = vec![0; chain.readable_bytes() as usize];
            let mut at = 0;
            for segment in chain.readable() {
                let end = at + segment.length as usize;
                activation.ram.read(segment.address, &mut text[at..end]).unwrap();
                at = end;
            }
            let to = chain.writable()[0];
            let length = text.len().min(to.length as usize);
            activation.ram.write(to.address, &text[..length]).unwrap();
            queue.push(chain.head(), length as u32).unwrap();
        }
        if queue.wants_interrupt().unwrap() { activation.notifier.queue(0) } else { false }
    }
}

impl VirtioDevice for Echo {
    type State = ();

    fn kind(&self) -> Kind {
        Kind { id: 1, class: 0x02_00_00 }
    }

    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX | 3
    }

    fn accepts(&self, features: u64) -> bool {
        features & 3 != 2
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 16]
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        config_bytes(&[1, 2, 3, 4, 5, 6], offset, width)
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let queue = activation.queue(0)?;
        *self.running.lock().unwrap() = Some((activation, queue));
        Ok(())
    }

    fn stop(&self) {
        *self.running.lock().unwrap() = None;
    }

    fn is_stopped(&self) -> bool {
        !self.is_busy.load(Ordering::Acquire)
    }

    fn pause(&self) {
        self.is_paused.store(true, Ordering::Release);
    }

    fn resume(&self) {
        self.is_paused.store(false, Ordering::Release);
    }

    fn save(&self) -> std::io::Result<DeviceState<()>> {
        let running = self.running.lock().unwrap();
        let queues = running.iter().map(|(_, queue)| Some(queue.state(0))).collect();
        Ok(DeviceState { queues, device: () })
    }

    fn restore(&self, (): &()) -> Result<(), RestoreError> {
        Ok(())
    }
}
