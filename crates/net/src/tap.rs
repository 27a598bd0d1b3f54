//! Taps: network interfaces of the host whose frames a process sends and receives (tuntap.rst).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nerite_memory::GuestRam;
use nerite_virtio::Segment;
use nerite_virtio_net::{Backend, HEADER, feature};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{Error, TapRefusal, ioctl, thread, vectors};

/// Offloads of the reader of a tap (`TUN_F_*` of `linux/if_tun.h`).
const OFFLOAD_CSUM: u32 = 1;
const OFFLOAD_TSO4: u32 = 2;
const OFFLOAD_TSO6: u32 = 4;

/// One queue of a tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    multi_queue: bool,
    enabled: bool,
}

/// The queues of a tap that were opened, and what it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) queues: Vec<Tap>,
    pub(crate) name: String,
    pub(crate) mtu: u16,
}

impl Tap {
    /// Opens `queues` queues of the tap `name`, which is created if it is not there and this
    /// process may, and then turned on. With `mtu`, that is set if it is another.
    pub(crate) fn open(name: &str, queues: u16, mtu: Option<u16>) -> Result<Opened, Error> {
        let is_new = !Path::new("/sys/class/net").join(name).exists();
        let mut opened = Vec::new();
        for _ in 0..queues {
            opened.push(open_queue(name, queues > 1)?);
        }
        let socket = any_socket()?;
        if is_new {
            ioctl::set_up(&socket, name).map_err(Error::host("turning a tap on"))?;
        }
        let mtu = settle_mtu(&socket, name, mtu)?;
        Ok(Opened { queues: opened, name: name.to_owned(), mtu })
    }

    /// Creates the tap `name` in the network namespace of the calling thread and returns the
    /// descriptor of its only queue, for [`Link::Fd`](crate::Link::Fd) of another process.
    ///
    /// # Errors
    /// If this process may not, or the tap has another user.
    pub fn create(name: &str) -> Result<OwnedFd, Error> {
        Ok(open_queue(name, false)?.into_fd())
    }

    /// Takes over descriptor `fd`, which must be a queue of a tap with virtio headers.
    pub(crate) fn from_descriptor(fd: i32, mtu: Option<u16>) -> Result<Opened, Error> {
        let error = |reason: String| Error::Descriptor { fd, reason };
        // SAFETY: whether the number is an open descriptor is found out with a call that only asks.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(error("it is not open".to_owned()));
        }
        // SAFETY: it is open, and the parent process passed it on for this card, so nothing else in
        // the process owns it.
        let fd_owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let (name, flags) = ioctl::interface(&fd_owned)
            .map_err(|source| error(format!("it is no tap ({source})")))?;
        if flags & ioctl::TAP & !ioctl::short(libc::IFF_NO_PI) == 0 {
            return Err(error(format!("{name} carries packets and not Ethernet frames")));
        }
        if flags & ioctl::VNET_HDR == 0 {
            return Err(error(format!("open {name} with IFF_VNET_HDR")));
        }
        let host = Error::host::<rustix::io::Errno>;
        rustix::io::ioctl_fionbio(&fd_owned, true).map_err(host("making a tap non-blocking"))?;
        let cloexec = rustix::io::FdFlags::CLOEXEC;
        rustix::io::fcntl_setfd(&fd_owned, cloexec).map_err(host("closing a tap on exec"))?;
        let multi_queue = flags & ioctl::MULTI_QUEUE != 0;
        let tap = Self::new(fd_owned, multi_queue);
        tap.set_header()?;
        let mtu = settle_mtu(&any_socket()?, &name, mtu)?;
        Ok(Opened { queues: vec![tap], name, mtu })
    }

    fn set_header(&self) -> Result<(), Error> {
        let size = i32::try_from(HEADER).unwrap_or(i32::MAX);
        ioctl::set_header_size(&self.fd, size).map_err(Error::host("setting the header of a tap"))
    }

    /// Returns the descriptor of the tap, for another backend of the same queue.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sets what the driver can do by itself.
    pub(crate) fn set_offloads(fd: impl AsFd, features: u64) -> io::Result<()> {
        let mut flags = 0;
        for (feature, flag) in [
            (feature::GUEST_CSUM, OFFLOAD_CSUM),
            (feature::GUEST_TSO4, OFFLOAD_TSO4),
            (feature::GUEST_TSO6, OFFLOAD_TSO6),
        ] {
            if features & feature != 0 {
                flags |= flag;
            }
        }
        ioctl::set_offload(fd, flags)
    }

    /// Turns a queue of a tap on or off, if it has several.
    pub(crate) fn set_queue(fd: impl AsFd, on: bool) -> io::Result<()> {
        ioctl::set_queue(fd, on)
    }

    /// Drops the frames that wait in a queue of a tap, at most as many as one holds (`txqueuelen`,
    /// 500 or 1000).
    pub(crate) fn drain(fd: impl AsFd) {
        const MOST: u32 = 1024;
        for _ in 0..MOST {
            // What does not fit of a frame is dropped with it; its header has to.
            if rustix::io::read(&fd, &mut [0; 64]).is_err() {
                break;
            }
        }
    }

    /// A queue that is turned on.
    fn new(fd: OwnedFd, multi_queue: bool) -> Self {
        Self { fd, multi_queue, enabled: true }
    }

    /// Returns `true` if the tap has several queues.
    pub(crate) fn is_multi_queue(&self) -> bool {
        self.multi_queue
    }
}

