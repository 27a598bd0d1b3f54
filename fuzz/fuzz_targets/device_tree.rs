//! A device tree from any arguments and environment: what a kernel takes apart is what was put in,
//! or there is an error.
#![no_main]

use nerite_arch::fdt::Builder;

/// Kernel's and application's arguments, environment and mounts.
type Words = (Vec<String>, Vec<String>, Vec<(String, String)>, Vec<String>);

libfuzzer_sys::fuzz_target!(|input: (Words, u32, u64)| {
    let ((kernel, app, env, mounts), cpus, memory) = input;
    let mut tree = Builder::new()
        .memory(memory & !0xfff, 1 << 24)
        .cpus(cpus % 17)
        .kernel_args(kernel)
        .app_args(app.clone())
        .mounts(mounts);
    for (name, value) in env {
        tree = tree.env(name, value);
    }
    let Ok(text) = tree.bootargs() else {
        assert!(tree.finish().is_err());
        return;
    };
    let words = shlex::split(&text).expect("the words of a shell");
    let own = words.iter().rposition(|word| word == "--").map_or(&[][..], |at| &words[at + 1..]);
    // An argument `--` of the application is one of its own.
    assert!(app.ends_with(own) || own == app);
    if let Ok(bytes) = tree.finish() {
        assert!(bytes.len() as u64 <= tree.size_bound().expect("it could be built"));
    }
});
