use nerite_loader::{Archive, Limits};
use tar::{Builder, EntryType, Header};

use super::*;

/// Lists of a layer: kind, name, target.
type Layer<'a> = &'a [(char, &'a str, &'a str)];

fn layer(entries: Layer<'_>) -> Archive {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, target) in entries {
        let mut header = Header::new_ustar();
        let bytes = &mut header.as_mut_bytes()[..100];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(match kind {
            'f' => EntryType::Regular,
            'd' => EntryType::Directory,
            'l' => EntryType::Symlink,
            'h' => EntryType::Link,
            _ => EntryType::Char,
        });
        header.set_mode(0o644);
        header.set_size(0);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    Archive::from_tar(builder.into_inner().unwrap(), &Limits::default()).unwrap()
}

fn tree_within(layers: &[Layer<'_>], limits: &Limits) -> Result<Tree, String> {
    let mut tree = Tree::default();
    for (index, entries) in layers.iter().enumerate() {
        let archive = layer(entries);
        tree.apply(index, archive.entries(), limits).map_err(|error| error.to_string())?;
    }
    Ok(tree)
}

/// Names of the tree, with the layer and entry of a file and the target of a link.
fn names(layers: &[Layer<'_>]) -> Result<String, String> {
    let tree = tree_within(layers, &Limits::default())?;
    let lines: Vec<String> = tree
        .iter()
        .map(|(path, node)| {
            let path = String::from_utf8_lossy(path);
            match node {
                Node::Directory => format!("{path}/"),
                Node::File(InLayer { layer, entry }) => format!("{path}={layer}.{entry}"),
                Node::Link(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
            }
        })
        .collect();
    Ok(lines.join(" "))
}

#[test]
fn upper_layers_replace_and_keep() {
    let lower: Layer = &[('d', "./", ""), ('f', "./a/x", ""), ('f', "/a/y", ""), ('d', "b", "")];
    let upper: Layer = &[('d', "a/", ""), ('f', "a/x", ""), ('f', "b", ""), ('l', "c", "a")];
    assert_eq!(names(&[lower]).unwrap(), "a/ a/x=0.1 a/y=0.2 b/");
    assert_eq!(names(&[lower, upper]).unwrap(), "a/ a/x=1.1 a/y=0.2 b=1.2 c>a");
    // A file in place of a directory takes what was in it, and nothing else.
    let beside: Layer = &[('f', "a/x", ""), ('f', "a-", ""), ('f', "a0", "")];
    assert_eq!(names(&[beside, &[('f', "a", "")]]).unwrap(), "a=1.0 a-=0.1 a0=0.2");
}

#[test]
fn whiteouts_are_of_lower_layers() {
    let lower: Layer = &[('f', "a/x", ""), ('f', "a/y", ""), ('f', "b/z/1", "")];
    let white: Layer = &[('f', "a/new", ""), ('f', "a/.wh.x", ""), ('f', ".wh.b", "")];
    assert_eq!(names(&[lower, white]).unwrap(), "a/ a/new=1.0 a/y=0.1");
    // Wherever it stands in its layer, what is in the layer itself stays.
    let opaque: Layer = &[('f', "a/new", ""), ('f', "a/.wh..wh..opq", "")];
    assert_eq!(names(&[lower, opaque]).unwrap(), "a/ a/new=1.0 b/ b/z/ b/z/1=0.2");
    let same: Layer = &[('f', "a/x", ""), ('f', "a/.wh.x", "")];
    assert_eq!(names(&[lower, same]).unwrap(), "a/ a/x=1.0 a/y=0.1 b/ b/z/ b/z/1=0.2");
    let led: Layer = &[('l', "l", "a/.wh.b"), ('f', "l/x", "")];
    assert!(names(&[lower, led]).unwrap_err().contains("the name of a whiteout"));
    let all: Layer = &[('f', ".wh..wh..opq", ""), ('f', "new", "")];
    assert_eq!(names(&[lower, all]).unwrap(), "new=1.1");
    let aufs: Layer = &[('d', ".wh..wh.plnk", ""), ('f', ".wh..wh.plnk/1", "")];
    assert_eq!(names(&[lower, aufs]), names(&[lower]));
    for nothing in [".wh.", ".wh..", ".wh..."] {
        assert!(names(&[lower, &[('f', nothing, "")]]).unwrap_err().contains("of nothing"));
    }
}

#[test]
fn names_do_not_lead_out() {
    for (kind, name) in [('f', "../x"), ('f', "a/../../x"), ('d', ".."), ('f', "a/../.wh.b")] {
        let error = names(&[&[(kind, name, "")]]).unwrap_err();
        assert_eq!(error, format!("entry {name:?}: its path has `..`"));
    }
    assert!(names(&[&[('h', "x", "../etc/passwd")]]).unwrap_err().contains("`..`"));
    assert!(names(&[&[('h', "x", "etc/passwd")]]).unwrap_err().contains("a hard link to what"));
    assert!(names(&[&[('d', "a", ""), ('h', "x", "a")]]).unwrap_err().contains("a hard link"));
    // A link stays below the root, wherever it points to.
    let through: Layer =
        &[('l', "up", "../../.."), ('f', "up/x", ""), ('l', "abs", "/etc"), ('f', "abs/y", "")];
    assert_eq!(names(&[through]).unwrap(), "abs>/etc etc/ etc/y=0.3 up>../../.. x=0.1");
    let tree = tree_within(&[through], &Limits::default()).unwrap();
    assert_eq!(tree.file(b"abs/../up/../etc/y").unwrap().0, b"etc/y");
    assert_eq!(tree.file(b"etc"), None);
}

#[test]
fn links_in_a_circle_and_files_as_directories_are_errors() {
    let circle: Layer = &[('l', "a", "b"), ('l', "b", "a"), ('f', "a/x", "")];
    assert!(names(&[circle]).unwrap_err().contains("too many links"));
    let long = "x/".repeat(45);
    let growing: Layer = &[('l', "x", &long), ('f', "x/y", "")];
    assert!(names(&[growing]).unwrap_err().contains("too many links"));
    let file: Layer = &[('f', "a", ""), ('f', "a/b", "")];
    assert!(names(&[file]).unwrap_err().contains("its directory is none"));
    let linked: Layer = &[('f', "a", ""), ('l', "l", "a"), ('f', "l/b", "")];
    assert!(names(&[linked]).unwrap_err().contains("its directory is none"));
    assert!(names(&[&[('l', "l", "")]]).unwrap_err().contains("a link to nothing"));
}

/// Each of the many whiteouts is a walk through a hundred directories with long names, and adds
/// nothing to the names that are limited.
#[test]
fn work_of_looking_up_paths_is_limited() {
    let mut tree = Tree::default();
    let limits = Limits::default();
    let mut path = Vec::new();
    for _ in 0..100 {
        // No archive has names as long as the last: links make them.
        path = join(&path, &[b'd'; 200]);
        tree.insert(path.clone(), Node::Directory, &limits).unwrap();
    }
    tree.insert(b"link".to_vec(), Node::Link(path), &limits).unwrap();
    let template = layer(&[('f', "x", "")]).entries()[0].clone();
    let whiteouts = |names: std::ops::Range<usize>| -> Vec<Entry> {
        let all = names.map(|number| {
            let mut entry = template.clone();
            entry.name = format!("link/.wh.{number}").into_bytes();
            entry
        });
        all.collect()
    };
    tree.apply(0, &whiteouts(0..50), &limits).unwrap();
    let error = tree.apply(1, &whiteouts(0..10_000), &limits).unwrap_err().to_string();
    assert!(error.contains("too many links or directories on the way"), "{error}");
}

#[test]
fn hard_links_share_and_devices_are_left_out() {
    let layers: Layer =
        &[('f', "a/x", ""), ('h', "y", "a/x"), ('h', "a/x", "a/x"), ('c', "tty", "")];
    assert_eq!(names(&[layers]).unwrap(), "a/ a/x=0.0 y=0.0");
    assert_eq!(names(&[layers, &[('c', "y", "")]]).unwrap(), "a/ a/x=0.0");
}

#[test]
fn directories_in_between_count_against_the_limits() {
    let limits = Limits { max_entries: 4, max_names: 20, ..Limits::default() };
    assert!(tree_within(&[&[('f', "a/b/c/d", "")]], &limits).is_ok());
    let error = tree_within(&[&[('f', "a/b/c/d/e", "")]], &limits).unwrap_err();
    assert!(error.contains("than the limits allow"), "{error}");
    let error = tree_within(&[&[('f', "aaaaaaa/bbbbbbbbb", "")]], &limits).unwrap_err();
    assert!(error.contains("than the limits allow"), "{error}");
    // What was removed counts too: the work does.
    let again: Layer = &[('f', "a", ""), ('d', "a", ""), ('f', "a", ""), ('d', "a", "")];
    assert!(tree_within(&[again], &limits).is_ok());
    assert!(tree_within(&[again, again], &limits).is_err());
    assert!(components(&b"a/".repeat(MAX_DEPTH)).is_ok());
    assert!(components(&b"a/".repeat(MAX_DEPTH + 1)).is_err());
    assert!(components(&[b'a'; 256]).is_err());
}
