//! All interrupt controllers of a machine, for one thread.

use crate::apic::{ApicConfig, Effect, LocalApic, SavedLocalApic};
use crate::board::{Board, LineSource, Routes, SavedBoard};
use crate::delivery::LocalApics;
use crate::ioapic::IoApicVersion;
use crate::time::Time;
use nerite_saved::{RestoreError, refuse};

/// Properties of a machine's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChipsConfig {
    /// Number of vCPUs; the first one is the bootstrap processor.
    pub cpus: u32,
    /// Version of the I/O APIC. The local APICs can suppress EOI broadcasts if it has an EOI
    /// register.
    pub ioapic: IoApicVersion,
    /// The wiring of lines to pins.
    pub routes: Routes,
    /// x2APIC mode (CPUID.01H:ECX.21).
    pub has_x2apic: bool,
    /// TSC deadline mode of the local APICs' timers (CPUID.01H:ECX.24).
    pub has_tsc_deadline: bool,
    /// Bits of a guest-physical address (CPUID.80000008H:EAX), 36 to 52.
    pub address_bits: u8,
}

impl ChipsConfig {
    /// The controllers of a KVM virtual machine with this number of vCPUs.
    #[must_use]
    pub const fn of(cpus: u32) -> Self {
        Self {
            cpus,
            ioapic: IoApicVersion::Original,
            routes: Routes::Identity,
            has_x2apic: true,
            has_tsc_deadline: true,
            address_bits: 52,
        }
    }

    /// The configuration of a vCPU's local APIC.
    #[must_use]
    pub fn apic(&self, vcpu: u32) -> ApicConfig {
        ApicConfig {
            is_bootstrap: vcpu == 0,
            has_x2apic: self.has_x2apic,
            has_tsc_deadline: self.has_tsc_deadline,
            has_directed_eoi: self.ioapic == IoApicVersion::WithEoiRegister,
            address_bits: self.address_bits,
        }
    }

    pub(crate) fn board(&self) -> Board {
        Board::new(self.ioapic, self.routes)
    }

    /// Restores all chips, whose number and properties are this configuration's.
    pub(crate) fn restore(
        &self,
        saved: &SavedChips,
        time: Time,
    ) -> Result<(Board, Vec<LocalApic>), RestoreError> {
        let board = Board::restore(&saved.board, time.nanoseconds)?;
        refuse("board", "I/O APIC version", saved.board.ioapic.kind != self.ioapic)?;
        refuse("board", "routes", saved.board.routes != self.routes)?;
        refuse(
            "board",
            "number of local APICs",
            u32::try_from(saved.apics.len()) != Ok(self.cpus),
        )?;
        let restore = |(vcpu, saved): (u32, &SavedLocalApic)| {
            refuse("local APIC", "id", saved.id != vcpu)?;
            let mut apic = LocalApic::restore(self.apic(vcpu), saved, time)?;
            // The pin follows the 8259 pair, whatever was saved of it.
            apic.set_lint0_level(board.output());
            Ok(apic)
        };
        let apics = (0..).zip(&saved.apics).map(restore).collect::<Result<_, _>>()?;
        Ok((board, apics))
    }
}

/// State of all interrupt controllers of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedChips {
    /// The chips that all vCPUs share.
    pub board: SavedBoard,
    /// The local APICs, in the order of the vCPUs.
    pub apics: Vec<SavedLocalApic>,
}

/// Local APICs in a vector, and the vCPUs that were woken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Apics {
    all: Vec<LocalApic>,
    woken: Vec<bool>,
}

fn index(vcpu: u32) -> usize {
    usize::try_from(vcpu).unwrap_or(usize::MAX)
}

impl LocalApics for Apics {
    fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    fn with<T>(&mut self, vcpu: u32, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        self.all.get_mut(index(vcpu)).map(act)
    }

    fn wake(&mut self, vcpu: u32) {
        if let Some(woken) = self.woken.get_mut(index(vcpu)) {
            *woken = true;
        }
    }
}

/// All interrupt controllers of a machine as plain data: for a machine that one thread runs, for
/// tests and models.
///
/// [`SharedChips`](crate::SharedChips) is the same for a machine with a thread for each vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterruptChips {
    board: Board,
    apics: Apics,
}

impl InterruptChips {
    /// The controllers after power-up.
    #[must_use]
    pub fn new(config: &ChipsConfig) -> Self {
        let all = (0..config.cpus).map(|vcpu| LocalApic::new(vcpu, config.apic(vcpu))).collect();
        Self::from_parts(config.board(), all)
    }

    fn from_parts(board: Board, all: Vec<LocalApic>) -> Self {
        let woken = vec![false; all.len()];
        Self { board, apics: Apics { all, woken } }
    }

