//! Hypercall interface v2: RDI is the guest-physical address of a structure, or the argument
//! itself.

use std::mem::offset_of;

use nerite_hypercall::v2::{
    Call, CloseParams, FstatParams, GetdentsParams, GetdentsResult, LseekParams, MkdirParams,
    OpenParams, ReadParams, SERIAL_END, SerialReadBufferParams, SerialWriteBufferParams,
    StatParams, StatusResult, UnlinkParams, WriteParams,
};
use nerite_memory::AccessError;
use zerocopy::IntoBytes;

use super::buffers::{Buffer, Scratch};
use super::{Hypercalls, Next, Stop};

/// Length or negative error number.
fn signed(result: Result<u64, i32>) -> i64 {
    match result {
        Ok(length) => i64::try_from(length).unwrap_or(i64::MAX),
        Err(errno) => i64::from(errno.saturating_neg()),
    }
}

fn status<T>(result: &Result<T, i32>) -> StatusResult {
    match result {
        Ok(_) => StatusResult::success(),
        Err(errno) => StatusResult::error(*errno),
    }
}

impl Hypercalls {
    /// Answers a call; `data` is the caller's RDI.
    pub(crate) fn v2(&self, call: Call, data: u64, scratch: &mut Scratch) -> Next {
        let answer = match call {
            Call::Exit => {
                let [a, b, c, d, ..] = data.to_le_bytes();
                return Next::Exit(i32::from_le_bytes([a, b, c, d]));
            }
            Call::SerialWriteByte => {
                let [byte, ..] = data.to_le_bytes();
                return self.put(byte);
            }
            Call::SerialWriteBuffer | Call::SerialReadBuffer => self.serial_v2(call, data, scratch),
            Call::FileWrite | Call::FileRead => self.transfer_v2(call, data, scratch),
            _ => self.file_v2(call, data).map_err(Stop::Pointer),
        };
        match answer {
            Ok(()) => Next::Resume,
            Err(Stop::Next(next)) => next,
            Err(Stop::Pointer(error)) => {
                self.bad_pointer(call.name(), &error);
                Next::Resume
            }
        }
    }

    /// Answers a read of the port of [`Call::SerialReadByte`]: a byte, or [`SERIAL_END`].
    pub(crate) fn read_serial_byte(&self) -> Result<u32, Next> {
        let mut byte = [0];
        match self.read_input(&mut byte) {
            Ok(0) => Ok(SERIAL_END),
            Ok(_) => {
                let [byte] = byte;
                Ok(u32::from(byte))
            }
            Err(Next::Host(error)) => {
                self.budget.guest_error(format_args!("reading standard input: {error}"));
                Ok(SERIAL_END)
            }
            Err(next) => Err(next),
        }
    }

    fn serial_v2(&self, call: Call, data: u64, scratch: &mut Scratch) -> Result<(), Stop> {
        let ram = &self.ram;
        let result = if call == Call::SerialReadBuffer {
            let params = ram.read_obj::<SerialReadBufferParams>(data)?;
            let buffer = Buffer::Physical { address: params.buf, length: params.maxlen };
            let result = self.read_console(buffer, scratch)?;
            // The call cannot report an error: nothing was read.
            let length = result.unwrap_or(0);
            ram.write_obj(
                data.wrapping_add(offset_of!(SerialReadBufferParams, len) as u64),
                &length,
            )?;
            result
        } else {
            let params = ram.read_obj::<SerialWriteBufferParams>(data)?;
            self.write_console(
                Buffer::Physical { address: params.buf, length: params.len },
                scratch,
            )?
        };
        if let Err(errno) = result {
            let name = nerite_hypercall::errno::name(errno).unwrap_or("unknown");
            self.budget.guest_error(format_args!(
                "hypercall {} failed with {name}, which it cannot report",
                call.name()
            ));
        }
        Ok(())
    }

