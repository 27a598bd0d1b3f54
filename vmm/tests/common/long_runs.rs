//! Guests that run for a while and whose results depend on each step before.

use super::image;

/// Number of steps of the first vCPU.
pub const STEPS: u32 = 150_000;
/// The same of a second one, which prints nothing.
const SECOND_STEPS: u32 = 30_000_000;
/// Exit code of a guest whose sums are right.
pub const RIGHT: i32 = 42;
/// Places in the image's memory: the sum of the second vCPU, and whether it is there.
const SUM: usize = 0x3000;
const DONE: usize = 0x3004;
/// Place of the code.
const CODE: usize = 0x400;

/// A linear congruential generator: a state depends on each step before.
pub const fn next(state: u32) -> u32 {
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

/// `mov ecx, steps; mov esi, seed`, then as often: the next state in `esi`, and `body`.
fn steps(steps: u32, seed: u32, body: &[u8]) -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(steps.to_le_bytes());
    code.push(0xbe);
    code.extend(seed.to_le_bytes());
    let start = code.len();
    code.extend([0x69, 0xf6]); // imul esi, esi, 1664525
    code.extend(1_664_525_u32.to_le_bytes());
    code.extend([0x81, 0xc6]); // add esi, 1013904223
    code.extend(1_013_904_223_u32.to_le_bytes());
    code.extend(body);
    code.extend([0xff, 0xc9]); // dec ecx
    let back = i8::try_from(start).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x75, back.cast_unsigned()]); // jnz
    code
}

/// `opcode` with an operand relative to the instruction pointer, at `position` in the code.
fn relative(opcode: &[u8], target: usize, position: usize, immediate: &[u8]) -> Vec<u8> {
    let end = CODE + position + opcode.len() + 4 + immediate.len();
    let distance = i32::try_from(target).unwrap() - i32::try_from(end).unwrap();
    [opcode, &distance.to_le_bytes(), immediate].concat()
}

/// `mov edi, esi; shr edi, 28; add edi, 'a'; mov dx, 0x1020; out dx, eax`
const PRINT: [u8; 13] =
    [0x89, 0xf7, 0xc1, 0xef, 28, 0x83, 0xc7, b'a', 0x66, 0xba, 0x20, 0x10, 0xef];

/// A guest that prints a letter for each of so many states.
pub fn printer(count: u32) -> Vec<u8> {
    [steps(count, 1, &PRINT), image::exit(RIGHT)].concat()
}

/// A guest whose first vCPU prints a letter for each state, so that its output depends on every
/// step. With two, it waits for the sum of the other one, and ends with [`RIGHT`] if that is right.
pub fn worker(vcpus: u32) -> Vec<u8> {
    if vcpus == 1 {
        return printer(STEPS);
    }
    let sum = (0..SECOND_STEPS).fold(7, |state, _| next(state));
    let mut code = vec![0x85, 0xf6, 0x0f, 0x85, 0, 0, 0, 0]; // test esi, esi; jnz second
    code.extend(steps(STEPS, 1, &PRINT));
    let wait = code.len();
    code.extend(relative(&[0x83, 0x3d], DONE, wait, &[1])); // cmp dword [done], 1
    let back = i8::try_from(wait).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0x75, back.cast_unsigned()]); // jne wait
    code.extend(relative(&[0x8b, 0x3d], SUM, code.len(), &[])); // mov edi, [sum]
    code.extend([0x81, 0xf7]); // xor edi, sum ^ RIGHT
    code.extend((sum ^ RIGHT.cast_unsigned()).to_le_bytes());
    code.extend([0x66, 0xba, 0x10, 0x10, 0xef]); // mov dx, 0x1010; out dx, eax
    let second = u32::try_from(code.len() - 8).unwrap();
    code[4..8].copy_from_slice(&second.to_le_bytes());
    code.extend(steps(SECOND_STEPS, 7, &[]));
    code.extend(relative(&[0x89, 0x35], SUM, code.len(), &[])); // mov [sum], esi
    code.extend(relative(&[0xc7, 0x05], DONE, code.len(), &1_u32.to_le_bytes())); // mov dword [done], 1
    code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt, again
    code
}

/// Exit code of [`pc_worker`]: an odd one, of its debug-exit port.
pub const PC_RIGHT: i32 = 41;

/// A multiboot kernel that does what [`worker`] does with one vCPU, on the serial port.
pub fn pc_worker() -> Vec<u8> {
    pc_printer(STEPS)
}

