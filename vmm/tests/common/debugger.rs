//! The real GDB against the test kernel `debugged`.

use std::process::{Child, Command, Stdio};

use super::{Folder, STEPPED, code, skip, wait, wait_for, wait_until};

/// Where the kernel `debugged` is.
pub const KERNEL: &str = "NERITE_TEST_DEBUGGED";
/// Where a GDB is that runs here.
const GDB: &str = "NERITE_TEST_GDB";

/// `vmm` with the kernel, waiting for GDB. `None`: not here.
pub fn start(folder: &Folder, options: &[&str]) -> Option<(Child, String, String)> {
    start_with(folder, options, &[])
}

/// The same with arguments for the kernel.
pub fn start_with(folder: &Folder, options: &[&str], args: &[&str]) -> Option<(Child, String, String)> {
    let (Ok(kernel), Ok(gdb)) = (std::env::var(KERNEL), std::env::var(GDB)) else {
        skip("the kernel and GDB are named by `cargo xtask test`");
        return None;
    };
    if folder.run(&["probe"]).stdout != "hardware\n" {
        skip("the kernel needs a KVM that runs ordinary guests (has_kvm is not enough)");
        return None;
    }
    let mut command = folder.vmm(&[&["run"][..], options, &[&kernel], args].concat());
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap();
    wait_until("the socket", || folder.path("socket").exists());
    Some((child, kernel, gdb))
}

pub fn gdb(folder: &Folder, program: &str, kernel: &str, commands: &[&str]) -> Command {
    let mut gdb = Command::new(program);
    gdb.args(["-nx", "-batch", kernel, "-ex", "set pagination off", "-ex", "set language c"]);
    gdb.args(["-ex", &format!("target remote {}", folder.path("socket").display())]);
    commands.iter().for_each(|command| {
        gdb.args(["-ex", command]);
    });
    gdb.stdin(Stdio::null()).current_dir(folder.path("."));
    gdb
}

/// Checks that these parts come in this order.
#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("{part:?} is missing, or not in order:\n{text}"),
        }
    }
}

/// Runs commands on a held guest, and gives what GDB says and how `vmm` ended.
pub fn session(options: &[&str], commands: &[&str]) -> Option<(String, i32, String)> {
    let folder = Folder::new();
    let (child, kernel, program) = start(&folder, &[&["--gdb=unix:socket"][..], options].concat())?;
    let mut debugger = gdb(&folder, &program, &kernel, commands);
    let debugger = debugger.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = wait_for(debugger, STEPPED);
    let output = wait(child);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&said.stdout), text(&said.stderr));
    Some((format!("{out}{err}"), code(output.status), text(&output.stdout)))
}

/// The same for a guest that waits for the debugger after its start, and of which only the first vCPU runs until
/// `set scheduler-locking off`: where breakpoints are kept by stepping, that spares the steps of the others.
pub fn waiting_session(options: &[&str], commands: &[&str]) -> Option<(String, i32, String)> {
    let folder = Folder::new();
    let options = [&["--gdb-attach=unix:socket", "--output", "told"][..], options].concat();
    let (child, kernel, program) = start_with(&folder, &options, &["wait"])?;
    let told = || std::fs::read_to_string(folder.path("told")).unwrap_or_default();
    wait_until("the kernel to wait", || told().contains("waiting\n"));
    let commands = [&["set scheduler-locking on", "set var *(long*)&GO = 1"][..], commands].concat();
    let mut debugger = gdb(&folder, &program, &kernel, &commands);
    let debugger = debugger.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = wait_for(debugger, STEPPED);
    let output = wait(child);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((format!("{}{}", text(&said.stdout), text(&said.stderr)), code(output.status), told()))
}
