//! Source and destination of frames.

use std::io;
use std::os::fd::BorrowedFd;

use nerite_memory::{AccessError, GuestRam};
use nerite_virtio::{Activation, Event, Segment};

/// Bytes of the header before each frame (5.1.6): `struct virtio_net_hdr_v1`, little-endian.
pub const HEADER: usize = 12;
/// The largest frame with its header: 64 KiB of segments to be cut (5.1.6.3.1 has 65562 for a
/// frame), and some room for tags.
pub const MAX_FRAME: usize = 12 + 65_600;

/// Sends and receives the frames of one queue pair. It never waits: where it would have to, it
/// returns [`io::ErrorKind::WouldBlock`], and [`Backend::fd`] becomes ready later.
///
/// Frames come with their header. A backend that was not offered checksums and segmentation finds
/// zeros there.
pub trait Backend: Send {
    /// Readable when there is a frame, writable when there is room again. Watched edge-triggered.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Sends the frame in `pieces`, header first: [`HEADER`] to [`MAX_FRAME`] bytes, all of them in
    /// RAM.
    ///
    /// # Errors
    /// `WouldBlock` if it must come again later. With any other error the frame is dropped.
    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()>;

    /// Called on the thread that drives it each time that frames were sent: whether they were part
    /// of a stream (full segments, of which more are likely to follow at once). For how that thread
    /// is to be scheduled, so it should cost nothing if it was so before.
    fn set_stream(&mut self, _is_stream: bool) {}

    /// `true` if it takes TCP segments that are still to be cut (5.1.6.2) from this side, whatever
    /// the driver does. Then frames of one connection that follow each other come as one, through
    /// [`Self::send_built`].
    fn merges(&self) -> bool {
        false
    }

    /// Sends a frame that begins with `headers`, virtio's first, and continues with `pieces`. Only
    /// called if [`Self::merges`].
    ///
    /// # Errors
    /// As of [`Self::send`].
    fn send_built(
        &mut self,
        _headers: &[u8],
        _ram: &GuestRam,
        _pieces: &[Segment],
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Receives a frame into `room`, header first, and what does not fit there into `spill`;
    /// `num_buffers` is left to the caller. Returns its length with header. What fits nowhere is
    /// lost, and the length is then more than both together, or as much.
    ///
    /// # Errors
    /// `WouldBlock` if there is no frame. With any other error nothing was received, and it is
    /// tried again when there is more.
    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize>;

    /// `true` if there are frames to receive without [`Self::fd`] having become readable: what was
    /// sent has been answered at once.
    fn has_frames(&self) -> bool {
        false
    }

    /// Gets out what was sent and kept back. Called after a batch of frames.
    ///
    /// # Errors
    /// `WouldBlock` if not all could be; it is called again when there is room.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Drops the frames that came before the card had a driver. Without one, a physical NIC
    /// receives nothing, and drivers exist that stumble over frames before they are through with
    /// their start (Hermit 0.13.2).
    fn discard(&mut self) {}

    /// The features the driver accepted, before the first frame.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn set_features(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    /// Enables or disables this pair, as the driver asks. Pairs other than the first are disabled
    /// at first.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn set_enabled(&mut self, _enabled: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Works on the queues by itself: the host's kernel, for example.
///
/// Interrupts of the queues go through [`nerite_virtio::Notifier::queue_event`] where that is
/// there, and otherwise through the events in `calls`, by queue, which the card's thread passes on.
/// Where the driver breaks a rule, the engine signals `broken`: the card then takes the queues
/// back, and needs a reset.
pub trait Engine: Send {
    /// Takes over the queue pairs of `activation`.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn start(&mut self, activation: &Activation, calls: &[Event], broken: &Event)
    -> io::Result<()>;

    /// Stops work on the queues: when this returns, they are no longer touched.
    fn stop(&mut self);

    /// Index in the available ring at which a queue in use resumes. Called while the queues rest.
    ///
    /// # Errors
    /// If the host cannot do it, or the queue is not in use.
    fn next_available(&mut self, queue: u16) -> io::Result<u16>;

    /// Sets whether the queues rest because the card may not access memory; at first they do not.
    /// When this returns `Ok(())` for `true`, they are no longer touched, and with `false` they go
    /// on where they were. Also called while the queues are not the engine's.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn set_paused(&mut self, paused: bool) -> io::Result<()>;

    /// Sets the link up or down; it is up at first. While it is down, no frame goes through. Also
    /// called while the queues are not the engine's.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn set_link(&mut self, _up: bool) -> io::Result<()> {
        Ok(())
    }

    /// Sets the number of pairs that the driver uses.
    ///
    /// # Errors
    /// If the host cannot do it.
    fn set_pairs(&mut self, _pairs: u16) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `bytes` at `offset` into the room that `pieces` make together. What does not fit is left
/// out.
///
/// # Errors
/// If a piece is not in RAM.
pub fn write_across(
    ram: &GuestRam,
    pieces: &[Segment],
    offset: u64,
    bytes: &[u8],
) -> Result<(), AccessError> {
    let mut skip = offset;
    let mut rest = bytes;
    for piece in pieces {
        let room = u64::from(piece.length).saturating_sub(skip);
        if room > 0 {
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            ram.write(piece.address.saturating_add(skip), now)?;
            rest = later;
        }
        skip = skip.saturating_sub(piece.length.into());
        if rest.is_empty() {
            break;
        }
    }
    Ok(())
}
