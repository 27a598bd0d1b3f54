//! Links the application with the kernel that xtask has built.

fn main() {
    println!("cargo:rerun-if-env-changed=HERMIT_KERNEL_DIR");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "hermit") {
        let folder = std::env::var("HERMIT_KERNEL_DIR").expect(
            "HERMIT_KERNEL_DIR names the folder of libhermit.a; `cargo xtask test-kernels hermit` sets it",
        );
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=static=hermit");
        println!("cargo:rerun-if-changed={folder}/libhermit.a");
    }
}
