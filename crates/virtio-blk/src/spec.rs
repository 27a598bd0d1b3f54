//! Which file is a disk, and how, as a user writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest serial number in bytes (virtio 1.2, 5.2.6).
pub const MAX_SERIAL: usize = 20;

/// A disk that is asked for: `PATH[,ro][,serial=TEXT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The file or block device.
    pub path: PathBuf,
    /// `true` if the guest can only read it.
    pub read_only: bool,
    /// Serial number; `None` for the file's name.
    pub serial: Option<String>,
}

/// A text does not say which file is a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no path.
    #[error("`{0}` names no file: a disk is given as PATH[,ro][,serial=TEXT]")]
    NoPath(String),
    /// There is no such option.
    #[error(
        "`{0}` is no option of a disk: there are ro, rw and serial=TEXT (a path cannot have a comma in it)"
    )]
    Option(String),
    /// A serial number is too long.
    #[error("the serial number `{0}` has more than 20 bytes")]
    Serial(String),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split(',');
        let path = words.next().filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| SpecError::NoPath(text.to_owned()))?;
        let mut spec = Self { path: PathBuf::from(path), read_only: false, serial: None };
        for word in words {
            match (word, word.strip_prefix("serial=")) {
                ("ro", _) => spec.read_only = true,
                ("rw", _) => spec.read_only = false,
                (_, Some(serial)) if serial.len() > MAX_SERIAL => {
                    return Err(SpecError::Serial(serial.to_owned()));
                }
                (_, Some(serial)) => spec.serial = Some(serial.to_owned()),
                _ => return Err(SpecError::Option(word.to_owned())),
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.read_only {
            f.write_str(",ro")?;
        }
        self.serial.as_ref().map_or(Ok(()), |serial| write!(f, ",serial={serial}"))
    }
}

impl Spec {
    /// The serial number: the one that was given, or the beginning of the file's name.
    #[must_use]
    pub fn serial_bytes(&self) -> [u8; MAX_SERIAL] {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = self.serial.clone().or(name).unwrap_or_default();
        let mut bytes = [0; MAX_SERIAL];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_what_follows_it() {
        let spec: Spec = "/a/b.img".parse().unwrap();
        assert_eq!(
            (spec.path.to_str(), spec.read_only, &spec.serial),
            (Some("/a/b.img"), false, &None)
        );
        assert_eq!(&spec.serial_bytes()[..6], b"b.img\0");
        let spec: Spec = "x,ro,serial=s1".parse().unwrap();
        assert!(spec.read_only);
        assert_eq!(&spec.serial_bytes()[..3], b"s1\0");
        assert_eq!(spec.to_string(), "x,ro,serial=s1");
        assert_eq!("x,ro,rw".parse::<Spec>().unwrap().to_string(), "x");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["", ",ro"] {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::NoPath(_))), "{text}");
        }
        for text in ["x,", "x,readonly", "x,ro=1"] {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::Option(_))), "{text}");
        }
        let long = "x,serial=123456789012345678901";
        assert!(matches!(long.parse::<Spec>(), Err(SpecError::Serial(_))));
    }
}
