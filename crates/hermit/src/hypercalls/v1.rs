//! Hypercall interface v1: EAX is the guest-physical address of a packed structure.

use std::mem::offset_of;

use nerite_arch::paging::Root;
use nerite_hypercall::v1::{
    Call, CloseParams, CmdvalParams, ExitParams, LseekParams, OpenParams, ReadParams,
    SerialWriteBufferParams, UnlinkParams, WriteParams,
};
use nerite_memory::AccessError;
use nerite_vcpu::Vcpu;

use super::buffers::{Buffer, Scratch};
use super::streams::Answer;
use super::{Hypercalls, Next, Stop, end_of_environment};

const fn or_errno(result: Result<i32, i32>) -> i32 {
    match result {
        Ok(value) => value,
        Err(errno) => errno.saturating_neg(),
    }
}

impl Hypercalls {
    /// Answers a call; `data` is what the guest wrote to the port.
    pub(crate) fn v1(
        &self,
        call: Call,
        data: u32,
        vcpu: &mut dyn Vcpu,
        scratch: &mut Scratch,
    ) -> Next {
        match self.answer_v1(call, u64::from(data), vcpu, scratch) {
            Ok(next) | Err(Stop::Next(next)) => next,
            Err(Stop::Pointer(error)) => {
                self.bad_pointer(call.name(), &error);
                Next::Resume
            }
        }
    }

    fn answer_v1(
        &self,
        call: Call,
        data: u64,
        vcpu: &mut dyn Vcpu,
        scratch: &mut Scratch,
    ) -> Result<Next, Stop> {
        let ram = &self.ram;
        let field = |offset: usize| data.wrapping_add(offset as u64);
        match call {
            Call::Exit => return Ok(Next::Exit(ram.read_obj::<ExitParams>(data)?.arg)),
            Call::SerialWriteByte => {
                let [byte, ..] = data.to_le_bytes();
                return Ok(self.put(byte));
            }
            Call::SerialWriteBuffer => {
                let params = ram.read_obj::<SerialWriteBufferParams>(data)?;
                let buffer = Buffer::Physical { address: params.buf, length: params.len };
                let written = self.write_console(buffer, scratch);
                self.without_result(call.name(), written)?;
            }
            Call::FileWrite => {
                let params = ram.read_obj::<WriteParams>(data)?;
                let buffer = virtual_buffer(vcpu, params.buf, params.len)?;
                let written = self.file_write(params.fd, buffer, scratch);
                if let Ok(Ok(length)) = written
                    && length < buffer.length()
                {
                    let lost = buffer.length().saturating_sub(length);
                    self.budget.guest_error(format_args!(
                        "hypercall FileWrite lost {lost} bytes, which it cannot report"
                    ));
                }
                self.without_result(call.name(), written)?;
            }
            Call::FileRead => {
                let params = ram.read_obj::<ReadParams>(data)?;
                let buffer = virtual_buffer(vcpu, params.buf, params.len)?;
                let ret = match self.file_read(params.fd, buffer, scratch).map_err(Stop::Next)? {
                    Ok(length) => i64::try_from(length).unwrap_or(i64::MAX),
                    Err(errno) => i64::from(errno.saturating_neg()),
                };
                ram.write_obj(field(offset_of!(ReadParams, ret)), &ret)?;
            }
            Call::FileOpen => {
                let params = ram.read_obj::<OpenParams>(data)?;
                let ret = or_errno(self.file_open(params.name, params.flags, params.mode));
                ram.write_obj(field(offset_of!(OpenParams, ret)), &ret)?;
            }
            Call::FileClose => {
                let ret = or_errno(self.file_close(ram.read_obj::<CloseParams>(data)?.fd));
                ram.write_obj(field(offset_of!(CloseParams, ret)), &ret)?;
            }
            Call::FileUnlink => {
                let ret = or_errno(self.file_unlink(ram.read_obj::<UnlinkParams>(data)?.name));
                ram.write_obj(field(offset_of!(UnlinkParams, ret)), &ret)?;
            }
            Call::FileLseek => {
                // This version knows only -1 as an error.
                let params = ram.read_obj::<LseekParams>(data)?;
                let position =
                    self.file_seek(params.fd, params.offset, params.whence).unwrap_or(-1);
                ram.write_obj(field(offset_of!(LseekParams, offset)), &position)?;
            }
            Call::Cmdsize => ram.write_obj(data, &self.words().sizes())?,
            Call::Cmdval => {
                let params = ram.read_obj::<CmdvalParams>(data)?;
                let words = self.words();
                self.copy_strings(params.argv, words.arguments())?;
                self.copy_strings(params.envp, words.environment())?;
                if let Some(variables) = words.unterminated()
                    && let Some(root) = Root::of(&vcpu.special_regs()?)
                {
                    let count = words.environment().len();
                    end_of_environment::write(ram, root, params.envp, count, variables);
                }
            }
            _ => {
                self.budget.guest_error(format_args!(
                    "hypercall {} is not provided and does nothing",
                    call.name()
                ));
            }
        }
        Ok(Next::Resume)
    }

    /// A call that has no field for its result: an error can only be logged.
    fn without_result(&self, call: &str, answer: Answer<u64>) -> Result<(), Stop> {
        if let Err(errno) = answer.map_err(Stop::Next)? {
            let name = nerite_hypercall::errno::name(errno).unwrap_or("unknown");
            self.budget.guest_error(format_args!(
                "hypercall {call} failed with {name}, which it cannot report"
            ));
        }
        Ok(())
    }

    /// Copies each string to where the guest's table of guest-physical addresses at `table` says.
    fn copy_strings(&self, table: u64, strings: &[Vec<u8>]) -> Result<(), AccessError> {
        for (position, string) in (0_u64..).zip(strings) {
            let entry = table.wrapping_add(position.wrapping_mul(8));
            let destination = self.ram.read_obj::<u64>(entry)?;
            self.ram.write(destination, string)?;
        }
        Ok(())
    }
}

/// A buffer at a guest-virtual address, seen through the calling vCPU's page tables. Outside of
/// 64-bit mode no such call can be right.
fn virtual_buffer(
    vcpu: &mut dyn Vcpu,
    address: u64,
    length: u64,
) -> Result<Buffer, nerite_vcpu::Error> {
    Ok(Buffer::Virtual { root: Root::of(&vcpu.special_regs()?), address, length })
}
