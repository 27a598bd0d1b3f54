//! The generation of a virtual machine (Virtual Machine Generation ID, 2012): a number in the
//! guest's memory that changes when the guest resumes from a saved state.

use std::fmt;
use std::sync::Arc;

use nerite_arch::pc::{GENERATION_IRQ, acpi};
use nerite_memory::GuestRam;

use crate::Error;
use crate::platform::Lines;

/// The number in the guest's memory, and the interrupt that tells of its change.
pub(crate) struct Generation {
    ram: Arc<GuestRam>,
    lines: Lines,
}

impl Generation {
    pub(crate) fn new(ram: Arc<GuestRam>, lines: Lines) -> Self {
        Self { ram, lines }
    }

    /// Puts another number there and notifies the guest, while no vCPU runs.
    pub(crate) fn renew(&self, id: [u8; 16]) -> Result<(), Error> {
        self.ram
            .write(acpi::GENERATION_ID, &id)
            .map_err(Error::writing("the generation of the machine"))?;
        (self.lines)(GENERATION_IRQ.into(), true);
        (self.lines)(GENERATION_IRQ.into(), false);
        Ok(())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nerite_memory::{Backing, Region};
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_new_number_comes_with_an_edge() {
        let region = Region { start: 0, size: 2 << 20 };
        let ram = Arc::new(GuestRam::new(&[region], &Backing::default()).unwrap());
        let edges = Arc::new(Mutex::new(Vec::new()));
        let seen = edges.clone();
        let lines: Lines = Arc::new(move |line, level| seen.lock().unwrap().push((line, level)));
        let generation = Generation::new(ram.clone(), lines);
        generation.renew([7; 16]).unwrap();
        let mut id = [0; 16];
        ram.read(acpi::GENERATION_ID, &mut id).unwrap();
        assert_eq!(id, [7; 16]);
        assert_eq!(*edges.lock().unwrap(), [(14, true), (14, false)]);
    }
}
