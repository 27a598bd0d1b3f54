//! Protocol between the lab and the host, on the lab's second serial port.
//!
//! The lab sends frames: a header line `@nerite KIND JOB LENGTH`, then LENGTH bytes as they are.
//! The port is in raw mode and has one writer, so nothing needs escaping; what stands before the
//! first header (firmware chatter) is skipped. After `ready` and each `end` it waits for a line of
//! the host's: the number of the job to run next, or `done`.

use std::io::{self, BufRead, Write};

const MAGIC: &str = "@nerite";
const DONE: &str = "done";
/// No frame carries more; a longer one is a broken line.
const MAX_PAYLOAD: usize = 64 << 10;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The lab is up; the payload is its kernel release.
    Ready,
    /// The job started.
    Start,
    /// The job wrote this to standard output.
    Out,
    /// The job wrote this to standard error.
    Err,
    /// The job ended; the payload is a `wire::End` in TOML.
    End,
    /// Nothing new, but the lab is alive.
    Beat,
    /// It was told that there is nothing more to run.
    Done,
}

const NAMES: [(Kind, &str); 7] = [
    (Kind::Ready, "ready"),
    (Kind::Start, "start"),
    (Kind::Out, "out"),
    (Kind::Err, "err"),
    (Kind::End, "end"),
    (Kind::Beat, "beat"),
    (Kind::Done, "done"),
];

/// One message from the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Index into the list of jobs; 0 where the kind has none.
    pub(crate) job: usize,
    pub(crate) payload: Vec<u8>,
}

/// The payload of [`Kind::End`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct End {
    pub(crate) ending: crate::job::Ending,
    pub(crate) milliseconds: u64,
}

/// Tells the lab which job to run, or that there is none.
pub(crate) fn tell(to: &mut impl Write, job: Option<usize>) -> io::Result<()> {
    match job {
        Some(job) => writeln!(to, "{job}")?,
        None => writeln!(to, "{DONE}")?,
    }
    to.flush()
}

/// Waits until the host says which job to run; `None` if there is nothing more.
pub(crate) fn next_job(from: &mut impl BufRead) -> io::Result<Option<usize>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    match line.trim() {
        DONE => Ok(None),
        number => {
            number.parse().map(Some).map_err(|_| io::Error::other(format!("{number:?} is no job")))
        }
    }
}

/// Writes one message, in several frames where the payload is long.
pub(crate) fn write(to: &mut impl Write, kind: Kind, job: usize, payload: &[u8]) -> io::Result<()> {
    let name = NAMES.iter().find(|(k, _)| *k == kind).map_or("beat", |(_, name)| name);
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        writeln!(to, "{MAGIC} {name} {job} {}", now.len())?;
        to.write_all(now)?;
        if later.is_empty() {
            return to.flush();
        }
        rest = later;
    }
}

/// Reads the next frame; `None` at the end of the line.
pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Frame>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if let Some((kind, job, length)) = header(&line) {
            let mut payload = vec![0; length];
            from.read_exact(&mut payload)?;
            return Ok(Some(Frame { kind, job, payload }));
        }
    }
}

fn header(line: &[u8]) -> Option<(Kind, usize, usize)> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    // Firmware may have left the cursor in the middle of a line.
    let mut words = line.get(line.find(MAGIC)?..)?.split(' ').skip(1);
    let name = words.next()?;
    let kind = NAMES.iter().find(|(_, n)| *n == name)?.0;
    let job = words.next()?.parse().ok()?;
    let length = words.next()?.parse().ok().filter(|length| *length <= MAX_PAYLOAD)?;
    Some((kind, job, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_line() {
        let mut line = b"SeaBIOS (version 1.16)\r\n\r\nbooting".to_vec();
        let tricky = b"\n@nerite end 3 7\n\0\xff".to_vec();
        write(&mut line, Kind::Ready, 0, b"6.1").unwrap();
        write(&mut line, Kind::Out, 3, &tricky).unwrap();
        write(&mut line, Kind::Done, 0, b"").unwrap();
        let mut from = line.as_slice();
        let frame =
            |kind, job, payload: &[u8]| Some(Frame { kind, job, payload: payload.to_vec() });
        assert_eq!(read(&mut from).unwrap(), frame(Kind::Ready, 0, b"6.1"));
        assert_eq!(read(&mut from).unwrap(), frame(Kind::Out, 3, &tricky));
        assert_eq!(read(&mut from).unwrap(), frame(Kind::Done, 0, b""));
        assert_eq!(read(&mut from).unwrap(), None);
    }

    #[test]
    fn long_payloads_are_cut() {
        let mut line = Vec::new();
        let long = vec![b'x'; MAX_PAYLOAD + 10];
        write(&mut line, Kind::Err, 1, &long).unwrap();
        let mut from = line.as_slice();
        let first = read(&mut from).unwrap().unwrap();
        let second = read(&mut from).unwrap().unwrap();
        assert_eq!((first.payload.len(), second.payload.len()), (MAX_PAYLOAD, 10));
        assert_eq!(read(&mut from).unwrap(), None);
    }

    #[test]
    fn the_lab_is_told_what_to_do() {
        let mut line = Vec::new();
        tell(&mut line, Some(12)).unwrap();
        tell(&mut line, None).unwrap();
        let mut from = line.as_slice();
        assert_eq!(next_job(&mut from).unwrap(), Some(12));
        assert_eq!(next_job(&mut from).unwrap(), None);
        assert!(next_job(&mut from).is_err());
    }

    #[test]
    fn a_line_cut_short_is_an_error() {
        assert!(read(&mut b"@nerite out 0 100\nabc".as_slice()).is_err());
    }
}