/// A multiboot kernel that does what [`printer`] does, on the serial port.
pub fn pc_printer(count: u32) -> Vec<u8> {
    // mov eax, esi; shr eax, 28; add al, 'a'; mov dx, 0x3f8; out dx, al
    let print = [0x89, 0xf0, 0xc1, 0xe8, 28, 0x04, b'a', 0x66, 0xba, 0xf8, 0x03, 0xee];
    // mov eax, 20; out 0xf4, eax
    let exit = [0xb8, 20, 0, 0, 0, 0xe7, 0xf4, 0xf4];
    let code = [&steps(count, 1, &print)[..], &exit].concat();
    let (magic, flags, load) = (0x1bad_b002_u32, 1_u32 << 16, 0x10_0000_u32);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let end = load + 32 + u32::try_from(code.len()).unwrap();
    // Header, load address, end of the data (of the file), end of what is zeroed, entry.
    let words = [magic, flags, checksum, load, load, 0, end, load + 32];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend(code);
    file
}

/// Code of `out dx, eax` with this port.
fn call(port: u16) -> Vec<u8> {
    [&[0x66, 0xba][..], &port.to_le_bytes(), &[0xef]].concat()
}

/// A guest that copies `/data/in` to `/data/out`, seven bytes at a time, and ends with [`RIGHT`].
pub fn copier() -> Vec<u8> {
    const DATA: usize = CODE + 0x200;
    let [open_in, open_out, read, write, name_in, name_out, buffer] =
        [0, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0].map(|offset| DATA + offset);
    let mut code: Vec<u8> = Vec::new();
    // lea rax, target; mov [place], rax
    let pointer = |code: &mut Vec<u8>, target, place| {
        code.extend(relative(&[0x48, 0x8d, 0x05], target, code.len(), &[]));
        code.extend(relative(&[0x48, 0x89, 0x05], place, code.len(), &[]));
    };
    // lea rdi, block; out dx, eax
    let hypercall = |code: &mut Vec<u8>, port, block| {
        code.extend(relative(&[0x48, 0x8d, 0x3d], block, code.len(), &[]));
        code.extend(call(port));
    };
    for (name, block) in [(name_in, open_in), (name_out, open_out)] {
        pointer(&mut code, name, block);
        hypercall(&mut code, 0x1110, block);
    }
    pointer(&mut code, buffer, read + 16);
    pointer(&mut code, buffer, write + 16);
    let next = code.len();
    hypercall(&mut code, 0x1130, read);
    code.extend(relative(&[0x48, 0x8b, 0x05], read + 8, code.len(), &[])); // mov rax, [read.result]
    code.extend([0x48, 0x85, 0xc0, 0x7e, 0]); // test rax, rax; jle end
    let jump = code.len();
    code.extend(relative(&[0x48, 0x89, 0x05], write, code.len(), &[])); // mov [write.length], rax
    hypercall(&mut code, 0x1100, write);
    let back = i8::try_from(next).unwrap() - i8::try_from(code.len() + 2).unwrap();
    code.extend([0xeb, back.cast_unsigned()]); // jmp next
    code[jump - 1] = u8::try_from(code.len() - jump).unwrap();
    code.extend(image::exit(RIGHT));
    code.resize(DATA - CODE, 0);
    let mut data = [0; 0x100];
    let mut put = |at: usize, bytes: &[u8]| data[at - DATA..][..bytes.len()].copy_from_slice(bytes);
    put(open_out + 8, &0o101_u32.to_le_bytes()); // O_WRONLY | O_CREAT
    put(open_out + 12, &0o600_u32.to_le_bytes());
    put(read, &7_u64.to_le_bytes());
    // The first two descriptors of a guest.
    put(read + 24, &3_u32.to_le_bytes());
    put(write + 24, &4_u32.to_le_bytes());
    put(name_in, b"/data/in");
    put(name_out, b"/data/out");
    [code, data.to_vec()].concat()
}

/// The whole output of [`worker`].
pub fn expected() -> String {
    printed(STEPS)
}

/// The whole output of [`printer`].
pub fn printed(count: u32) -> String {
    let states = std::iter::successors(Some(next(1)), |state| Some(next(*state)));
    let letter = |state| char::from(b'a' + u8::try_from(state >> 28).unwrap());
    states.map(letter).take(usize::try_from(count).unwrap()).collect()
}
