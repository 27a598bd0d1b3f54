//! The real GDB against the test kernel `debugged`.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use super::{Folder, STEPPED, wait_for, wait_until};

/// Variable with the path of the kernel `debugged`.
const KERNEL: &str = "NERITE_TEST_DEBUGGED";
/// Variable with the path of a GDB that runs here.
const GDB: &str = "NERITE_TEST_GDB";

/// Something that GDB can do: what it is, how GDB is asked for it, and parts of what it has to say,
/// in this order.
pub type Feature<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Paths of the kernel and of GDB.
pub fn programs() -> (String, String) {
    let path =
        |name| std::env::var(name).expect("`cargo xtask test-host` names the kernel and GDB");
    (path(KERNEL), path(GDB))
}

/// `vmm run` with these options, and the kernel with these arguments. There is a socket for GDB
/// when it comes back, and the guest's output is in the file `told`.
pub fn start(folder: &Folder, options: &[&str], kernel: &str, args: &[&str]) -> Child {
    let words = [&["run", "--output", "told"][..], options, &[kernel], args].concat();
    let child = folder.vmm(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the socket", || folder.path("socket").exists());
    child
}

/// Output of the guest so far.
pub fn told(folder: &Folder) -> String {
    std::fs::read_to_string(folder.path("told")).unwrap_or_default()
}

/// GDB with an image, before its first command.
pub fn gdb(folder: &Folder, program: &str, kernel: &str) -> Command {
    let mut gdb = Command::new(program);
    gdb.args(["-nx", "-batch", kernel, "-ex", "set pagination off", "-ex", "set language c"]);
    gdb.stdin(Stdio::null()).current_dir(folder.path("."));
    gdb
}

/// Tries the features one after the other, and checks what GDB says to each. `meanwhile` is called
/// once GDB runs.
#[track_caller]
pub fn try_out(mut gdb: Command, features: &[Feature<'_>], meanwhile: impl FnOnce(Pid)) {
    for (name, commands, _) in features {
        gdb.args(["-ex", &format!("echo \\n#### {name}\\n")]);
        for command in *commands {
            gdb.args(["-ex", command]);
        }
    }
    // Both streams in one, so that what is said stays in order.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = gdb.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(gdb);
    let text = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    meanwhile(Pid::from_child(&child));
    wait_for(child, STEPPED);
    let text = text.join().unwrap();
    for (name, _, parts) in features {
        let section = text.split(&format!("\n#### {name}\n")).nth(1);
        let section =
            section.unwrap_or_else(|| panic!("GDB did not get as far as {name:?}:\n{text}"));
        let section = section.split("\n####").next().unwrap();
        let mut rest = section;
        for part in *parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => {
                    panic!(
                        "{name}: {part:?} is missing, or not in order:\n{section}\n\nin all of:\n{text}"
                    )
                }
            }
        }
    }
}
