//! Memory that a guest makes the process hold, counted by the allocator.

#![cfg(test)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nerite_hostfs::{Access, HostFs, ImageFile, Limits, Mount, SharedBytes};
use nerite_hypercall::file::{O_DIRECTORY, O_RDONLY};

/// The system's allocator, with a count of the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, because the count is that of the whole process.
#[test]
fn open_directories_and_names_take_little() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..400 {
        std::fs::write(folder.path().join(format!("file-{index:0>60}")), "").unwrap();
    }
    let data: SharedBytes = Arc::new(Vec::new());
    let files: Vec<_> = (0..400)
        .map(|index| ImageFile {
            path: format!("m/file-{index:0>60}").into(),
            data: data.clone(),
            mode: 0,
        })
        .collect();
    let mount =
        Mount { host: folder.path().into(), guest: "/data".into(), access: Access::ReadOnly };
    let limits = Limits { open_files: 400, ..Limits::default() };
    let fs = HostFs::new(&[mount], &files, limits).unwrap();
    for path in [&b"/data"[..], b"/m"] {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let open = || fs.open(path, O_RDONLY | O_DIRECTORY, 0).unwrap();
        let descriptors: Vec<i32> = (0..400).map(|_| open()).collect();
        for &fd in &descriptors {
            assert!(!fs.read_directory(fd, 100).unwrap().is_empty());
        }
        let each = (ALLOCATED.load(Ordering::Relaxed) - before) / descriptors.len();
        assert!(
            each < 1000,
            "a descriptor of {} takes {each} bytes",
            String::from_utf8_lossy(path)
        );
        descriptors.into_iter().for_each(|fd| fs.close(fd).unwrap());
    }

    // The largest image: names are held once, and at most so many of them.
    let before = ALLOCATED.load(Ordering::Relaxed);
    let image = (0..1 << 16).map(|index| ImageFile {
        path: format!("{}/{index}", "d/".repeat(index % 64)).into(),
        data: data.clone(),
        mode: 0o644,
    });
    let fs =
        HostFs::with_mounts(nerite_hostfs::Mounts::default(), image, Limits::default()).unwrap();
    let names = ALLOCATED.load(Ordering::Relaxed) - before;
    assert!(names < 40 << 20, "{names} bytes");
    drop(fs);
    let before = ALLOCATED.load(Ordering::Relaxed);
    let image = (0..1 << 16).map(|index| ImageFile {
        path: format!("{index}/file").into(),
        data: data.clone(),
        mode: 0o644,
    });
    let refused = HostFs::with_mounts(nerite_hostfs::Mounts::default(), image, Limits::default());
    assert!(refused.is_err());
    assert!(ALLOCATED.load(Ordering::Relaxed) - before < 1 << 20, "nothing is left");
}
