//! Guest paths.

use nerite_hypercall::errno::{EINVAL, ENAMETOOLONG, ENOENT};

/// The longest path in bytes (Linux `PATH_MAX` without its zero byte).
pub const PATH_MAX: usize = 4095;
/// The longest name in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// A guest path without `.`, `..` and doubled slashes, seen from the guest's root.
///
/// `..` is taken away together with the name before it, as `cd` in a shell does it, without looking
/// whether that name is a symbolic link; at the root it stays at the root. A path that does not
/// start with a slash starts at the root as well: the guest's working directory is known only to
/// the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPath {
    /// Each name with a slash before it, so the root is empty.
    bytes: Vec<u8>,
    directory: bool,
}

impl GuestPath {
    /// Takes a path as the guest gave it.
    ///
    /// # Errors
    /// `ENOENT` if it is empty, `ENAMETOOLONG` if it or one of its names is too long, `EINVAL` if
    /// it has a zero byte.
    pub fn parse(raw: &[u8]) -> Result<Self, i32> {
        if raw.is_empty() {
            return Err(ENOENT);
        }
        if raw.len() > PATH_MAX {
            return Err(ENAMETOOLONG);
        }
        if raw.contains(&0) {
            return Err(EINVAL);
        }
        let mut bytes = Vec::with_capacity(raw.len().saturating_add(1));
        let mut directory = false;
        for name in raw.split(|&byte| byte == b'/') {
            directory = matches!(name, b"" | b"." | b"..");
            match name {
                b"" | b"." => {}
                b".." => bytes.truncate(bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                name if name.len() > NAME_MAX => return Err(ENAMETOOLONG),
                name => {
                    bytes.push(b'/');
                    bytes.extend_from_slice(name);
                }
            }
        }
        Ok(Self { bytes, directory })
    }

    /// The path with a slash before each name; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns `true` if it can name only a directory, because it ends with a slash, `.` or `..`.
    #[must_use]
    pub const fn must_be_directory(&self) -> bool {
        self.directory
    }

    /// The rest after `base`, with its leading slash, or nothing if it is `base`; `None` if this
    /// path is not below.
    #[must_use]
    pub fn below<'a>(&'a self, base: &[u8]) -> Option<&'a [u8]> {
        let rest = self.bytes.strip_prefix(base)?;
        matches!(rest, [] | [b'/', ..]).then_some(rest)
    }
}

/// The directory a path is in, and its name there; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    Some((path.get(..slash)?, path.get(slash.checked_add(1)?..)?))
}

/// The first name of a path, and what comes after it, with its leading slash; `None` for the root.
pub(crate) fn first(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let names = path.strip_prefix(b"/")?;
    let end = names.iter().position(|&byte| byte == b'/').unwrap_or(names.len());
    names.split_at_checked(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(raw: &str) -> String {
        String::from_utf8(GuestPath::parse(raw.as_bytes()).unwrap().bytes).unwrap()
    }

    #[test]
    fn dots_and_slashes_go_away() {
        for (raw, expected) in [
            ("/", ""),
            ("/a", "/a"),
            ("a/b", "/a/b"),
            ("//a///b//", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/b/../../..", ""),
            ("..", ""),
            ("/...", "/..."),
            ("/..a/.b", "/..a/.b"),
        ] {
            assert_eq!(parsed(raw), expected, "{raw}");
        }
        for (raw, directory) in
            [("/a", false), ("/a/", true), ("/a/.", true), ("/a/..", true), ("/", true)]
        {
            assert_eq!(
                GuestPath::parse(raw.as_bytes()).unwrap().must_be_directory(),
                directory,
                "{raw}"
            );
        }
    }

    #[test]
    fn bad_paths_have_an_error() {
        assert_eq!(GuestPath::parse(b""), Err(ENOENT));
        assert_eq!(GuestPath::parse(b"/a\0b"), Err(EINVAL));
        assert_eq!(GuestPath::parse(&[b'a'; NAME_MAX + 1]), Err(ENAMETOOLONG));
        assert!(GuestPath::parse(&[b'a'; NAME_MAX]).is_ok());
        assert_eq!(GuestPath::parse(&[b'/'; PATH_MAX + 1]), Err(ENAMETOOLONG));
        assert!(GuestPath::parse(&[b'/'; PATH_MAX]).is_ok());
    }

    #[test]
    fn below_respects_whole_names() {
        let path = GuestPath::parse(b"/data/x").unwrap();
        assert_eq!(path.below(b"/data"), Some(&b"/x"[..]));
        assert_eq!(path.below(b"/data/x"), Some(&b""[..]));
        assert_eq!(path.below(b""), Some(&b"/data/x"[..]));
        assert_eq!(path.below(b"/dat"), None);
        assert_eq!(path.below(b"/data/x/y"), None);
    }

    #[test]
    fn paths_split_at_their_names() {
        assert_eq!(split(b"/a/b"), Some((&b"/a"[..], &b"b"[..])));
        assert_eq!(split(b"/a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b""), None);
        assert_eq!(first(b"/a/b"), Some((&b"a"[..], &b"/b"[..])));
        assert_eq!(first(b"/ab"), Some((&b"ab"[..], &b""[..])));
        assert_eq!(first(b""), None);
    }

    /// The same, as a list of names.
    fn model(raw: &[u8]) -> Vec<Vec<u8>> {
        let mut stack = Vec::new();
        for name in raw.split(|&byte| byte == b'/') {
            if name == b".." {
                stack.pop();
            } else if !name.is_empty() && name != b"." {
                stack.push(name.to_vec());
            }
        }
        stack
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_names(
            names in proptest::collection::vec(
                prop_oneof![
                    Just(b"..".to_vec()), Just(b".".to_vec()), Just(Vec::new()), Just(b"a".to_vec()),
                    proptest::collection::vec(1_u8..=255, 0..4),
                ],
                0..20,
            ),
        ) {
            let raw = names.join(&b'/');
            match GuestPath::parse(&raw) {
                Err(errno) => prop_assert!(raw.is_empty() && errno == ENOENT),
                Ok(path) => {
                    let expected: Vec<u8> =
                        model(&raw).iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
                    prop_assert_eq!(path.as_bytes(), &expected[..]);
                    // Once more changes nothing.
                    let again = [b"/", path.as_bytes()].concat();
                    let again = GuestPath::parse(&again).unwrap();
                    prop_assert_eq!(again.as_bytes(), path.as_bytes());
                }
            }
        }

        #[test]
        fn any_bytes_have_an_answer(raw in proptest::collection::vec(any::<u8>(), 0..5000)) {
            if let Ok(path) = GuestPath::parse(&raw) {
                prop_assert!(path.as_bytes().len() <= raw.len() + 1);
                prop_assert!(!path.as_bytes().contains(&0));
            }
        }
    }
}
