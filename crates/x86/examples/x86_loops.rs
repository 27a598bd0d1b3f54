//! Speed of the processor on small loops, in millions of instructions a second.
//!
//! `cargo run --release -p nerite-x86 --example x86_loops [NAME]`

use std::time::Duration;

use nerite_arch::{Fpu, Regs, Segment, SpecialRegs};
use nerite_memory::{Backing, GuestRam, Pages, Region};
use nerite_x86::{CodePages, Config, Cpu, Deterministic, Entry, Exit, supported_cpuid};
use rustix::time::{ClockId, clock_gettime};

/// Instructions of each loop.
const INSTRUCTIONS: u64 = 300_000_000;
const CODE: u64 = 0x1_0000;
/// Address of a word that holds its own address.
const POINTER: u64 = 0x18_0000;

/// Loops, as machine code.
const LOOPS: &[(&str, &[u8])] = &[
    // l: add rax, rbx; xor rcx, rax; shl rdx, 3; sub rsi, rdx; lea rdi, [rdi+rax*2+5]; and rdx,
    // 0xffff; dec r8; jnz l
    (
        "integer",
        &[
            0x48, 0x01, 0xd8, 0x48, 0x31, 0xc1, 0x48, 0xc1, 0xe2, 0x03, 0x48, 0x29, 0xd6, 0x48,
            0x8d, 0x7c, 0x47, 0x05, 0x81, 0xe2, 0xff, 0xff, 0x00, 0x00, 0x49, 0xff, 0xc8, 0x75,
            0xe3,
        ],
    ),
    // l: mov r10, [r10] five times; jmp l
    (
        "pointers",
        &[
            0x4d, 0x8b, 0x12, 0x4d, 0x8b, 0x12, 0x4d, 0x8b, 0x12, 0x4d, 0x8b, 0x12, 0x4d, 0x8b,
            0x12, 0xeb, 0xef,
        ],
    ),
    // l: mov rax, [r9+rcx*8]; add rax, 3; mov [r9+rcx*8], rax; add [r9+8], rax; inc rcx; and ecx,
    // 0xfff; jmp l
    (
        "memory",
        &[
            0x49, 0x8b, 0x04, 0xc9, 0x48, 0x83, 0xc0, 0x03, 0x49, 0x89, 0x04, 0xc9, 0x49, 0x01,
            0x41, 0x08, 0x48, 0xff, 0xc1, 0x81, 0xe1, 0xff, 0x0f, 0x00, 0x00, 0xeb, 0xe5,
        ],
    ),
    // l: call f; call f; jmp l; f: push rbx; mov rbx, rax; lea rax, [rbx+1]; pop rbx; ret
    (
        "calls",
        &[
            0xe8, 0x07, 0x00, 0x00, 0x00, 0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xf4, 0x53, 0x48,
            0x89, 0xc3, 0x48, 0x8d, 0x43, 0x01, 0x5b, 0xc3,
        ],
    ),
    // l: cmp rax, rbx; jl a; inc rax; a: test al, 1; jz b; add rbx, 2; b: jmp l
    (
        "branches",
        &[
            0x48, 0x39, 0xd8, 0x7c, 0x03, 0x48, 0xff, 0xc0, 0xa8, 0x01, 0x74, 0x04, 0x48, 0x83,
            0xc3, 0x02, 0xeb, 0xee,
        ],
    ),
    // l: mov rdi, r9; lea rsi, [r9+0x8000]; mov ecx, 0x400; rep movsq; jmp l
    (
        "copy",
        &[
            0x4c, 0x89, 0xcf, 0x49, 0x8d, 0xb1, 0x00, 0x80, 0x00, 0x00, 0xb9, 0x00, 0x04, 0x00,
            0x00, 0xf3, 0x48, 0xa5, 0xeb, 0xec,
        ],
    ),
    // l: mov rax, cr3; mov cr3, rax; mov rbx, [r9]; mov rbx, [r9+0x1000]; jmp l
    (
        "page tables",
        &[
            0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x49, 0x8b, 0x19, 0x49, 0x8b, 0x99, 0x00, 0x10,
            0x00, 0x00, 0xeb, 0xee,
        ],
    ),
    // l: addps xmm0, xmm1; mulps xmm2, xmm3; movaps xmm4, [r9]; paddd xmm5, xmm4; movaps [r9+16],
    // xmm5; jmp l
    (
        "sse",
        &[
            0x0f, 0x58, 0xc1, 0x0f, 0x59, 0xd3, 0x41, 0x0f, 0x28, 0x21, 0x66, 0x0f, 0xfe, 0xec,
            0x41, 0x0f, 0x29, 0x69, 0x10, 0xeb, 0xeb,
        ],
    ),
    // l: movsd xmm0, [r9]; mulsd xmm0, xmm1; addsd xmm2, [r9]; ucomisd xmm0, xmm1; movsd [r9+8],
    // xmm0; jmp l
    (
        "scalars",
        &[
            0xf2, 0x41, 0x0f, 0x10, 0x01, 0xf2, 0x0f, 0x59, 0xc1, 0xf2, 0x41, 0x0f, 0x58, 0x11,
            0x66, 0x0f, 0x2e, 0xc1, 0xf2, 0x41, 0x0f, 0x11, 0x41, 0x08, 0xeb, 0xe6,
        ],
    ),
    // l: addsd xmm0, xmm1; mulsd xmm2, xmm0; cvtsi2sd xmm3, rax; jmp l
    (
        "float",
        &[0xf2, 0x0f, 0x58, 0xc1, 0xf2, 0x0f, 0x59, 0xd0, 0xf2, 0x48, 0x0f, 0x2a, 0xd8, 0xeb, 0xf1],
    ),
];

