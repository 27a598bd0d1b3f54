//! Port I/O (Intel SDM vol. 1, chapter 19).

use crate::access::data;
use crate::core::{Core, Run};
use crate::exit::Exit;
use crate::flags::IOPL;
use crate::int::{Int, mask};
use crate::op::Op;
use crate::registers::{RAX, RDI, RDX, RSI};

impl Core {
    /// Checks that the program may use the `width` ports from this one on.
    fn check_ports(&mut self, port: u16, width: u64) -> Run {
        let has_privilege = u64::from(self.cpl) <= (self.flags.control & IOPL) >> 12;
        if !self.is_protected() || has_privilege && !self.is_v86() {
            return Ok(());
        }
        let limit = u64::from(self.tr.limit);
        if self.tr.unusable || self.tr.kind & 9 != 9 || limit < 103 {
            return self.protection_fault(0);
        }
        let bitmap: u16 = self.load_system(self.wrap(self.tr.base.wrapping_add(102)))?;
        let at = u64::from(bitmap).wrapping_add(u64::from(port >> 3));
        if at.wrapping_add(1) > limit {
            return self.protection_fault(0);
        }
        let bits: u16 = self.load_system(self.wrap(self.tr.base.wrapping_add(at)))?;
        let wanted = mask(u32::try_from(width).unwrap_or(4)).wrapping_shl(u32::from(port & 7));
        if u64::from(bits) & wanted == 0 { Ok(()) } else { self.protection_fault(0) }
    }

    fn port_in<T: Int>(&mut self, port: u16) -> Run<T> {
        self.watch_port(port, T::BYTES);
        let width = T::BYTES as u8;
        let entry = self.device(Exit::PortIn { port, width })?;
        Ok(T::of(data(entry)))
    }

    fn port_out<T: Int>(&mut self, port: u16, value: T) -> Run {
        self.watch_port(port, T::BYTES);
        let width = T::BYTES as u8;
        self.device(Exit::PortOut { port, width, value: value.zx() as u32 }).map(drop)
    }
}

/// The port of an instruction: an immediate, or DX.
fn port(core: &Core, op: &Op, by_register: bool) -> u16 {
    if by_register { core.reg::<u16>(RDX) } else { (op.imm & 0xff) as u16 }
}

/// IN.
pub(crate) fn input<T: Int, const DX: bool>(core: &mut Core, op: &Op) -> Run {
    let port = port(core, op, DX);
    core.check_ports(port, T::BYTES)?;
    let value = core.port_in::<T>(port)?;
    core.set_reg(RAX, value);
    Ok(())
}

/// OUT.
pub(crate) fn output<T: Int, const DX: bool>(core: &mut Core, op: &Op) -> Run {
    let port = port(core, op, DX);
    core.check_ports(port, T::BYTES)?;
    let value = core.reg::<T>(RAX);
    core.port_out(port, value)
}

/// INS. The destination is looked at before the port is read.
pub(crate) fn ins<T: Int>(core: &mut Core, op: &Op) -> Run {
    let port = core.reg::<u16>(RDX);
    core.check_ports(port, T::BYTES)?;
    core.repeat(op, |core, _| {
        let destination = core.destination(op, T::BYTES, true)?;
        core.resolve(destination, true)?;
        let value = core.port_in::<T>(port)?;
        core.store(destination, value)?;
        core.advance(RDI, op, T::BYTES, 1);
        Ok((1, true))
    })
}

/// OUTS.
pub(crate) fn outs<T: Int>(core: &mut Core, op: &Op) -> Run {
    let port = core.reg::<u16>(RDX);
    core.check_ports(port, T::BYTES)?;
    core.repeat(op, |core, _| {
        let source = core.source(op, T::BYTES)?;
        let value = core.load::<T>(source)?;
        core.port_out(port, value)?;
        core.advance(RSI, op, T::BYTES, 1);
        Ok((1, true))
    })
}
