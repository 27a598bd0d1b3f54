//! Descriptors that travel with the bytes of a request (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Maximum number of descriptors that a client can have sent without a request that takes them.
pub(crate) const MAX_DESCRIPTORS: usize = 3;

/// Reads bytes, and puts the descriptors that come with them into `descriptors`; those beyond
/// [`MAX_DESCRIPTORS`] are closed.
pub(crate) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // The kernel closes those for which there is no room.
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(new) = message {
            descriptors.extend(new);
        }
    }
    descriptors.truncate(MAX_DESCRIPTORS);
    Ok(received.bytes)
}

/// Writes `bytes` with `descriptors`. Returns the number of bytes that were written, at least one.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>; MAX_DESCRIPTORS],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_travel_with_their_bytes() {
        let (client, server) = UnixStream::pair().unwrap();
        let mut files = [(); 3].map(|()| tempfile::tempfile().unwrap());
        (&files[2]).write_all(b"third").unwrap();
        let borrowed = files.each_ref().map(|file| file.as_fd());
        assert_eq!(send(&client, b"request\n", &borrowed).unwrap(), 8);
        let (mut bytes, mut received) = ([0; 64], Vec::new());
        assert_eq!(receive(&server, &mut bytes, &mut received).unwrap(), 8);
        let mut third = File::from(received.pop().unwrap());
        third.rewind().unwrap();
        let mut text = String::new();
        third.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), received.len()), ("third", 2));
        files[0].rewind().unwrap();
    }

    #[test]
    fn a_client_cannot_fill_the_table_of_descriptors() {
        let (client, server) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut received = Vec::new();
        for _ in 0..5 {
            send(&client, b"x", &[file.as_fd(); 3]).unwrap();
            receive(&server, &mut [0; 8], &mut received).unwrap();
            assert!(received.len() <= MAX_DESCRIPTORS);
        }
        drop(client);
        assert_eq!(receive(&server, &mut [0; 8], &mut received).unwrap(), 0);
    }
}
