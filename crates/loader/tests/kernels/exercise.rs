//! Runs a kernel of another kind through all that a monitor does with it. Used by the property
//! tests and, with more patience, by targets in `fuzz/`.

use nerite_loader::{GuestImage, Limits, Protocol};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Guest memory of 32 MiB.
pub(crate) fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap()
}

/// Does with a file all that can be done, and checks what was promised of it.
pub(crate) fn exercise(file: &[u8], protocol: Option<Protocol>) {
    let limits = Limits { max_memory: 64 << 20, ..Limits::default() };
    let Ok(image) = GuestImage::parse(file.to_vec(), protocol, &limits) else { return };
    assert!(image.inspect().to_string().lines().count() > 2);
    let ram = ram();
    let kernel = match &image {
        GuestImage::Linux(kernel) => {
            let loaded = kernel.load(&ram);
            assert!(kernel.setup_header().len() <= 0x202 + 255 - 0x1f1);
            if let Ok(start) = loaded {
                assert!(start + u64::from(kernel.init_size()) <= 32 << 20);
            }
            return;
        }
        GuestImage::Pvh(image) => image.kernel(),
        GuestImage::Multiboot(image) => image.kernel(),
        _ => return,
    };
    assert!(kernel.end() <= 1 << 32);
    assert!((kernel.start()..kernel.end()).contains(&kernel.entry()));
    for pair in kernel.segments().windows(2) {
        assert!(pair[0].end() <= pair[1].address);
    }
    if kernel.load(&ram).is_ok() {
        assert!(kernel.end() <= 32 << 20);
    }
}