fn open_queue(name: &str, several: bool) -> Result<Tap, Error> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let open = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun");
    let fd = OwnedFd::from(open.map_err(Error::OpenTun)?);
    let base = ioctl::TAP | ioctl::VNET_HDR;
    let mut multi_queue = several;
    let mut attached =
        ioctl::attach(&fd, name, base | if several { ioctl::MULTI_QUEUE } else { 0 });
    // A tap that was made for several queues can be used with one.
    if !several && matches!(&attached, Err(error) if error.raw_os_error() == Some(libc::EINVAL)) {
        multi_queue = true;
        attached = ioctl::attach(&fd, name, base | ioctl::MULTI_QUEUE);
    }
    attached.map_err(|source| Error::Tap {
        name: name.to_owned(),
        refusal: TapRefusal::of(&source, several),
        source,
    })?;
    let tap = Tap::new(fd, multi_queue);
    tap.set_header()?;
    Ok(tap)
}

fn any_socket() -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::host("making a socket"))
}

/// Sets the largest packet if it is to be another, and returns it.
fn settle_mtu(socket: &OwnedFd, name: &str, wanted: Option<u16>) -> Result<u16, Error> {
    let current = ioctl::mtu(socket, name).map_err(Error::host("asking for the MTU of a tap"))?;
    let current = u16::try_from(current).unwrap_or(u16::MAX);
    let Some(mtu) = wanted.filter(|mtu| *mtu != current) else { return Ok(current) };
    ioctl::set_mtu(socket, name, mtu.into()).map_err(|source| Error::Mtu {
        name: name.to_owned(),
        mtu,
        source,
    })?;
    Ok(mtu)
}

impl Backend for Tap {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn set_stream(&mut self, is_stream: bool) {
        thread::set_sched_batch(is_stream);
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        vectors::write(&self.fd, &[], ram, pieces, 0).map(drop)
    }

    fn merges(&self) -> bool {
        true
    }

    fn send_built(&mut self, headers: &[u8], ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        vectors::write(&self.fd, headers, ram, pieces, 0).map(drop)
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        vectors::read(&self.fd, ram, room, spill)
    }

    fn discard(&mut self) {
        Self::drain(&self.fd);
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        // A queue that is turned off takes no settings; all queues of a tap share this one.
        if self.enabled { Self::set_offloads(&self.fd, features) } else { Ok(()) }
    }

    fn set_enabled(&mut self, enabled: bool) -> io::Result<()> {
        if self.multi_queue && self.enabled != enabled {
            Self::set_queue(&self.fd, enabled)?;
            self.enabled = enabled;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn frames_that_came_too_early_are_dropped() {
        let (tap, host) = UnixDatagram::pair().unwrap();
        tap.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            host.send(&[7; 100]).unwrap();
        }
        let mut tap = Tap::new(tap.into(), false);
        tap.discard();
        let none = rustix::io::read(&tap.fd, &mut [0; 1]);
        assert_eq!(none, Err(rustix::io::Errno::AGAIN));
    }
}
