//! Link arguments of the guests. They stand here and not in RUSTFLAGS, so that a plain `cargo
//! build` works and build scripts and proc macros are not linked this way.

/// Guests that are linked for one fixed address (ET_EXEC), as images of the old C toolchain are.
const FIXED: [&str; 2] = ["fixed", "fixed-v1"];

/// Guest that multiboot loaders copy as one piece: what is at one distance in the file is at the
/// same distance in memory.
const MULTIBOOT: &str = "cpu-loops";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in
        ["-nostdlib", "-nostartfiles", "-static-pie", "-Wl,--build-id=none", "-Wl,-z,norelro"]
    {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    for guest in FIXED {
        // The last one of contradicting options wins. The linker is the LLD that comes with the
        // toolchain.
        for argument in ["-static", "-no-pie", "-Wl,--image-base=0x200000"] {
            println!("cargo::rustc-link-arg-bin={guest}={argument}");
        }
    }
    for argument in [
        "-static",
        "-no-pie",
        "-Wl,--image-base=0x100000",
        "-Wl,-z,separate-loadable-segments",
        "-Wl,--entry=_start",
    ] {
        println!("cargo::rustc-link-arg-bin={MULTIBOOT}={argument}");
    }
}
