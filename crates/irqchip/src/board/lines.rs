//! Interrupt lines (global system interrupts), the devices that share them, and the pins that they
//! lead to.

use crate::ioapic::IOAPIC_PINS;

/// Number of lines: global system interrupts 0 to 23.
pub const GSIS: u8 = IOAPIC_PINS;

/// Lines of the 8259 pair.
const PIC_LINES: u8 = 16;
/// Sources that a line can have.
const SOURCES: u8 = 64;

/// A device on a shared line. The same value may be used on different lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSource(u8);

impl LineSource {
    /// The machine's 8254.
    pub(crate) const TIMER: Self = Self(SOURCES - 1);

    /// The source with this number, 0 to 62; `None` for others.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::TIMER.0 { Some(Self(number)) } else { None }
    }
}

/// Pins that a line leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) pic: Option<u8>,
    pub(super) ioapic: Option<u8>,
}

/// The wiring of lines to pins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Routes {
    /// Line n is pin n of the I/O APIC and, below 16, of the 8259 pair: as a KVM virtual machine
    /// begins, and for tables without an interrupt source override.
    #[default]
    Identity,
    /// The same, but the timer's line 0 is pin 2 of the I/O APIC, and line 2 leads nowhere: as on
    /// most PCs, which say so in an interrupt source override (ACPI 5.2.12.5).
    TimerOnPin2,
}

impl Routes {
    const fn route(self, gsi: u8) -> Route {
        let pic = if gsi < PIC_LINES { Some(gsi) } else { None };
        let ioapic = match (self, gsi) {
            (Self::TimerOnPin2, 0) => Some(2),
            (Self::TimerOnPin2, 2) => None,
            _ => Some(gsi),
        };
        Route { pic, ioapic }
    }
}

/// Levels of all lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) routes: Routes,
    /// For each line, one bit for each source that asserts it.
    pub(super) sources: [u64; GSIS as usize],
}

impl Lines {
    pub(super) const fn new(routes: Routes) -> Self {
        Self { routes, sources: [0; GSIS as usize] }
    }

    pub(super) const fn route(&self, gsi: u8) -> Route {
        self.routes.route(gsi)
    }

    /// Sets the level of one source. Returns the line's new level if that has changed.
    pub(super) fn set(&mut self, gsi: u8, source: LineSource, is_asserted: bool) -> Option<bool> {
        let sources = self.sources.get_mut(usize::from(gsi))?;
        let bit = 1_u64.wrapping_shl(source.0.into());
        let was_asserted = *sources != 0;
        *sources = if is_asserted { *sources | bit } else { *sources & !bit };
        let level = *sources != 0;
        (level != was_asserted).then_some(level)
    }
}
