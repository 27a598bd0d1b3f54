//! A backend whose cable is out.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use nerite_memory::GuestRam;
use nerite_virtio::Segment;

use crate::backend::Backend;

/// Takes frames from both sides, and drops them.
pub(super) struct Unplugged<'a>(pub(super) &'a mut dyn Backend);

impl Backend for Unplugged<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn send(&mut self, _: &GuestRam, _: &[Segment]) -> io::Result<()> {
        Err(ErrorKind::NotConnected.into())
    }

    fn send_built(&mut self, _: &[u8], _: &GuestRam, _: &[Segment]) -> io::Result<()> {
        Err(ErrorKind::NotConnected.into())
    }

    fn receive(&mut self, ram: &GuestRam, _: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        // What is shorter than a header is no frame.
        self.0.receive(ram, &[], spill).map(|_| 0)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
