//! The devices of a PC that a kernel without knowledge of Nerite expects.
//!
//! Devices that end the machine report it through [`Requests`], which vCPU threads check after each
//! write.

mod absent;
mod clock;
mod debug_exit;
mod fw_cfg;
mod keyboard;
mod power;
mod pvpanic;
mod requests;
mod serial;
mod test_device;

pub use absent::Absent;
pub use clock::{AlarmLine, Clock, ClockState, Equipment};
pub use debug_exit::DebugExit;
pub use fw_cfg::{FwCfg, FwCfgState};
pub use keyboard::KeyboardController;
pub use power::{PowerManagement, PowerManagementState, ResetControl, Sci};
pub use pvpanic::PvPanic;
pub use requests::{Request, Requests, ResetKind};
pub use serial::{Serial, SerialState};
pub use test_device::{TestLines, TestMemory, TestRegister};
