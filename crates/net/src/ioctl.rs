//! The ioctls of taps and of network interfaces (`linux/if_tun.h`, `linux/sockios.h`, tuntap.rst).
//! All `unsafe` of taps is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_ulong, ifreq};

/// Frames come with a virtio header.
pub(crate) const VNET_HDR: i16 = short(libc::IFF_VNET_HDR);
/// The tap has several queues.
pub(crate) const MULTI_QUEUE: i16 = short(libc::IFF_MULTI_QUEUE);
/// An interface for Ethernet frames, without a header of its own.
pub(crate) const TAP: i16 = short(libc::IFF_TAP | libc::IFF_NO_PI);

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNGETIFF: c_ulong = 0x8004_54d2;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const TUNSETQUEUE: c_ulong = 0x4004_54d9;

/// The flags of an interface as an ifreq has them.
#[allow(clippy::cast_possible_truncation, reason = "they are 16 bits wide")]
pub(crate) const fn short(flags: c_int) -> i16 {
    flags as i16
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request about the interface `name`.
fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: an ifreq is integers, byte arrays and pointers that the kernel sets; all zeros is a
    // value of it.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn with_request(fd: impl AsFd, operation: c_ulong, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: the operations used here take an ifreq, which lives for the whole call; an unsuitable
    // descriptor is an error.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), operation, std::ptr::from_mut(request)) })
}

/// Makes `fd`, an open `/dev/net/tun`, a queue of the interface `name`, creating that if it is not
/// there.
pub(crate) fn attach(fd: impl AsFd, name: &str, flags: i16) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags;
    with_request(fd, TUNSETIFF, &mut request)
}

/// The name and the flags of the interface that `fd` is a queue of.
pub(crate) fn interface(fd: impl AsFd) -> io::Result<(String, i16)> {
    let mut request = request("")?;
    with_request(fd, TUNGETIFF, &mut request)?;
    let name = request
        .ifr_name
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| byte.cast_unsigned())
        .collect();
    // SAFETY: TUNGETIFF has set the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((String::from_utf8(name).unwrap_or_default(), flags))
}

/// Sets how many bytes the header before each frame has.
pub(crate) fn set_header_size(fd: impl AsFd, size: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ takes a pointer to an int, which lives for the whole call.
    check(unsafe {
        libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETVNETHDRSZ, std::ptr::from_ref(&size))
    })
}

/// Sets what the reader of the tap can do by itself.
pub(crate) fn set_offload(fd: impl AsFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETOFFLOAD, c_ulong::from(flags)) })
}

/// Turns the queue `fd` of a tap with several on or off.
pub(crate) fn set_queue(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut request = request("")?;
    request.ifr_ifru.ifru_flags =
        if on { short(libc::IFF_ATTACH_QUEUE) } else { short(libc::IFF_DETACH_QUEUE) };
    with_request(fd, TUNSETQUEUE, &mut request)
}

/// The largest packet of the interface `name`. `socket` is any socket.
pub(crate) fn mtu(socket: impl AsFd, name: &str) -> io::Result<i32> {
    let mut request = request(name)?;
    with_request(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has set the number.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Sets the largest packet of the interface `name`.
pub(crate) fn set_mtu(socket: impl AsFd, name: &str, mtu: i32) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = mtu;
    with_request(socket, libc::SIOCSIFMTU, &mut request)
}

/// Turns the interface `name` on.
pub(crate) fn set_up(socket: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    with_request(socket.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has set the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | short(libc::IFF_UP);
    with_request(socket, libc::SIOCSIFFLAGS, &mut request)
}
