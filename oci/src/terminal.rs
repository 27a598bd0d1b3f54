//! A terminal for the guest, the controlling side of which goes to the engine.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result};
use oci_spec::runtime::Box as Size;
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Makes a terminal, sends its controlling side to the Unix socket at `socket`, and returns the
/// other side.
///
/// # Errors
/// If the host has no terminal left, or no engine listens at the socket.
pub fn make(socket: &Path, size: Option<Size>) -> Result<OwnedFd> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context("terminal")?;
    grantpt(&controller).context("terminal")?;
    unlockpt(&controller).context("terminal")?;
    let name = ptsname(&controller, Vec::new()).context("terminal")?;
    if let Some(size) = size {
        let cells = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        let (ws_row, ws_col) = (cells(size.height()), cells(size.width()));
        tcsetwinsize(&controller, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })
            .context("terminal")?;
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty())
        .with_context(|| name.to_string_lossy().into_owned())?;
    send(socket, &controller, name.as_bytes())
        .with_context(|| format!("console socket {}", socket.display()))?;
    Ok(terminal)
}

fn send(socket: &Path, controller: &OwnedFd, name: &[u8]) -> Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [controller.as_fd()];
    anyhow::ensure!(
        ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
        "no space for a descriptor"
    );
    sendmsg(&stream, &[IoSlice::new(name)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
