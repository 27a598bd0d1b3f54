//! A guest that waits for a file, and then tells who it is.

use std::process::Stdio;

use super::{Folder, code, image, wait, wait_until};

/// Place of the code in an image, and of the data behind it.
const CODE: usize = 0x400;
const DATA: usize = 0x800;
/// Length of the random bytes that it prints.
pub const RANDOM: usize = 16;
/// Length of the part of the device tree that it prints.
pub const TREE: usize = 2048;
/// Length of all that it prints after the `r`.
pub const LENGTH: usize = RANDOM + 16 + TREE;

/// Displacement from the end of an instruction at `position` with this length to `target`.
fn displacement(target: usize, position: usize, length: usize) -> [u8; 4] {
    let end = CODE + position + length;
    (i32::try_from(target).unwrap() - i32::try_from(end).unwrap()).to_le_bytes()
}

/// A guest that prints `r` and opens `/data/go` over and over until it is there. Then it prints
/// random bytes of the processor, the time of its boot, and its device tree, and ends with 0.
pub fn teller() -> Vec<u8> {
    teller_after(&[])
}

/// The same, and before it takes the memory of its device tree for something else.
pub fn forgetter() -> Vec<u8> {
    // mov rax, [r12 + device tree]; not dword [rax + 64]
    teller_after(&[0x49, 0x8b, 0x44, 0x24, 24, 0xf7, 0x50, 64])
}

fn teller_after(before: &[u8]) -> Vec<u8> {
    let [open, name, first, second, buffer] = [0, 0x40, 0x60, 0x80, 0xa0].map(|at| DATA + at);
    let mut code = vec![0x49, 0x89, 0xfc]; // mov r12, rdi
    code.extend(before);
    code.extend([0xbf, b'r', 0, 0, 0, 0x66, 0xba, 0x20, 0x10, 0xef]); // print
    // lea rax, target; mov [place], rax
    let pointer = |code: &mut Vec<u8>, target, place| {
        code.extend([0x48, 0x8d, 0x05]);
        code.extend(displacement(target, code.len() - 3, 7));
        code.extend([0x48, 0x89, 0x05]);
        code.extend(displacement(place, code.len() - 3, 7));
    };
    // lea rdi, block; mov dx, port; out dx, eax
    let hypercall = |code: &mut Vec<u8>, port: u16, block| {
        code.extend([0x48, 0x8d, 0x3d]);
        code.extend(displacement(block, code.len() - 3, 7));
        code.extend([0x66, 0xba]);
        code.extend(port.to_le_bytes());
        code.push(0xef);
    };
    let again = code.len();
    pointer(&mut code, name, open);
    hypercall(&mut code, 0x1110, open);
    code.extend([0x83, 0x3d]); // cmp dword [open.ret], 0
    code.extend(displacement(open + 16, code.len() - 2, 7));
    code.push(0);
    let back = i8::try_from(again).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x7c, back.cast_unsigned()]); // jl again
    let store = |code: &mut Vec<u8>, place| {
        code.extend([0x48, 0x89, 0x05]); // mov [place], rax
        code.extend(displacement(place, code.len() - 3, 7));
    };
    for half in [0, 8] {
        code.extend([0x48, 0x0f, 0xc7, 0xf0]); // rdrand rax
        store(&mut code, buffer + half);
    }
    for half in [0_u8, 8] {
        code.extend([0x49, 0x8b, 0x44, 0x24, 112 + half]); // mov rax, [r12 + boot time]
        store(&mut code, buffer + 16 + usize::from(half));
    }
    pointer(&mut code, buffer, first + 8);
    code.extend([0x49, 0x8b, 0x44, 0x24, 24]); // mov rax, [r12 + device tree]
    store(&mut code, second + 8);
    hypercall(&mut code, 0x1030, first);
    hypercall(&mut code, 0x1030, second);
    code.extend(image::exit(0));
    assert!(code.len() <= DATA - CODE);
    code.resize(DATA - CODE, 0);
    let mut data = [0; 0x100];
    let mut put = |at: usize, bytes: &[u8]| data[at - DATA..][..bytes.len()].copy_from_slice(bytes);
    put(name, b"/data/go");
    put(first, &(RANDOM as u64 + 16).to_le_bytes());
    put(second, &(TREE as u64).to_le_bytes());
    code.extend(data);
    code
}

/// A folder with the snapshot `saved` of one of these guests, which waits for `data/go`.
pub fn saved(accelerator: &str, guest: &[u8]) -> Folder {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(guest));
    folder.file("data/other", "");
    let words = ["run", "--accel", accelerator, "--api-socket", "socket", "-o", "output"];
    let guest = ["-m", "16M", "-e", "WHO=first", "--mount", "data:/data", &image, "first-word"];
    let mut command = folder.vmm(&[&words[..], &guest].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("output", || folder.path("output").metadata().is_ok_and(|it| it.len() > 0));
    let done = folder.run(&["ctl", "socket", "snapshot", "--stop", "saved"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(code(wait(child).status), 143);
    folder
}

/// Report of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub random: [u8; RANDOM],
    /// Nanoseconds since 1970.
    pub boot_time: i128,
    pub tree: Vec<u8>,
}

impl Told {
    /// Reads what was printed; the `r` may be in it or not.
    pub fn read(output: &[u8]) -> Self {
        let at = output.len().checked_sub(LENGTH).expect("all of its output");
        let (random, rest) = output[at..].split_at(RANDOM);
        let (time, tree) = rest.split_at(16);
        Self {
            random: random.try_into().unwrap(),
            boot_time: i128::from_le_bytes(time.try_into().unwrap()),
            tree: tree.to_vec(),
        }
    }

    /// Returns `true` if the device tree has this text.
    pub fn knows(&self, text: &str) -> bool {
        self.tree.windows(text.len()).any(|part| part == text.as_bytes())
    }
}
