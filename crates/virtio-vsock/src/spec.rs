//! Identifier and socket of a device, as a user writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a socket in bytes: with `_`, a port of ten digits and a zero byte it is one
/// of unix(7).
pub const MAX_PATH: usize = 96;

/// A socket device that is asked for: `cid=N,socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Context identifier of the guest.
    pub cid: Cid,
    /// Path of the Unix socket that clients connect to.
    pub socket: PathBuf,
}

/// Context identifier of a guest: not one of those that virtio 1.2, 5.10.4 reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cid(u32);

impl Cid {
    /// The identifier `number`, unless it is reserved.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number > 2 && number < u32::MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A text does not describe a socket device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A part is missing.
    #[error("`{0}` is not of the form cid=N,socket=PATH")]
    Missing(String),
    /// There is no such option.
    #[error(
        "`{0}` is no option of a vsock device: there are cid=N and socket=PATH (a path cannot have a comma in it)"
    )]
    Option(String),
    /// The identifier is none.
    #[error("`{0}` is no context identifier of a guest (expected 3 to 4294967294)")]
    Cid(String),
    /// The path is too long.
    #[error("the path `{}` of a socket has more than {MAX_PATH} bytes", .0.display())]
    Path(PathBuf),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (mut cid, mut socket) = (None, None);
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("cid", number)) => {
                    let parsed = number.parse().ok().and_then(Cid::new);
                    cid = Some(parsed.ok_or_else(|| SpecError::Cid(number.to_owned()))?);
                }
                Some(("socket", path)) if path.len() > MAX_PATH => {
                    return Err(SpecError::Path(path.into()));
                }
                Some(("socket", path)) if !path.is_empty() => socket = Some(path.into()),
                _ => return Err(SpecError::Option(word.to_owned())),
            }
        }
        match (cid, socket) {
            (Some(cid), Some(socket)) => Ok(Self { cid, socket }),
            _ => Err(SpecError::Missing(text.to_owned())),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cid={},socket={}", self.cid.get(), self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_an_identifier_and_a_socket() {
        for (text, cid) in
            [("cid=3,socket=/run/v.sock", 3), ("socket=v=1,cid=4294967294", u32::MAX - 1)]
        {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.cid.get(), cid);
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        let long = format!("cid=3,socket={}", "x".repeat(MAX_PATH + 1));
        for (text, expected) in [
            ("", "`` is no option"),
            ("cid=3", "`cid=3` is not of the form cid=N,socket=PATH"),
            ("socket=v", "`socket=v` is not of the form"),
            ("cid=3,socket=", "`socket=` is no option"),
            ("cid=3,path=v", "`path=v` is no option"),
            ("cid=0,socket=v", "`0` is no context identifier"),
            ("cid=2,socket=v", "`2` is no context identifier"),
            ("cid=4294967295,socket=v", "`4294967295` is no"),
            ("cid=4294967299,socket=v", "`4294967299` is no"),
            ("cid=x,socket=v", "`x` is no context identifier"),
            (long.as_str(), "more than 96 bytes"),
        ] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
