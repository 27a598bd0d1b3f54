//! Link arguments of the guests. They stand here and not in RUSTFLAGS, so that a plain `cargo
//! build` works and build scripts and proc macros are not linked this way.

/// Guests that are linked for one fixed address (ET_EXEC), as images of the old C toolchain are.
const FIXED: [&str; 2] = ["fixed", "fixed-v1"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-nostdlib", "-nostartfiles", "-static-pie", "-Wl,--build-id=none", "-Wl,-z,norelro"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    for guest in FIXED {
        // The last one of contradicting options wins. The linker is the LLD that comes with the
        // toolchain.
        for argument in ["-static", "-no-pie", "-Wl,--image-base=0x200000"] {
            println!("cargo::rustc-link-arg-bin={guest}={argument}");
        }
    }
}