/// Processor time of this thread, which other programs have no part in.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A processor in 64-bit mode at the code, with the lowest GiB mapped to itself.
fn processor(code: &[u8]) -> Result<Cpu, Box<dyn std::error::Error>> {
    let ram = GuestRam::new(&[Region { start: 0, size: 2 << 20 }], &Backing::default())?;
    ram.write_obj(0x1000, &0x2003_u64)?;
    ram.write_obj(0x2000, &0x83_u64)?;
    ram.write(CODE, code)?;
    ram.write_obj(POINTER, &POINTER)?;
    let mut cpu = Cpu::new(Config {
        memory: Box::new(Pages::new(&ram)),
        platform: Box::new(Deterministic::default()),
        code: CodePages::new(),
        cpuid: supported_cpuid(),
    });
    let flat = Segment {
        limit: u32::MAX,
        kind: 3,
        present: true,
        s: true,
        g: true,
        db: true,
        ..Segment::default()
    };
    let cs = Segment { selector: 8, kind: 11, l: true, db: false, ..flat };
    cpu.set_special_regs(&SpecialRegs {
        cs,
        ss: flat,
        cr0: 0x8000_0011,
        cr3: 0x1000,
        cr4: 0x620,
        efer: 0x500,
        ..cpu.special_regs()
    });
    cpu.set_regs(&Regs {
        rip: CODE,
        rflags: 2,
        rsp: 0x8_0000,
        r8: u64::MAX,
        r9: 0x10_0000,
        r10: POINTER,
        rbx: 3,
        ..Regs::default()
    });
    let mut fpu = Fpu::default();
    for (number, value) in [(0, 1.5_f32), (1, 0.001), (2, 1.5), (3, 1.000_000_1)] {
        let [a, b, c, d] = value.to_le_bytes();
        fpu.set_xmm(number, [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    }
    cpu.set_fpu(&fpu);
    Ok(cpu)
}

#[allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for (name, code) in LOOPS.iter().filter(|(name, _)| name.contains(&wanted)) {
        let mut cpu = processor(code)?;
        cpu.run(Entry::Resume, 1000);
        let (start, before) = (thread_time(), cpu.instructions());
        let instructions =
            if matches!(*name, "copy" | "page tables") { INSTRUCTIONS / 50 } else { INSTRUCTIONS };
        let exit = cpu.run(Entry::Resume, instructions);
        let elapsed = thread_time().saturating_sub(start);
        assert_eq!(exit, Exit::Budget, "the loops do not end: {:x}", cpu.regs().rip);
        let done = cpu.instructions().saturating_sub(before);
        println!("{name:12} {:8.0} MIPS", done as f64 / elapsed.as_secs_f64() / 1e6);
    }
    Ok(())
}
