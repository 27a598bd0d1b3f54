//! The saved state of the shared chips.

use super::Board;
use super::lines::{GSIS, Lines, Routes};
use crate::ioapic::{IoApic, SavedIoApic};
use crate::pic::{PicPair, SavedPicPair};
use crate::pit::{Pit, SavedPit};
use nerite_saved::{RestoreError, check_version, refuse};

/// Version of [`SavedBoard`].
pub const BOARD_VERSION: u32 = 1;

/// State of I/O APIC, 8259 pair, 8254 and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedBoard {
    /// [`BOARD_VERSION`].
    pub version: u32,
    /// The I/O APIC.
    pub ioapic: SavedIoApic,
    /// The 8259 pair.
    pub pics: SavedPicPair,
    /// The 8254.
    pub pit: SavedPit,
    /// The wiring of lines to pins.
    pub routes: Routes,
    /// For each line, one bit for each source that asserts it.
    pub lines: [u64; GSIS as usize],
}

impl SavedBoard {
    /// Lowers all lines, as they are before devices have asserted theirs. What is in service, or
    /// latched by an edge, stays.
    pub fn lower_lines(&mut self) {
        self.lines = [0; GSIS as usize];
        self.ioapic.asserted = 0;
        for chip in &mut self.pics.chips {
            chip.asserted = 0;
            chip.requested &= !chip.level;
        }
    }
}

impl Board {
    /// The state at `now`, in nanoseconds.
    #[must_use]
    pub fn save(&self, now: u64) -> SavedBoard {
        SavedBoard {
            version: BOARD_VERSION,
            ioapic: self.ioapic.save(),
            pics: self.pics.save(),
            pit: self.pit.save(now),
            routes: self.lines.routes,
            lines: self.lines.sources,
        }
    }

    /// The chips with a saved state of the same version and wiring as this one.
    pub(crate) fn restored(&self, saved: &SavedBoard, now: u64) -> Result<Self, RestoreError> {
        let restored = Self::restore(saved, now)?;
        let kind = self.ioapic.save().kind;
        refuse("board", "I/O APIC version", saved.ioapic.kind != kind)?;
        refuse("board", "routes", saved.routes != self.lines.routes)?;
        Ok(restored)
    }

    /// The chips with a saved state, which resume at `now`, in nanoseconds.
    ///
    /// # Errors
    /// If a chip's state is of another version, or not one that it can have.
    pub fn restore(saved: &SavedBoard, now: u64) -> Result<Self, RestoreError> {
        check_version("board", saved.version, BOARD_VERSION)?;
        let pics = PicPair::restore(&saved.pics)?;
        let output = pics.has_interrupt();
        Ok(Self {
            ioapic: IoApic::restore(&saved.ioapic)?,
            pics,
            pit: Pit::restore(&saved.pit, now)?,
            lines: Lines { routes: saved.routes, sources: saved.lines },
            output,
        })
    }
}
