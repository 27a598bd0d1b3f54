//! Speed of handlers: millions of instructions a second, without decoding.
//!
//! `cargo run --release -p nerite-x86-vector --example vector_speed`

#![allow(clippy::print_stdout, reason = "the figures are for people")]

use std::hint::black_box;
use std::time::Duration;

use iced_x86::{Decoder, DecoderOptions, Register};
use nerite_x86_vector::{Fields, Handler, Operands, VectorException, VectorState, lookup};
use rustix::time::{ClockId, clock_gettime};

/// Instructions of each measurement.
const COUNT: u32 = 20_000_000;

/// A decoded instruction.
struct Op(Fields);

impl AsRef<Fields> for Op {
    fn as_ref(&self) -> &Fields {
        &self.0
    }
}

/// A processor whose memory operands are all at one place.
struct Processor {
    vector: VectorState,
    memory: [u8; 64],
    registers: [u64; 16],
    flags: u64,
}

impl Operands for Processor {
    type Fault = ();
    type Op = Op;

    fn vector(&self) -> &VectorState {
        &self.vector
    }

    fn vector_mut(&mut self) -> &mut VectorState {
        &mut self.vector
    }

    #[inline]
    fn load_at(&mut self, _: &Op, offset: u64, bytes: &mut [u8]) -> Result<(), ()> {
        let start = usize::try_from(offset).map_err(|_| ())?;
        let from = self.memory.get(start..).and_then(|rest| rest.get(..bytes.len())).ok_or(())?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    #[inline]
    fn store_at(&mut self, _: &Op, offset: u64, bytes: &[u8]) -> Result<(), ()> {
        let start = usize::try_from(offset).map_err(|_| ())?;
        let to =
            self.memory.get_mut(start..).and_then(|rest| rest.get_mut(..bytes.len())).ok_or(())?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn load_element(&mut self, op: &Op, _: i64, bytes: &mut [u8]) -> Result<(), ()> {
        self.load_at(op, 0, bytes)
    }

    fn linear_address(&self, _: &Op) -> u64 {
        0
    }

    fn effective_address(&self, _: &Op) -> u64 {
        0
    }

    fn gpr(&self, register: Register) -> u64 {
        self.registers.get(register.full_register().number()).copied().unwrap_or(0)
    }

    fn set_gpr(&mut self, register: Register, value: u64) {
        if let Some(register) = self.registers.get_mut(register.full_register().number()) {
            *register = value;
        }
    }

    fn flags(&self) -> u64 {
        self.flags
    }

    fn set_flags(&mut self, mask: u64, value: u64) {
        self.flags = self.flags & !mask | value & mask;
    }

    fn xcr0(&self) -> u64 {
        7
    }

    fn rip(&self, _: &Op) -> u64 {
        0
    }

    fn real_mode(&self) -> bool {
        false
    }

    fn exception(&mut self, _: VectorException) {}
}

/// Decodes instructions; those that the host does not have are left out.
fn decode(code: &[u8]) -> Vec<(Op, Handler<Processor>)> {
    let decoder = Decoder::new(64, code, DecoderOptions::NONE);
    decoder
        .into_iter()
        .filter_map(|instruction| Some((Op(Fields::new(&instruction)), lookup(&instruction)?)))
        .collect()
}

/// Processor time of this thread: on a busy host, less than what goes by.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Executes the instructions again and again.
fn measure(name: &str, code: &[u8]) {
    let instructions = decode(code);
    if instructions.is_empty() {
        println!("{name:32} not on this host");
        return;
    }
    let mut state = VectorState::default();
    for (index, ymm) in state.ymm.iter_mut().enumerate() {
        for element in ymm.0.as_chunks_mut::<8>().0 {
            *element = (1.0 + index as f64 / 64.0).to_le_bytes();
        }
    }
    let mut processor =
        Processor { vector: state, memory: [0x3f; 64], registers: [3; 16], flags: 2 };
    let rounds = COUNT / u32::try_from(instructions.len()).unwrap_or(1);
    let start = processor_time();
    for _ in 0..rounds {
        for (op, handler) in &instructions {
            if handler(&mut processor, op).is_err() {
                println!("{name}: {:?} failed", op.0);
                return;
            }
        }
    }
    let seconds = (processor_time() - start).as_secs_f64();
    black_box(&processor.vector);
    println!("{name:32} {:6.0} million instructions a second", f64::from(COUNT) / seconds / 1e6);
}

fn main() {
    // movaps xmm0, xmm1; movaps xmm2, xmm3; movups [r13], xmm0; movups xmm4, [r13]
    measure(
        "SSE moves",
        &[0x0f, 0x28, 0xc1, 0x0f, 0x28, 0xd3, 0x41, 0x0f, 0x11, 0x45, 0, 0x41, 0x0f, 0x10, 0x65, 0],
    );
    // paddd xmm0, xmm1; pxor xmm2, xmm0; pand xmm3, xmm2; pcmpeqb xmm4, xmm5; pmovmskb eax, xmm4
    measure(
        "SSE integers",
        &[
            0x66, 0x0f, 0xfe, 0xc1, 0x66, 0x0f, 0xef, 0xd0, 0x66, 0x0f, 0xdb, 0xda, 0x66, 0x0f,
            0x74, 0xe5, 0x66, 0x0f, 0xd7, 0xc4,
        ],
    );
    // pshufd xmm0, xmm1, 0x1b; psrld xmm2, 3; punpckldq xmm3, xmm4; shufps xmm5, xmm6, 0x4e
    measure(
        "SSE shuffles",
        &[
            0x66, 0x0f, 0x70, 0xc1, 0x1b, 0x66, 0x0f, 0x72, 0xd2, 3, 0x66, 0x0f, 0x62, 0xdc, 0x0f,
            0xc6, 0xee, 0x4e,
        ],
    );
    // mulsd xmm0, xmm1; addsd xmm0, xmm2; divsd xmm0, xmm3; subsd xmm4, xmm0; movapd xmm0, xmm5
    measure(
        "SSE scalar doubles",
        &[
            0xf2, 0x0f, 0x59, 0xc1, 0xf2, 0x0f, 0x58, 0xc2, 0xf2, 0x0f, 0x5e, 0xc3, 0xf2, 0x0f,
            0x5c, 0xe0, 0x66, 0x0f, 0x28, 0xc5,
        ],
    );
    // mulps xmm0, xmm1; addps xmm0, xmm2; movaps xmm0, xmm5
    measure("SSE packed singles", &[0x0f, 0x59, 0xc1, 0x0f, 0x58, 0xc2, 0x0f, 0x28, 0xc5]);
    // cvtsi2sd xmm0, rax; cvttsd2si rcx, xmm1; ucomisd xmm2, xmm3
    measure(
        "SSE conversions",
        &[0xf2, 0x48, 0x0f, 0x2a, 0xc0, 0xf2, 0x48, 0x0f, 0x2c, 0xc9, 0x66, 0x0f, 0x2e, 0xd3],
    );
    // vpaddd ymm0, ymm1, ymm2; vpxor ymm3, ymm0, ymm1; vmovdqu ymm4, ymm3
    measure(
        "AVX2 integers",
        &[0xc5, 0xf5, 0xfe, 0xc2, 0xc5, 0xfd, 0xef, 0xd9, 0xc5, 0xfe, 0x6f, 0xe3],
    );
    // vmulpd ymm0, ymm1, ymm2; vaddpd ymm0, ymm0, ymm3
    measure("AVX packed doubles", &[0xc5, 0xf5, 0x59, 0xc2, 0xc5, 0xfd, 0x58, 0xc3]);
    // fld1; fadd st0, st0; fmul st0, st0; fstp qword [r13]
    measure("x87", &[0xd9, 0xe8, 0xd8, 0xc0, 0xd8, 0xc8, 0x41, 0xdd, 0x5d, 0]);
}
