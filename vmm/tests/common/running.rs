//! A guest that runs while a test asks for things.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use super::{Done, Folder, code, wait, wait_until};

/// Most starts of a guest that is to be saved amid its output.
pub const ATTEMPTS: u32 = 50;

/// A guest with a control socket and its output in the file `output`.
pub struct Guest<'a> {
    pub folder: &'a Folder,
    pub child: Child,
}

impl<'a> Guest<'a> {
    pub fn start(folder: &'a Folder, accelerator: &str, words: &[&str]) -> Self {
        let common = ["run", "--accel", accelerator, "--api-socket", "socket", "-o", "output"];
        let mut command = folder.vmm(&[&common[..], words].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the socket", || UnixStream::connect(folder.path("socket")).is_ok());
        Self { folder, child }
    }

    /// Stops a guest amid its output, with the snapshot `saved`; returns the output so far, which
    /// is in the file as well. On a busy machine the guest can come to its own end, with the exit
    /// code `right`, before the request is there: then it starts again.
    pub fn saved(folder: &'a Folder, accelerator: &str, words: &[&str], right: i32) -> String {
        for _ in 0..ATTEMPTS {
            let guest = Self::start(folder, accelerator, words);
            guest.prints();
            let done = guest.ctl(&["snapshot", "--stop", "saved"]);
            let (code, output, said) = guest.end();
            if done.code == 0 {
                assert_eq!((code, &*done.stderr), (143, ""), "{said}");
                return output;
            }
            assert_eq!(code, right, "{done:?} {said}");
            std::fs::remove_file(folder.path("output")).unwrap();
        }
        panic!("a guest was at its end before its snapshot {ATTEMPTS} times");
    }

    pub fn ctl(&self, words: &[&str]) -> Done {
        self.folder.run(&[&["ctl", "socket"][..], words].concat())
    }

    /// Waits until it has printed something.
    pub fn prints(&self) {
        let printed = || self.folder.path("output").metadata().is_ok_and(|it| it.len() > 0);
        wait_until("output", printed);
    }

    /// Waits for its end: the exit code, the output and what was said.
    pub fn end(self) -> (i32, String, String) {
        let output = wait(self.child);
        let text = std::fs::read_to_string(self.folder.path("output")).unwrap();
        (code(output.status), text, String::from_utf8(output.stderr).unwrap())
    }
}
