//! All interrupt controllers of a machine with a thread for each vCPU.

use parking_lot::Mutex;

use crate::apic::{Effect, LocalApic};
use crate::board::{Board, LineSource, SavedBoard};
use crate::chips::{ChipsConfig, SavedChips};
use crate::delivery::{LocalApics, deliver};
use crate::message::Message;
use crate::time::Time;
use nerite_saved::RestoreError;

/// A way to wake vCPU threads.
pub trait Wake: Send + Sync {
    /// Makes a vCPU leave HLT or guest code and look at its interrupts. Called from any thread,
    /// also the vCPU's own, while no local APIC is locked; it must not call [`SharedChips`].
    fn wake(&self, vcpu: u32);
}

/// All interrupt controllers of a machine, for any number of threads: each local APIC behind a lock
/// of its own, the chips that vCPUs share behind another.
///
/// * A **vCPU's thread**, before it enters the guest, calls [`Self::with_apic`] to
///   [advance](LocalApic::advance) its timer and take [events](LocalApic::take_events). It then
///   asks [`Self::has_interrupt`]. If the guest can take one it injects the vector of
///   [`Self::acknowledge`]; if not, it asks its hypervisor for an interrupt window. After an exit
///   it takes over CR8 with [`LocalApic::set_priority_class`].
/// * It answers the guest's accesses: those of the local APIC with [`Self::with_apic`] and
///   [`Self::carry_out`], ports and the I/O APIC with the methods here.
/// * A **device's thread** calls [`Self::set_line`] and [`Self::send_message`].
/// * **One thread** calls [`Self::advance_board`] when [`Self::next_board_event`] has come. That
///   changes when the guest writes to a port of the 8254.
pub struct SharedChips<W> {
    board: Mutex<Board>,
    apics: Vec<Mutex<LocalApic>>,
    wake: W,
}

/// The local APICs, for a caller that has locked none of them.
struct Apics<'a, W> {
    all: &'a [Mutex<LocalApic>],
    wake: &'a W,
}

fn at(all: &[Mutex<LocalApic>], vcpu: u32) -> Option<&Mutex<LocalApic>> {
    all.get(usize::try_from(vcpu).ok()?)
}

impl<W: Wake> LocalApics for Apics<'_, W> {
    fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    fn with<T>(&mut self, vcpu: u32, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        at(self.all, vcpu).map(|apic| act(&mut apic.lock()))
    }

    fn wake(&mut self, vcpu: u32) {
        self.wake.wake(vcpu);
    }
}

impl<W: Wake> SharedChips<W> {
    /// The controllers after power-up.
    #[must_use]
    pub fn new(config: &ChipsConfig, wake: W) -> Self {
        let apics = (0..config.cpus).map(|vcpu| LocalApic::new(vcpu, config.apic(vcpu)));
        Self { board: Mutex::new(config.board()), apics: apics.map(Mutex::new).collect(), wake }
    }

