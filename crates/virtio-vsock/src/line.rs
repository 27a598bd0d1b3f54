//! The line by which a client says which port of the guest it wants.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Bytes of the longest line, `CONNECT 4294967295` with its end.
pub(crate) const LINE: usize = 19;

/// Result of reading a client's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// There is more to come.
    Partial,
    /// The client wants this port of the guest.
    Port(u32),
    /// It is none, or the client is gone.
    Bad,
}

/// Reads the rest of a line one byte after the other, so that what follows it stays.
pub(crate) fn read(socket: &OwnedFd, line: &mut Vec<u8>) -> Line {
    while line.len() < LINE {
        let mut byte = [0];
        match rustix::io::read(socket, &mut byte) {
            Err(Errno::AGAIN) => return Line::Partial,
            Err(Errno::INTR) => {}
            Ok(1) if byte == *b"\n" => return parse(line).map_or(Line::Bad, Line::Port),
            Ok(1) => line.extend(byte),
            _ => return Line::Bad,
        }
    }
    Line::Bad
}

/// The port that a client wants: `CONNECT`, in any case, and a decimal number.
fn parse(line: &[u8]) -> Option<u32> {
    let (word, port) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number);
    port.filter(|_| word.eq_ignore_ascii_case("connect"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn lines_are_a_word_and_a_port() {
        for (line, port) in [
            ("CONNECT 52", Some(52)),
            ("connect 4294967295", Some(u32::MAX)),
            ("CONNECT 4294967296", None),
            ("CONNECT +5", None),
            ("CONNECT ", None),
            ("CONNECT", None),
            ("CONNECT  5", None),
            ("CONNECT 5 ", None),
            ("CONNECT 5\r", None),
            ("CONNECTS 5", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()), port, "{line}");
        }
        assert_eq!(parse(b"CONNECT \xff"), None);
    }

    #[test]
    fn a_line_that_is_too_long_or_ends_early_is_bad() {
        let (ours, mut client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (ours, mut line) = (OwnedFd::from(ours), Vec::new());
        client.write_all(&[b'1'; LINE - 1]).unwrap();
        assert_eq!(read(&ours, &mut line), Line::Partial);
        client.write_all(b"1").unwrap();
        assert_eq!(read(&ours, &mut line), Line::Bad);
        drop(client);
        assert_eq!(read(&ours, &mut Vec::new()), Line::Bad);
    }
}
