//! SSE registers keep their values over many exits, on all processors at once; with the argument
//! `avx`, AVX registers too.

#![no_std]
#![no_main]

use core::arch::asm;

use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

const EXITS: u64 = 300;

/// A port where nothing is: reading it exits to the VMM.
const PORT: u16 = 0x3000;

#[repr(C, align(64))]
struct Registers([[u64; 4]; 16]);

fn patterns(seed: u64) -> Registers {
    let mut registers = Registers([[0; 4]; 16]);
    let mut value = seed.wrapping_add(1);
    for word in registers.0.iter_mut().flatten() {
        value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *word = value;
    }
    registers
}

/// Loads all 16 registers, exits `EXITS` times, and stores them; `$load` and `$store` name the
/// instructions.
macro_rules! round_trip {
    ($before:expr, $after:expr, $load:literal, $store:literal, $register:literal) => {
        // SAFETY: reads and writes the two blocks with aligned accesses, and declares all registers
        // used.
        unsafe {
            asm!(
                concat!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n", $load, " ", $register,
                    "\\n, [{before} + 32*\\n]\n.endr"),
                "2: in al, dx",
                "dec {exits}",
                "jnz 2b",
                concat!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n", $store, " [{after} + 32*\\n], ",
                    $register, "\\n\n.endr"),
                before = in(reg) $before, after = in(reg) $after, exits = inout(reg) EXITS => _,
                in("dx") PORT, out("al") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack)
            );
        }
    };
}

fn check_sse(index: usize) {
    let before = patterns(index as u64);
    let mut after = Registers([[0; 4]; 16]);
    round_trip!(&raw const before, &raw mut after, "movaps", "movaps", "xmm");
    for register in 0..16 {
        check_eq!(
            &after.0[register][..2],
            &before.0[register][..2],
            "xmm{register} of processor {index}"
        );
    }
}

/// Turns AVX on.
fn enable_avx(index: usize) {
    let features = cpu::cpuid(1, 0).ecx;
    let (xsave, avx) = (features & 1 << 26 != 0, features & 1 << 28 != 0);
    assert!(xsave && avx && cpu::cpuid(0xd, 0).eax & 7 == 7, "processor {index} has no AVX");
    cpu::set_cr4(1 << 18);
    // SAFETY: the processor has XSAVE and all three states.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") 7, in("edx") 0, options(nomem, nostack)) }
}

fn check_avx(index: usize) {
    let before = patterns(!(index as u64));
    let mut after = Registers([[0; 4]; 16]);
    round_trip!(&raw const before, &raw mut after, "vmovaps", "vmovaps", "ymm");
    // SAFETY: AVX is on. The upper halves are cleared, as code without AVX expects them.
    unsafe { asm!("vzeroupper", options(nomem, nostack)) }
    for register in 0..16 {
        check_eq!(after.0[register], before.0[register], "ymm{register} of processor {index}");
    }
}

/// The rounding mode and the masks survive too.
fn check_mxcsr(index: usize) {
    let (before, mut after) = (0x7f80u32, 0u32);
    let normal = 0x1f80u32;
    // SAFETY: sets a valid value (round to zero, all exceptions masked) and the usual one at the
    // end.
    unsafe {
        asm!(
            "ldmxcsr [{before}]", "in al, dx", "stmxcsr [{after}]", "ldmxcsr [{normal}]",
            before = in(reg) &raw const before, after = in(reg) &raw mut after, normal = in(reg) &raw const normal,
            in("dx") PORT, out("al") _, options(nostack)
        );
    }
    check_eq!(after, before, "MXCSR of processor {index}");
}

fn with_avx() -> bool {
    boot::args().iter().any(|arg| arg == "avx")
}

fn work(index: usize) {
    check_sse(index);
    check_mxcsr(index);
    if with_avx() {
        enable_avx(index);
        check_avx(index);
    }
}

fn main() {
    smp::on_others(work);
    work(0);
    smp::wait_until_done();
    let kind = if with_avx() { "SSE and AVX" } else { "SSE" };
    println!("{kind}, {} processors, {EXITS} exits each", boot::cpus());
}
