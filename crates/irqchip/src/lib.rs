#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod apic;
mod board;
mod chips;
mod delivery;
mod ioapic;
mod message;
mod pic;
mod pit;
mod shared;
mod time;

pub use apic::{
    APIC_VERSION, ApicConfig, ApicMode, BASE_ADDRESS, BASE_RESET, Effect, Events, LocalApic,
    LocalSource, MIN_PERIOD, Pin, Refused, SavedLocalApic, X2APIC_MSRS,
};
pub use board::{BOARD_VERSION, Board, GSIS, LineSource, Routes, SavedBoard};
pub use chips::{ChipsConfig, InterruptChips, SavedChips};
pub use delivery::{LocalApics, deliver};
pub use ioapic::{
    IOAPIC_ADDRESS, IOAPIC_PINS, IOAPIC_SIZE, IOAPIC_VERSION, IoApic, IoApicVersion, Pins,
    SavedIoApic,
};
pub use message::{Delivery, Message, Target};
pub use nerite_saved::RestoreError;
pub use pic::{NextWord, PIC_PINS, PIC_PORTS, PIC_VERSION, PicPair, SavedPic, SavedPicPair};
pub use pit::{
    Access, Mode, PIT_HZ, PIT_MIN_PERIOD, PIT_PORTS, PIT_VERSION, Pit, SavedChannel, SavedPit,
    SavedRun,
};
pub use shared::{SharedChips, Wake};
pub use time::{Deadline, Time};
