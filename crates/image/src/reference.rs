//! Names of images: `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Kind of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A tar archive of one.
    Archive,
}

/// Name of an image in a layout.
///
/// The path ends at the first colon, as it does for podman and skopeo; a tag can have colons and
/// slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Kind of the layout.
    pub kind: Kind,
    /// Path of the layout.
    pub path: PathBuf,
    /// Tag of the image, if it is named.
    pub tag: Option<String>,
}

/// The name of an image is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The path is empty.
    #[error("the path of the image layout is empty")]
    NoPath,
    /// The tag is empty, or not UTF-8.
    #[error("the tag of the image is empty or not UTF-8")]
    BadTag,
}

const KINDS: [(&[u8], Kind); 2] = [(b"oci:", Kind::Directory), (b"oci-archive:", Kind::Archive)];

impl Reference {
    /// Reads a name, if it begins like one.
    ///
    /// # Errors
    /// If the path or the tag is not usable.
    pub fn parse(name: &OsStr) -> Option<Result<Self, ReferenceError>> {
        let (rest, kind) = KINDS
            .into_iter()
            .find_map(|(prefix, kind)| Some((name.as_bytes().strip_prefix(prefix)?, kind)))?;
        let mut parts = rest.splitn(2, |&byte| byte == b':');
        let path = parts.next().unwrap_or_default();
        if path.is_empty() {
            return Some(Err(ReferenceError::NoPath));
        }
        let tag = match parts.next().map(std::str::from_utf8) {
            None => None,
            Some(Ok(tag)) if !tag.is_empty() => Some(tag.to_owned()),
            Some(_) => return Some(Err(ReferenceError::BadTag)),
        };
        Some(Ok(Self { kind, path: OsStr::from_bytes(path).into(), tag }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Kind, String, Option<String>);

    fn parse(name: &str) -> Option<Result<Parts, ReferenceError>> {
        let parsed = Reference::parse(name.as_ref())?;
        Some(parsed.map(|it| (it.kind, it.path.to_str().unwrap().to_owned(), it.tag)))
    }

    #[test]
    fn names_have_a_path_and_perhaps_a_tag() {
        let own = |path: &str, tag: Option<&str>| (path.to_owned(), tag.map(str::to_owned));
        for (name, kind, path, tag) in [
            ("oci:a/b", Kind::Directory, "a/b", None),
            ("oci:a:b", Kind::Directory, "a", Some("b")),
            ("oci:a:localhost/b:1", Kind::Directory, "a", Some("localhost/b:1")),
            ("oci-archive:a.tar:b", Kind::Archive, "a.tar", Some("b")),
        ] {
            let (path, tag) = own(path, tag);
            assert_eq!(parse(name), Some(Ok((kind, path, tag))), "{name}");
        }
        for other in ["hello", "oci", "docker:a", "./oci:a", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse("oci:"), Some(Err(ReferenceError::NoPath)));
        assert_eq!(parse("oci::x"), Some(Err(ReferenceError::NoPath)));
        assert_eq!(parse("oci:a:"), Some(Err(ReferenceError::BadTag)));
    }
}
