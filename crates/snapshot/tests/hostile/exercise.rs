//! A snapshot of any bytes, as a test and as a fuzz target.

use std::fs::File;
use std::io::Write as _;

use nerite_snapshot::{Manifest, Region, Snapshot};

/// Any bytes as the two files, and changes of a description that is right.
#[derive(Debug)]
pub struct Input<'a> {
    /// The file `snapshot.json`, or changes of the right one: pairs of a position and a byte.
    pub state: &'a [u8],
    /// The file `memory`.
    pub memory: &'a [u8],
    /// `true` if `state` changes the right description instead of being one.
    pub changes: bool,
}

/// A state with something of each kind.
type State = (Vec<Option<u64>>, std::collections::BTreeMap<String, Vec<u8>>, bool);

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Reads the snapshot. Whatever it is, that is a snapshot or an error.
pub fn run(input: &Input<'_>) {
    let Input { state, memory, changes } = *input;
    let mut text = state.to_vec();
    if changes {
        text = right(memory);
        let pairs = state.chunks_exact(3);
        for pair in pairs {
            let position = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % text.len();
            text[position] = pair[2];
        }
    }
    let snapshot = Snapshot::new(file(&text), file(memory), file(b"image")).unwrap();
    let Ok(manifest) = snapshot.read::<State>() else { return };
    assert_eq!(manifest.memory_size().unwrap(), memory.len() as u64);
    if snapshot.verify(&manifest).is_ok() {
        assert_eq!(manifest.memory_digest, digest(memory));
    }
}

fn digest(memory: &[u8]) -> nerite_snapshot::Digest {
    nerite_snapshot::Digest::of_sparse(&file(memory), memory.len() as u64).unwrap()
}

/// A description that is right for this memory, if that is whole pages.
fn right(memory: &[u8]) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let size = (memory.len() as u64 & !0xfff).max(0x1000);
    let mut files =
        nerite_snapshot::Files { state: file(b""), memory: file(memory), image: file(b"image") };
    let make = |memory_digest, image_digest| Manifest {
        writer: "test 1".to_owned(),
        memory: vec![Region { start: 0, size }],
        memory_digest,
        image_digest,
        state: (vec![Some(1_u64), None], [("name".to_owned(), vec![1_u8, 2])].into(), true)
            as State,
    };
    files.describe(make).unwrap();
    let mut text = Vec::new();
    files.state.rewind().unwrap();
    files.state.read_to_end(&mut text).unwrap();
    text
}