    const fn apics(&self) -> Apics<'_, W> {
        Apics { all: self.apics.as_slice(), wake: &self.wake }
    }

    /// Calls `act` with the local APIC of a vCPU, locked; `None` if there is no such vCPU. It must
    /// not call other methods here: what an access returns is for [`Self::carry_out`].
    pub fn with_apic<T>(&self, vcpu: u32, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        self.apics().with(vcpu, act)
    }

    /// Carries out the consequence of an access of a local APIC.
    pub fn carry_out(&self, effect: Effect) {
        match effect {
            // Messages between processors do not concern the chips that they share.
            Effect::Send(message) => drop(deliver(&mut self.apics(), &message)),
            Effect::EndOfInterrupt(_) => self.board.lock().carry_out(&mut self.apics(), effect),
        }
    }

    /// Lines that an end of interrupt with this vector is about: as [`Board::lines_with`].
    pub fn lines_with(&self, vector: u8) -> u32 {
        self.board.lock().lines_with(vector)
    }

    /// Lines that a write to the 8259 pair is about: as [`Board::lines_ended_by`].
    pub fn lines_ended_by(&self, port: u16, value: u8) -> u32 {
        self.board.lock().lines_ended_by(port, value)
    }

    /// Returns `true` if a vCPU has an interrupt to take, from its local APIC or the 8259 pair.
    pub fn has_interrupt(&self, vcpu: u32) -> bool {
        let has = |apic: &mut LocalApic| apic.has_external_interrupt() || apic.pending().is_some();
        self.with_apic(vcpu, has).unwrap_or(false)
    }

    /// The vCPU takes its next interrupt: returns the vector. Those of the 8259 pair come first, as
    /// in KVM.
    pub fn acknowledge(&self, vcpu: u32) -> Option<u8> {
        let is_external = self.with_apic(vcpu, |apic| apic.has_external_interrupt())?;
        let external =
            is_external.then(|| self.board.lock().acknowledge(&mut self.apics())).flatten();
        external.or_else(|| self.with_apic(vcpu, LocalApic::acknowledge)?)
    }

    /// Asserts or de-asserts a line for one of the devices that share it. A line that does not
    /// exist is ignored.
    pub fn set_line(&self, gsi: u8, source: LineSource, is_asserted: bool) {
        self.board.lock().set_line(&mut self.apics(), gsi, source, is_asserted);
    }

    /// Delivers a device's message (MSI). Returns `true` if a processor accepted it.
    pub fn send_message(&self, address: u64, data: u32) -> bool {
        Message::from_device(address, data)
            .is_some_and(|message| deliver(&mut self.apics(), &message))
    }

    /// Moves the shared timer on to `now`, in nanoseconds.
    pub fn advance_board(&self, now: u64) {
        self.board.lock().advance(&mut self.apics(), now);
    }

    /// Nanoseconds at which [`Self::advance_board`] is needed next.
    pub fn next_board_event(&self) -> Option<u64> {
        self.board.lock().next_event()
    }

    /// Reads a byte from a port of the 8259 pair or the 8254 at `now`, in nanoseconds; `None` for
    /// another port.
    pub fn read_port(&self, port: u16, now: u64) -> Option<u8> {
        self.board.lock().read_port(&mut self.apics(), port, now)
    }

    /// Writes a byte to a port of the 8259 pair or the 8254 at `now`, in nanoseconds. Returns
    /// `false` for another port.
    pub fn write_port(&self, port: u16, value: u8, now: u64) -> bool {
        self.board.lock().write_port(&mut self.apics(), port, value, now)
    }

    /// Reads `width` bytes at `offset` of the I/O APIC's registers.
    pub fn read_ioapic(&self, offset: u64, width: u8) -> u32 {
        self.board.lock().read_ioapic(offset, width)
    }

    /// Writes to `offset` of the I/O APIC's registers; `value` is zero-extended.
    pub fn write_ioapic(&self, offset: u64, value: u32) {
        self.board.lock().write_ioapic(&mut self.apics(), offset, value);
    }

    /// The state at a moment, with one time-stamp counter for all vCPUs. The caller has paused
    /// vCPUs and devices.
    pub fn save(&self, time: Time) -> SavedChips {
        let board = self.board.lock();
        SavedChips {
            board: board.save(time.nanoseconds),
            apics: self.apics.iter().map(|apic| apic.lock().save(time)).collect(),
        }
    }

    /// The state of the chips that vCPUs share at `now`, in nanoseconds.
    pub fn save_board(&self, now: u64) -> SavedBoard {
        self.board.lock().save(now)
    }

    /// Takes over a saved state of the chips that vCPUs share, which resume at `now`, in
    /// nanoseconds. The local APICs' pins follow the 8259 pair. The caller has paused vCPUs and
    /// devices.
    ///
    /// # Errors
    /// If the state is not one of chips with this configuration; nothing has changed then.
    pub fn restore_board(&self, saved: &SavedBoard, now: u64) -> Result<(), RestoreError> {
        let mut board = self.board.lock();
        *board = board.restored(saved, now)?;
        let output = board.output();
        for apic in &self.apics {
            apic.lock().set_lint0_level(output);
        }
        Ok(())
    }

    /// The controllers with a saved state, which resume at this moment.
    ///
    /// # Errors
    /// If the state is not one that controllers with this configuration can have.
    pub fn restore(
        config: &ChipsConfig,
        saved: &SavedChips,
        time: Time,
        wake: W,
    ) -> Result<Self, RestoreError> {
        let (board, apics) = config.restore(saved, time)?;
        let apics = apics.into_iter().map(Mutex::new).collect();
        Ok(Self { board: Mutex::new(board), apics, wake })
    }
}

impl<W> std::fmt::Debug for SharedChips<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { board, apics, wake: _ } = self;
        f.debug_struct("SharedChips")
            .field("board", board)
            .field("apics", apics)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "shared_test.rs"]
mod tests;
