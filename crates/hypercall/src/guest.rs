//! Performing the calls, from inside a guest.
//!
//! [`V1`] and [`V2`] are created by an `unsafe` promise about the guest's memory; after that, their
//! methods are safe.

use core::arch::asm;

use zerocopy::{FromBytes, IntoBytes};

use crate::{errno, v1, v2};

/// Writes `eax` to `port` with `rdi` in RDI: the one instruction all calls consist of.
///
/// # Safety
/// The host does what the port means, which may be to write to guest memory at addresses found in a
/// parameter block at `eax` or `rdi`: these must be memory that the caller owns.
#[inline]
pub unsafe fn out(port: u16, eax: u32, rdi: u64) {
    // SAFETY: the instruction itself touches no memory and no stack; what the host does to memory
    // is the caller's promise, and the missing `nomem` makes the compiler write back and reload
    // around it.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") eax, in("rdi") rdi, options(nostack, preserves_flags))
    }
}

/// Stops this processor for good. Reached only if the host ignores an exit call.
fn halt() -> ! {
    loop {
        // SAFETY: halting touches no memory; with interrupts off it never ends, which is the point.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}

/// Turns a result that is negative for an error into a `Result` with the positive error number.
fn checked(ret: i64) -> Result<u64, i32> {
    u64::try_from(ret).map_err(|_| i32::try_from(ret.wrapping_neg()).unwrap_or(errno::EIO))
}

/// Value of a result field before the call: a host that ignores the call must not look like
/// success.
const NO_ANSWER: i64 = -(errno::EIO as i64);

/// Calls of interface version 1.
#[derive(Clone, Copy, Debug)]
pub struct V1(());

impl V1 {
    /// The one promise that makes the methods safe.
    ///
    /// # Safety
    /// For as long as the value (or a copy of it) is used, the host speaks interface version 1, and
    /// all memory that is passed to its methods is mapped at virtual addresses equal to physical
    /// ones, stack included.
    #[must_use]
    pub const unsafe fn assume_identity_mapped() -> Self {
        Self(())
    }

    /// Performs `call` with a parameter block. A block beyond the first 4 GiB, which version 1
    /// cannot name, is refused with `EFAULT` and the call not made.
    ///
    /// # Safety
    /// `T` is the block of `call`, and addresses inside it point to memory of the caller's that the
    /// call may read or write as it does.
    #[inline]
    pub unsafe fn call<T: FromBytes + IntoBytes>(
        self,
        call: v1::Call,
        params: &mut T,
    ) -> Result<(), i32> {
        debug_assert_eq!(call.param_size(), size_of::<T>());
        let address =
            u32::try_from(core::ptr::from_mut(params).addr()).map_err(|_| errno::EFAULT)?;
        // SAFETY: the block is exclusively ours and identity mapped (promise of the constructor),
        // and what it points to is the caller's promise.
        unsafe { out(call.port(), address, 0) };
        Ok(())
    }

    /// Writes one byte to the console.
    #[inline]
    pub fn write_byte(self, byte: u8) {
        // SAFETY: the value is the byte itself; the call touches no memory.
        unsafe { out(v1::Call::SerialWriteByte.port(), byte.into(), 0) }
    }

    /// Writes a buffer to the console; `Err(EFAULT)` where the stack lies beyond 4 GiB.
    pub fn write(self, bytes: &[u8]) -> Result<(), i32> {
        let mut params = v1::SerialWriteBufferParams {
            buf: bytes.as_ptr().addr() as u64,
            len: bytes.len() as u64,
        };
        // SAFETY: the call only reads `bytes`.
        unsafe { self.call(v1::Call::SerialWriteBuffer, &mut params) }
    }

    /// Reads from a descriptor: how many bytes, 0 at the end of the input.
    pub fn read_fd(self, fd: i32, buffer: &mut [u8]) -> Result<usize, i32> {
        let mut params = v1::ReadParams {
            fd,
            buf: buffer.as_mut_ptr().addr() as u64,
            len: buffer.len() as u64,
            ret: NO_ANSWER,
        };
        // SAFETY: the call writes to `buffer`, at most its length.
        unsafe { self.call(v1::Call::FileRead, &mut params)? };
        checked(params.ret).map(|n| buffer.len().min(usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Writes to a descriptor. The interface has no result for this.
    pub fn write_fd(self, fd: i32, bytes: &[u8]) -> Result<(), i32> {
        let mut params =
            v1::WriteParams { fd, buf: bytes.as_ptr().addr() as u64, len: bytes.len() as u64 };
        // SAFETY: the call only reads `bytes`.
        unsafe { self.call(v1::Call::FileWrite, &mut params) }
    }

    /// Ends the machine.
    pub fn exit(self, code: i32) -> ! {
        let mut params = v1::ExitParams { arg: code };
        // SAFETY: the block holds no address. An error (a stack beyond 4 GiB) leaves nothing but
        // halting.
        let _ = unsafe { self.call(v1::Call::Exit, &mut params) };
        halt()
    }
}

/// Calls of interface version 2.
#[derive(Clone, Copy, Debug)]
pub struct V2(());

impl V2 {
    /// The one promise that makes the methods safe.
    ///
    /// # Safety
    /// For as long as the value (or a copy of it) is used, the host speaks interface version 2, and
    /// all memory that is passed to its methods is mapped at virtual addresses equal to physical
    /// ones, stack included.
    #[must_use]
    pub const unsafe fn assume_identity_mapped() -> Self {
        Self(())
    }

    /// Performs `call` with a parameter block.
    ///
    /// # Safety
    /// `T` is the block of `call`, and addresses inside it point to memory of the caller's that the
    /// call may read or write as it does.
    #[inline]
    pub unsafe fn call<T: FromBytes + IntoBytes>(self, call: v2::Call, params: &mut T) {
        debug_assert_eq!(call.param_size(), size_of::<T>());
        // SAFETY: the block is exclusively ours and identity mapped (promise of the constructor),
        // and what it points to is the caller's promise.
        unsafe { out(call.port(), 0, core::ptr::from_mut(params).addr() as u64) }
    }

    /// Writes one byte to the console.
    #[inline]
    pub fn write_byte(self, byte: u8) {
        // SAFETY: the value is the byte itself; the call touches no memory.
        unsafe { out(v2::Call::SerialWriteByte.port(), 0, byte.into()) }
    }

    /// Writes a buffer to the console.
    pub fn write(self, bytes: &[u8]) {
        let mut params = v2::SerialWriteBufferParams {
            len: bytes.len() as u64,
            buf: bytes.as_ptr().addr() as u64,
        };
        // SAFETY: the call only reads `bytes`.
        unsafe { self.call(v2::Call::SerialWriteBuffer, &mut params) }
    }

    /// Reads one byte from the console, waiting for it; `None` at the end of the input.
    #[must_use]
    pub fn read_byte(self) -> Option<u8> {
        let value: u32;
        // SAFETY: the port only reads the console and the instruction touches no memory.
        unsafe {
            asm!(
                "in eax, dx",
                in("dx") v2::Call::SerialReadByte.port(), out("eax") value,
                options(nomem, nostack, preserves_flags)
            );
        }
        u8::try_from(value).ok()
    }

    /// Reads from the console, waiting for input; how many bytes, 0 at the end of the input.
    pub fn read(self, buffer: &mut [u8]) -> usize {
        let mut params = v2::SerialReadBufferParams {
            maxlen: buffer.len() as u64,
            len: 0,
            buf: buffer.as_mut_ptr().addr() as u64,
        };
        // SAFETY: the call writes to `buffer`, at most its length.
        unsafe { self.call(v2::Call::SerialReadBuffer, &mut params) };
        buffer.len().min(usize::try_from(params.len).unwrap_or(usize::MAX))
    }

    /// Reads from a descriptor: how many bytes, 0 at the end of the input.
    pub fn read_fd(self, fd: i32, buffer: &mut [u8]) -> Result<usize, i32> {
        let mut params = v2::ReadParams {
            len: buffer.len() as u64,
            ret: NO_ANSWER,
            buf: buffer.as_mut_ptr().addr() as u64,
            fd,
            reserved: 0,
        };
        // SAFETY: the call writes to `buffer`, at most its length.
        unsafe { self.call(v2::Call::FileRead, &mut params) };
        checked(params.ret).map(|n| buffer.len().min(usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Writes to a descriptor: how many bytes were written.
    pub fn write_fd(self, fd: i32, bytes: &[u8]) -> Result<usize, i32> {
        let mut params = v2::WriteParams {
            len: bytes.len() as u64,
            ret: NO_ANSWER,
            buf: bytes.as_ptr().addr() as u64,
            fd,
            reserved: 0,
        };
        // SAFETY: the call only reads `bytes`.
        unsafe { self.call(v2::Call::FileWrite, &mut params) };
        checked(params.ret).map(|n| bytes.len().min(usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Ends the machine.
    pub fn exit(self, code: i32) -> ! {
        // SAFETY: the value is the code itself; the call touches no memory.
        unsafe { out(v2::Call::Exit.port(), 0, code.cast_unsigned().into()) };
        halt()
    }
}

impl core::fmt::Write for V1 {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write(text.as_bytes()).map_err(|_| core::fmt::Error)
    }
}

impl core::fmt::Write for V2 {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_counts_or_error_numbers() {
        assert_eq!(checked(0), Ok(0));
        assert_eq!(checked(17), Ok(17));
        assert_eq!(checked(-9), Err(errno::EBADF));
        assert_eq!(checked(i64::MIN), Err(errno::EIO));
    }
}
