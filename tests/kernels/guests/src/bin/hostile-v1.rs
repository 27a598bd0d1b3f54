//! Parameters that no honest guest sends, interface version 1: the VMM answers or ignores each.

#![no_std]
#![no_main]

use runtime::hypercall::v1::{Call, CmdvalParams, OpenParams, SerialWriteBufferParams};
use runtime::hypercall::{STDOUT, guest};
use runtime::prelude::*;

runtime::kernel!(v1, main);

/// Addresses that are not, or not wholly, in RAM, and fit into 32 bits.
fn bad_addresses() -> Vec<u32> {
    let range = &boot::info().hardware_info.phys_addr_range;
    let mut bad = vec![0xd123_4000, 0xfee0_0000, u32::MAX, u32::MAX - 4096];
    let (start, end) = (range.start as u32, range.end as u32);
    bad.extend([end, end - 1, end - 2, end + 4096]);
    if start > 0 {
        bad.extend([0, start - 1]);
    }
    bad
}

fn blocks() {
    for call in Call::ALL {
        // Ending the machine with a block that cannot be read has no good answer.
        if call == Call::Exit || call.param_size() == 0 {
            continue;
        }
        for address in bad_addresses() {
            // SAFETY: no block can be read there, so nothing can be done.
            unsafe { guest::out(call.port(), address, 0) };
        }
    }
}

fn buffers() {
    let calls = runtime::v1();
    let text = b"this must not appear\n";
    let at = text.as_ptr().addr() as u64;
    let far = [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40];
    let near = bad_addresses().into_iter().map(u64::from);
    for address in far.into_iter().chain(near) {
        let mut write = SerialWriteBufferParams { buf: address, len: 16 };
        let mut open = OpenParams { name: address, flags: 0, mode: 0, ret: 0x5a5a };
        let mut values = CmdvalParams { argv: address, envp: address };
        // SAFETY: nothing can be read or written there.
        let made = unsafe {
            calls
                .call(Call::SerialWriteBuffer, &mut write)
                .and_then(|()| calls.call(Call::FileOpen, &mut open))
                .and_then(|()| calls.call(Call::Cmdval, &mut values))
        };
        check_eq!(made, Ok(()), "blocks below 4 GiB");
        let ret = open.ret;
        check!(ret < 0, "open of a path at {address:#x} gave {ret}");
    }
    for len in [u64::MAX, u64::MAX - at, 1 << 63, 1 << 40] {
        let mut write = SerialWriteBufferParams { buf: at, len };
        // SAFETY: the call at most reads.
        let made = unsafe { calls.call(Call::SerialWriteBuffer, &mut write) };
        check_eq!(made, Ok(()), "a block below 4 GiB");
    }
    // A table in RAM that points out of it.
    let table = [u64::MAX, 1 << 40, 0xd123_4000];
    let mut values =
        CmdvalParams { argv: table.as_ptr().addr() as u64, envp: table.as_ptr().addr() as u64 };
    // SAFETY: nothing can be written to where the table points.
    let made = unsafe { calls.call(Call::Cmdval, &mut values) };
    check_eq!(made, Ok(()), "a block below 4 GiB");
}

fn main() {
    blocks();
    buffers();
    for port in [Call::NetWrite, Call::NetRead, Call::NetStat] {
        // SAFETY: historical calls do nothing.
        unsafe { guest::out(port.port(), 0, 0) };
    }
    for call in [Call::Exit, Call::SerialWriteByte, Call::FileWrite] {
        check_eq!(cpu::in32(call.port()), u32::MAX, "value read from {}", call.name());
    }
    check_eq!(runtime::v1().write_fd(STDOUT, b"still well\n"), Ok(()), "an honest write");
}
