//! Guest RAM copied into the process's own memory, and put back from there.

use std::io;

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::GuestRam;
use super::saved::is_zero;
use crate::region::PAGE_LENGTH;
use crate::{AccessError, PAGE, PageMap};

/// A copy of all pages of RAM that are not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Runs of pages, by guest-physical address.
    runs: Vec<(u64, Vec<u8>)>,
}

impl Contents {
    /// Number of bytes that the copy takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.runs.iter().fold(0, |sum, (_, run)| sum.saturating_add(run.len() as u64))
    }
}

impl GuestRam {
    /// Copies all of RAM, but for pages of zeros. With the page tables of this process, pages that
    /// were never touched take no time.
    ///
    /// # Errors
    /// Fails if RAM cannot be read.
    pub fn contents(&self, page_map: Option<&PageMap>) -> io::Result<Contents> {
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        self.read_used(page_map, |address, chunk| {
            let addresses =
                (0..).map(|page: u64| address.saturating_add(page.saturating_mul(PAGE)));
            for (address, page) in addresses.zip(chunk.chunks(PAGE_LENGTH)) {
                if is_zero(page) {
                    continue;
                }
                match runs.last_mut() {
                    Some((start, run)) if start.checked_add(run.len() as u64) == Some(address) => {
                        run.extend_from_slice(page);
                    }
                    _ => runs.push((address, page.to_vec())),
                }
            }
        })?;
        runs.iter_mut().for_each(|(_, run)| run.shrink_to_fit());
        Ok(Contents { runs })
    }

    /// Gives RAM the contents of a copy of it, in place: host addresses stay, and memory that was
    /// touched since goes back to the host where the host takes it.
    ///
    /// No vCPU and no device uses the RAM meanwhile.
    ///
    /// # Errors
    /// Fails if the copy is of other RAM, which is then undefined.
    pub fn set_contents(&self, contents: &Contents) -> Result<(), AccessError> {
        for region in self.memory.iter() {
            let (start, size) = (region.start_addr().0, region.len());
            if region.discard() {
                self.written(start, size);
            } else {
                self.zero(start, size)?;
            }
        }
        contents.runs.iter().try_for_each(|(address, run)| self.write(*address, run))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::{Backing, Region};

    const REGIONS: [Region; 2] =
        [Region { start: 0, size: 64 * PAGE }, Region { start: 1 << 30, size: 16 * PAGE }];

    fn fill(ram: &GuestRam) {
        ram.write(0x800, &[1; 0x1000]).unwrap();
        ram.write(5 * PAGE, &[0; 16]).unwrap();
        ram.write(63 * PAGE, &[2; 0x1000]).unwrap();
        ram.write((1 << 30) + 15 * PAGE, &[3; 0x1000]).unwrap();
    }

    fn bytes(ram: &GuestRam) -> Vec<u8> {
        let mut all = Vec::new();
        for region in ram.regions() {
            let mut bytes = vec![0; usize::try_from(region.size).unwrap()];
            ram.read(region.start, &mut bytes).unwrap();
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn ram_gets_the_contents_of_its_copy() {
        for page_map in [None, PageMap::open().ok()] {
            let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
            fill(&ram);
            let (before, copy) = (bytes(&ram), ram.contents(page_map.as_ref()).unwrap());
            // Two pages, one and one: that of zeros is none.
            assert_eq!(copy.size(), 4 * PAGE);
            for region in REGIONS {
                ram.write(region.start, &vec![0xaa; usize::try_from(region.size).unwrap()])
                    .unwrap();
            }
            ram.set_contents(&copy).unwrap();
            assert!(bytes(&ram) == before, "with page tables: {}", page_map.is_some());
        }
    }

    #[test]
    fn ram_of_a_file_gets_the_contents_of_its_copy() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(80 * PAGE).unwrap();
        file.write_all_at(&[7; 100], 3 * PAGE).unwrap();
        let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
        fill(&ram);
        let (before, copy) = (bytes(&ram), ram.contents(None).unwrap());
        ram.map_again(&file).unwrap();
        ram.set_contents(&copy).unwrap();
        assert!(bytes(&ram) == before);
    }

    #[test]
    fn the_copy_of_other_ram_is_refused() {
        let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
        fill(&ram);
        let other = GuestRam::new(&REGIONS[..1], &Backing::default()).unwrap();
        assert!(other.set_contents(&ram.contents(None).unwrap()).is_err());
    }
}
