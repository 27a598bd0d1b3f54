//! Mounts, as text and as data.

use std::path::PathBuf;

use crate::Error;
use crate::path::GuestPath;

/// Rights of a guest to what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading, writing, creating and removing.
    ReadWrite,
    /// As [`Access::ReadWrite`]; and if a single file is mounted, its name is the guest's, too: the
    /// guest may remove the file, and create it if it does not exist when it is mounted.
    ReadWriteName,
}

/// A file or directory of the host, and where the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file or directory of the host. Links on the way to it are followed.
    pub host: PathBuf,
    /// The guest's path, such as `/data`.
    pub guest: String,
    /// Rights of the guest.
    pub access: Access,
}

impl Mount {
    /// Reads `HOST:GUEST`, `HOST:GUEST:ro` or `HOST:GUEST:rw`. The host path may have colons, the
    /// guest path not.
    ///
    /// ```
    /// use nerite_hostfs::{Access, Mount};
    ///
    /// let mount = Mount::parse("/srv/www:/www:ro", Access::ReadWrite)?;
    /// assert_eq!(
    ///     mount,
    ///     Mount { host: "/srv/www".into(), guest: "/www".into(), access: Access::ReadOnly }
    /// );
    /// # Ok::<(), nerite_hostfs::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Syntax`] if a part is missing, or the guest's path is not absolute.
    pub fn parse(text: &str, default: Access) -> Result<Self, Error> {
        let bad = |reason| Error::Syntax { text: text.to_owned(), reason };
        let (rest, access) = match text.rsplit_once(':') {
            Some((rest, "ro")) => (rest, Access::ReadOnly),
            Some((rest, "rw")) => (rest, Access::ReadWrite),
            _ => (text, default),
        };
        let (host, guest) =
            rest.rsplit_once(':').ok_or_else(|| bad("the guest path is missing"))?;
        if host.is_empty() {
            return Err(bad("the host path is empty"));
        }
        if !guest.starts_with('/') {
            let is_access = rest.len() == text.len()
                && host.rsplit_once(':').is_some_and(|(_, guest)| guest.starts_with('/'));
            return Err(bad(match is_access {
                true => "the access must be ro or rw",
                false => "the guest path must start with a slash",
            }));
        }
        Ok(Self { host: host.into(), guest: guest.to_owned(), access })
    }

    /// The guest path, normalised.
    pub(crate) fn guest_path(&self) -> Result<GuestPath, Error> {
        let bad = |reason| Error::GuestPath {
            host: self.host.clone(),
            guest: self.guest.clone(),
            reason,
        };
        if !self.guest.starts_with('/') {
            return Err(bad("it does not start with a slash"));
        }
        GuestPath::parse(self.guest.as_bytes())
            .map_err(|_| bad("it is too long or has a zero byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, String, Access)> {
        let mount = Mount::parse(text, Access::ReadOnly).ok()?;
        Some((mount.host.to_str().unwrap().to_owned(), mount.guest, mount.access))
    }

    #[test]
    fn mounts_are_read() {
        use Access::{ReadOnly, ReadWrite};
        let some =
            |host: &str, guest: &str, access| Some((host.to_owned(), guest.to_owned(), access));
        assert_eq!(parse("a:/b"), some("a", "/b", ReadOnly));
        assert_eq!(parse("a:/b:rw"), some("a", "/b", ReadWrite));
        assert_eq!(parse("a:b:/c:ro"), some("a:b", "/c", ReadOnly));
        assert_eq!(parse("./rw:/rw"), some("./rw", "/rw", ReadOnly));
        for bad in ["", "a", ":/b", "a:", "a:b", "a:rw", "a:/b:rx", ":rw"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unknown_access_is_named_as_such() {
        let message = |text: &str| Mount::parse(text, Access::ReadOnly).unwrap_err().to_string();
        assert!(message("/tmp:/a:rx").contains("the access must be ro or rw"));
        assert!(message("/tmp:a").contains("must start with a slash"));
        assert!(message("/tmp:a:ro").contains("must start with a slash"));
        assert!(message("/tmp:/b:a:ro").contains("must start with a slash"));
    }
}
