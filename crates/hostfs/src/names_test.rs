use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

impl Names {
    /// All entries of a directory.
    fn list(&self, path: &[u8]) -> Vec<Entry> {
        let mut last: Option<Vec<u8>> = None;
        let pages = std::iter::from_fn(|| {
            let page = self.page(path, last.as_deref());
            last = Some(page.last()?.name.clone());
            Some(page)
        });
        pages.flatten().collect()
    }
}

fn names_in(names: &Names, path: &str) -> Vec<String> {
    let entries = names.list(path.as_bytes());
    entries.iter().skip(2).map(|entry| String::from_utf8(entry.name.clone()).unwrap()).collect()
}

fn mount_point() -> Node {
    Node::MountPoint(file_type::DIRECTORY)
}

#[test]
fn directories_above_mount_points_are_listed() {
    let mut names = Names::new(0);
    for path in ["/a/b", "/a/b-x", "/a/b.y/z", "/a/b0", "/c"] {
        names.add_fixed(path.as_bytes(), mount_point()).unwrap();
    }
    assert_eq!(names_in(&names, ""), ["a", "c"]);
    assert_eq!(names_in(&names, "/a"), ["b", "b-x", "b.y", "b0"]);
    assert_eq!(names_in(&names, "/a/b.y"), ["z"]);
    assert_eq!(names_in(&names, "/a/b"), [""; 0]);
    let dots = names.list(b"/a");
    assert_eq!((&dots[0].name[..], &dots[1].name[..]), (&b"."[..], &b".."[..]));
    assert_eq!((dots[0].inode, dots[1].inode), (names.get(b"/a", true).unwrap().inode, 1));
}

#[test]
fn only_outermost_directories_have_to_be_mounted() {
    let mut names = Names::new(10);
    names.add_fixed(b"/b", Node::MountPoint(file_type::REGULAR_FILE)).unwrap();
    names.add_fixed(b"/data/inner", mount_point()).unwrap();
    names.add_fixed(b"/data", mount_point()).unwrap();
    names.add_fixed(b"/database", mount_point()).unwrap();
    names.add_fixed(b"/etc/x/file", Node::MountPoint(file_type::REGULAR_FILE)).unwrap();
    assert_eq!(names.outermost(), [&b"/data"[..], b"/etc/x", b"/database"]);
}

#[test]
fn what_the_guest_creates_is_counted() {
    let directory = || Node::Directory { mode: 0o700 };
    let mut names = Names::new(3);
    assert_eq!(names.create(b"/a/b/c/d", directory()).unwrap_err(), ENOSPC);
    assert_eq!(names_in(&names, ""), [""; 0]);
    names.create(b"/a/b", directory()).unwrap();
    assert_eq!(names.create(b"/a", directory()).unwrap_err(), EEXIST);
    assert_eq!(names.create(b"", directory()).unwrap_err(), EEXIST);
    names.create(b"/c", directory()).unwrap();
    assert_eq!(names.create(b"/d", directory()).unwrap_err(), ENOSPC);
    assert_eq!(names.remove(b"/c", false).unwrap_err(), EISDIR);
    assert_eq!(names.remove(b"/x", false).unwrap_err(), ENOENT);
}

#[test]
fn an_image_of_deep_names_is_refused() {
    let mut names = Names::new(0);
    let deep = |number: u32| format!("/{number}{}", "/a".repeat(2000)).into_bytes();
    let added = (0..100)
        .take_while(|&number| names.add_fixed(&deep(number), mount_point()).is_ok())
        .count();
    assert!((30..50).contains(&added), "{added}");
}

/// Steps of walks are bounded by the lengths of paths, so that an image with many directories or
/// deep ones takes no longer to look at than its names are long.
#[test]
fn directories_are_found_in_one_walk() {
    let mut names = Names::new(0);
    let file = || Node::MountPoint(file_type::REGULAR_FILE);
    for number in 0..35_000 {
        names.add_fixed(format!("/{number}/file").as_bytes(), file()).unwrap();
    }
    let found = names.outermost();
    let bytes: usize = found.iter().map(Vec::len).sum();
    assert!((MAX_OUTERMOST - 10..=MAX_OUTERMOST).contains(&bytes), "{bytes}");
    assert!(found.len() > 10_000 && found.iter().all(|path| names.directory(path).is_some()));

    // Below one directory with a file, nothing is looked at.
    let mut names = Names::new(0);
    for number in 0..35_000 {
        names.add_fixed(format!("/all/{number}/file").as_bytes(), file()).unwrap();
    }
    names.add_fixed(b"/all/file", file()).unwrap();
    assert_eq!(names.outermost(), [b"/all"]);
}

proptest! {
    /// A listing has each first name below a directory once, whatever bytes are in it.
    #[test]
    fn listings_agree_with_a_set(
        paths in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(prop_oneof![43_u8..=45, 48_u8..=50, Just(255)], 1..3), 1..4),
            0..30,
        ),
    ) {
        let mut names = Names::new(1000);
        let mut made: BTreeSet<Vec<Vec<u8>>> = BTreeSet::new();
        for path in paths {
            let key: Vec<u8> = path.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
            if names.create(&key, Node::Directory { mode: 0o755 }).is_ok() {
                for length in 1..=path.len() {
                    made.insert(path[..length].to_vec());
                }
            }
        }
        let directories: Vec<Vec<Vec<u8>>> = std::iter::once(Vec::new()).chain(made.iter().cloned()).collect();
        for directory in directories {
            let key: Vec<u8> = directory.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
            let listed: Vec<Vec<u8>> = names.list(&key).into_iter().skip(2).map(|entry| entry.name).collect();
            let mut expected: Vec<Vec<u8>> = made
                .iter()
                .filter(|path| path.len() == directory.len() + 1 && path.starts_with(&directory))
                .map(|path| path[directory.len()].clone())
                .collect();
            expected.sort();
            let mut sorted = listed;
            sorted.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