    fn transfer_v2(&self, call: Call, data: u64, scratch: &mut Scratch) -> Result<(), Stop> {
        let ram = &self.ram;
        let (result, field) = if call == Call::FileRead {
            let params = ram.read_obj::<ReadParams>(data)?;
            let buffer = Buffer::Physical { address: params.buf, length: params.len };
            (self.file_read(params.fd, buffer, scratch)?, offset_of!(ReadParams, ret))
        } else {
            let params = ram.read_obj::<WriteParams>(data)?;
            let buffer = Buffer::Physical { address: params.buf, length: params.len };
            (self.file_write(params.fd, buffer, scratch)?, offset_of!(WriteParams, ret))
        };
        Ok(ram.write_obj(data.wrapping_add(field as u64), &signed(result))?)
    }

    fn file_v2(&self, call: Call, data: u64) -> Result<(), AccessError> {
        let ram = &self.ram;
        let field = |offset: usize| data.wrapping_add(offset as u64);
        let or_errno = |result: Result<i32, i32>| result.unwrap_or_else(i32::saturating_neg);
        match call {
            Call::FileOpen => {
                let params = ram.read_obj::<OpenParams>(data)?;
                let ret = or_errno(self.file_open(params.name, params.flags, params.mode));
                ram.write_obj(field(offset_of!(OpenParams, ret)), &ret)
            }
            Call::FileClose => {
                let ret = or_errno(self.file_close(ram.read_obj::<CloseParams>(data)?.fd));
                ram.write_obj(field(offset_of!(CloseParams, ret)), &ret)
            }
            Call::FileUnlink => {
                let ret = or_errno(self.file_unlink(ram.read_obj::<UnlinkParams>(data)?.name));
                ram.write_obj(field(offset_of!(UnlinkParams, ret)), &ret)
            }
            Call::FileLseek => {
                let params = ram.read_obj::<LseekParams>(data)?;
                let whence = i32::try_from(params.whence).unwrap_or(-1);
                let position = match self.file_seek(params.fd, params.offset, whence) {
                    Ok(position) => position,
                    Err(errno) => i64::from(errno.saturating_neg()),
                };
                ram.write_obj(field(offset_of!(LseekParams, offset)), &position)
            }
            Call::Getdents => {
                let params = ram.read_obj::<GetdentsParams>(data)?;
                let buffer = Buffer::Physical { address: params.buf, length: params.len };
                let ret = match self.directory_entries(params.fd, buffer) {
                    Ok(0) => GetdentsResult::end(),
                    Ok(length) => GetdentsResult::success(length),
                    Err(errno) => GetdentsResult::error(errno),
                };
                ram.write_obj(field(offset_of!(GetdentsParams, ret)), &ret)
            }
            Call::Mkdir => {
                let ret = status(&self.make_directory(ram.read_obj::<MkdirParams>(data)?.path));
                ram.write_obj(field(offset_of!(MkdirParams, ret)), &ret)
            }
            Call::FileStat => {
                let params = ram.read_obj::<StatParams>(data)?;
                let ret =
                    self.store_attributes(params.attr, self.file_stat(params.name, params.kind));
                ram.write_obj(field(offset_of!(StatParams, ret)), &ret)
            }
            Call::FileFstat => {
                let params = ram.read_obj::<FstatParams>(data)?;
                let ret = self.store_attributes(params.attr, self.descriptor_stat(params.fd));
                ram.write_obj(field(offset_of!(FstatParams, ret)), &ret)
            }
            _ => {
                self.budget.guest_error(format_args!(
                    "hypercall {} is not provided and does nothing",
                    call.name()
                ));
                Ok(())
            }
        }
    }

    fn store_attributes(
        &self,
        address: u64,
        attributes: Result<nerite_hypercall::v2::FileAttr, i32>,
    ) -> StatusResult {
        status(&attributes.and_then(|attributes| {
            self.ram
                .write(address, attributes.as_bytes())
                .map_err(|_| nerite_hypercall::errno::EFAULT)
        }))
    }
}
