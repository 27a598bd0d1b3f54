//! Parameters that no honest guest sends, interface version 2: the VMM answers or ignores each, and
//! touches nothing outside what it was given.

#![no_std]
#![no_main]

use runtime::hypercall::errno::EFAULT;
use runtime::hypercall::v2::{
    Call, OpenParams, ReadParams, SerialReadBufferParams, SerialWriteBufferParams, WriteParams,
};
use runtime::hypercall::{STDIN, STDOUT, guest};
use runtime::prelude::*;

runtime::kernel!(v2, main);

/// Addresses of parameter blocks and buffers that are not, or not wholly, in RAM.
fn bad_addresses() -> Vec<u64> {
    let end = boot::memory().iter().map(|region| region.end).max().unwrap_or(0);
    let start = boot::memory().first().map_or(0, |region| region.start);
    let mut bad = vec![
        end,
        end - 1,
        end - 4,
        end + 4096,
        0xd123_4000,
        0xfee0_0000,
        u64::MAX,
        u64::MAX - 7,
        u64::MAX - 4096,
        1 << 63,
        1 << 52,
        0xffff_8000_0000_0000,
    ];
    if start > 0 {
        bad.extend([0, 8, start - 1, start - 8]);
    }
    bad
}

/// Every call with a block at every bad address.
fn blocks() {
    for call in Call::ALL {
        if call == Call::Exit || call.param_size() == 0 {
            continue;
        }
        for address in bad_addresses() {
            // SAFETY: no block can be read there, so nothing can be done.
            unsafe { guest::out(call.port(), 0x1234, address) };
        }
    }
}

fn serial_write(buf: u64, len: u64) {
    let mut params = SerialWriteBufferParams { len, buf };
    // SAFETY: the call at most reads.
    unsafe { runtime::v2().call(Call::SerialWriteBuffer, &mut params) };
}

fn buffers() {
    let text = b"this must not appear\n";
    let at = text.as_ptr().addr() as u64;
    for len in [u64::MAX, u64::MAX - at, 1 << 63, 1 << 40] {
        serial_write(at, len);
    }
    for address in bad_addresses() {
        serial_write(address, 16);
        serial_write(address, 0);

        let mut params =
            WriteParams { len: 16, ret: 0x5a5a, buf: address, fd: STDOUT, reserved: 0 };
        // SAFETY: the call at most reads.
        unsafe { runtime::v2().call(Call::FileWrite, &mut params) };
        check_eq!(params.ret, -i64::from(EFAULT), "write from {address:#x}");

        let mut params = ReadParams { len: 16, ret: 0x5a5a, buf: address, fd: STDIN, reserved: 0 };
        // SAFETY: the call can write to the last bytes of RAM at most, which are unused.
        unsafe { runtime::v2().call(Call::FileRead, &mut params) };
        check_eq!(params.ret, -i64::from(EFAULT), "read into {address:#x}");

        let mut params = SerialReadBufferParams { maxlen: 16, len: 0, buf: address };
        // SAFETY: as above.
        unsafe { runtime::v2().call(Call::SerialReadBuffer, &mut params) };
        check_eq!(params.len, 0, "bytes read into {address:#x}");

        let mut params = OpenParams { name: address, flags: 0, mode: 0, ret: 0x5a5a };
        // SAFETY: the call at most reads.
        unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
        let ret = params.ret;
        check!(ret < 0, "open of a path at {address:#x} gave {ret}");
    }
}

/// A path that never ends, and one that is no text.
fn paths() {
    let endless = vec![b'a'; 1 << 20];
    let odd = [b'/', 0xff, 0xfe, 0];
    for name in [endless.as_ptr(), odd.as_ptr()] {
        let mut params = OpenParams { name: name.addr() as u64, flags: -1, mode: -1, ret: 0x5a5a };
        // SAFETY: the call reads the path.
        unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
        let ret = params.ret;
        check!(ret < 0, "open of a bad path gave {ret}");
    }
}

/// Ports next to hypercalls, reserved calls, and calls in odd widths.
fn ports() {
    for call in [Call::SharedMemOpen, Call::SharedMemClose] {
        // SAFETY: reserved calls do nothing.
        unsafe { guest::out(call.port(), 0, 0) };
    }
    for port in (0x1000..0x1300).filter(|&port| Call::from_port(port).is_none()) {
        cpu::out32(port, 0x1234_5678);
    }
    // Reading a port that is for writing.
    for call in [Call::Exit, Call::SerialWriteBuffer, Call::FileWrite] {
        check_eq!(cpu::in32(call.port()), u32::MAX, "value read from {}", call.name());
    }
}

fn main() {
    blocks();
    buffers();
    paths();
    ports();
    // A good call after all the bad ones.
    check_eq!(runtime::v2().write_fd(STDOUT, b"still well\n"), Ok(11), "an honest write");
}