    /// The local APIC of a vCPU. What an access of it returns is for [`Self::carry_out`].
    pub fn apic(&mut self, vcpu: u32) -> Option<&mut LocalApic> {
        self.apics.all.get_mut(index(vcpu))
    }

    /// Carries out the consequence of an access of a local APIC.
    pub fn carry_out(&mut self, effect: Effect) {
        self.board.carry_out(&mut self.apics, effect);
    }

    /// Lines that an end of interrupt with this vector is about: as [`Board::lines_with`].
    #[must_use]
    pub fn lines_with(&self, vector: u8) -> u32 {
        self.board.lines_with(vector)
    }

    /// Lines that a write to the 8259 pair is about: as [`Board::lines_ended_by`].
    #[must_use]
    pub fn lines_ended_by(&self, port: u16, value: u8) -> u32 {
        self.board.lines_ended_by(port, value)
    }

    /// Returns `true` if a vCPU has an interrupt to take, from its local APIC or the 8259 pair.
    #[must_use]
    pub fn has_interrupt(&self, vcpu: u32) -> bool {
        let apic = self.apics.all.get(index(vcpu));
        apic.is_some_and(|apic| apic.has_external_interrupt() || apic.pending().is_some())
    }

    /// The vCPU takes its next interrupt: returns the vector. Those of the 8259 pair come first, as
    /// in KVM.
    pub fn acknowledge(&mut self, vcpu: u32) -> Option<u8> {
        let apic = self.apics.all.get(index(vcpu))?;
        let external = apic
            .has_external_interrupt()
            .then(|| self.board.acknowledge(&mut self.apics))
            .flatten();
        external.or_else(|| self.apic(vcpu)?.acknowledge())
    }

    /// The vCPUs that were woken since the last call, lowest first.
    pub fn take_woken(&mut self) -> impl Iterator<Item = u32> + '_ {
        let woken = (0..).zip(&mut self.apics.woken);
        woken.filter_map(|(vcpu, woken)| std::mem::take(woken).then_some(vcpu))
    }

    /// Asserts or de-asserts a line for one of the devices that share it. A line that does not
    /// exist is ignored.
    pub fn set_line(&mut self, gsi: u8, source: LineSource, is_asserted: bool) {
        self.board.set_line(&mut self.apics, gsi, source, is_asserted);
    }

    /// Delivers a device's message (MSI). Returns `true` if a processor accepted it.
    pub fn send_message(&mut self, address: u64, data: u32) -> bool {
        self.board.send_message(&mut self.apics, address, data)
    }

    /// Moves all timers on to a moment.
    pub fn advance(&mut self, time: Time) {
        self.board.advance(&mut self.apics, time.nanoseconds);
        for (apic, woken) in self.apics.all.iter_mut().zip(&mut self.apics.woken) {
            let had = apic.pending();
            apic.advance(time);
            *woken |= apic.pending() != had;
        }
    }

    /// Nanoseconds at which the shared timer needs [`Self::advance`] next; each local APIC has a
    /// [moment](LocalApic::next_event) of its own.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        self.board.next_event()
    }

    /// Reads a byte from a port of the 8259 pair or the 8254 at `now`, in nanoseconds; `None` for
    /// another port.
    pub fn read_port(&mut self, port: u16, now: u64) -> Option<u8> {
        self.board.read_port(&mut self.apics, port, now)
    }

    /// Writes a byte to a port of the 8259 pair or the 8254 at `now`, in nanoseconds. Returns
    /// `false` for another port.
    pub fn write_port(&mut self, port: u16, value: u8, now: u64) -> bool {
        self.board.write_port(&mut self.apics, port, value, now)
    }

    /// Reads `width` bytes at `offset` of the I/O APIC's registers.
    #[must_use]
    pub fn read_ioapic(&self, offset: u64, width: u8) -> u32 {
        self.board.read_ioapic(offset, width)
    }

    /// Writes to `offset` of the I/O APIC's registers; `value` is zero-extended.
    pub fn write_ioapic(&mut self, offset: u64, value: u32) {
        self.board.write_ioapic(&mut self.apics, offset, value);
    }

    /// The state at this moment.
    #[must_use]
    pub fn save(&self, time: Time) -> SavedChips {
        SavedChips {
            board: self.board.save(time.nanoseconds),
            apics: self.apics.all.iter().map(|apic| apic.save(time)).collect(),
        }
    }

    /// The controllers with a saved state, which resume at this moment.
    ///
    /// # Errors
    /// If the state is not one that controllers with this configuration can have.
    pub fn restore(
        config: &ChipsConfig,
        saved: &SavedChips,
        time: Time,
    ) -> Result<Self, RestoreError> {
        let (board, all) = config.restore(saved, time)?;
        Ok(Self::from_parts(board, all))
    }
}

#[cfg(test)]
#[path = "chips_test.rs"]
mod tests;
