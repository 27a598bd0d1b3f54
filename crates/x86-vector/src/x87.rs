//! x87 instructions, executed by the host's x87 with the guest's registers, control word and status
//! word.

mod control;
mod environment;
mod quick;
mod table;

use iced_x86::{Code, Instruction, OpKind};

use crate::Handler;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::{Outcome, STATUS_FLAGS};
use crate::state::{VectorState, X87};

/// Status word: all exception flags, and stack fault.
const FLAGS: u16 = 0x7f;
/// Status and control word: invalid operation, overflow and underflow, each of which keeps a store
/// from being done.
const NOT_STORED: u16 = 0x19;

/// The x87 state as FNSAVE writes it in 32-bit protected format (Intel SDM vol. 1, 8.1.10).
#[derive(Clone, Copy)]
#[repr(C)]
struct Image {
    control: u16,
    reserved0: u16,
    status: u16,
    reserved1: u16,
    /// Two bits a register, in physical order: 3 if it is empty.
    tags: u16,
    reserved2: u16,
    pointers: [u32; 4],
    /// ST(0) to ST(7).
    stack: [[u8; 10]; 8],
}

impl Image {
    /// The state, without flags of exceptions, none of which is pending.
    fn of(x87: &X87) -> Self {
        let mut tags = 0;
        for index in (0..8).rev() {
            tags = tags << 2 | if x87.tags >> index & 1 == 0 { 3 } else { 0 };
        }
        Self {
            control: x87.control,
            reserved0: 0,
            status: x87.status & 0x7f00,
            reserved1: 0,
            tags,
            reserved2: 0,
            pointers: [0; 4],
            stack: std::array::from_fn(|index| x87.st(index)),
        }
    }

    /// Puts the state after an instruction into `x87`. Returns the flags of the exceptions that the
    /// instruction raised.
    fn apply(&self, x87: &mut X87) -> u16 {
        x87.status = self.status & 0x7f7f | x87.status & FLAGS;
        x87.tags = abridged_tags(self.tags);
        for (index, register) in self.stack.iter().enumerate() {
            x87.set_st(index, *register);
        }
        x87.update_summary();
        self.status & FLAGS
    }
}

/// The abridged tag word: a bit for each register that is not empty.
fn abridged_tags(tags: u16) -> u8 {
    (0..8_u8).fold(0, |word, index| {
        let empty = tags >> index.wrapping_mul(2) & 3 == 3;
        word | u8::from(!empty) << index
    })
}

/// An x87 instruction.
trait Operation {
    /// Executes it on the registers in `image`. Bits 8 to 15 of `flags` are the low byte of RFLAGS
    /// before, and bit 0 is OF; the result is the same of RFLAGS after. Memory is at `memory`, and
    /// `register` is the number of ST(i).
    ///
    /// # Safety
    ///
    /// `image` and `memory` are valid, and no exception is pending in `image`.
    unsafe fn run(image: *mut Image, memory: *mut [u8; 16], register: u64, flags: u64) -> u64;

    /// The shorter way.
    const QUICK: Quick;
    /// `true` if the shorter way takes all condition codes from the host, and not C1 alone.
    const CONDITIONS: bool;

    /// Executes it on ST(0) in `a` and, if it has another register, that in `b`, whose number is
    /// `register`. `control` is the control word, with all exceptions masked, and the host's. The
    /// result is the status word and, from bit 16 on, what [`Operation::run`] returns.
    ///
    /// # Safety
    ///
    /// All pointers are valid.
    unsafe fn quick(
        a: *mut [u8; 10],
        b: *mut [u8; 10],
        memory: *mut [u8; 16],
        register: u64,
        control: *const u16,
    ) -> u64;
}

/// The method of [`Operation`] that executes an instruction of the given text.
macro_rules! x87_method {
    ($text:expr) => {
        unsafe fn run(image: *mut Image, memory: *mut [u8; 16], register: u64, flags: u64) -> u64 {
            let after: u64;
            // SAFETY: the caller passes valid pointers. FNSAVE leaves the x87 as after FNINIT,
            // which is how the host has it, and waits for no exception; FRSTOR finds none pending.
            unsafe {
                core::arch::asm!(
                    "frstor [{p}]",
                    "mov eax, {f:e}",
                    "add al, 0x7f",
                    "sahf",
                    $text,
                    "fnsave [{p}]",
                    "lahf",
                    "seto al",
                    "movzx eax, ax",
                    "# {m} {r}",
                    p = in(reg) image,
                    m = in(reg) memory,
                    r = in(reg) register,
                    f = in(reg) flags,
                    out("rax") after,
                    out("rcx") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _,
                    out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _,
                    out("mm6") _, out("mm7") _,
                    options(nostack),
                );
            }
            after
        }
    };
}

/// The lines that execute an instruction on ST(i), of the opcode bytes `first` and `second` + i,
/// without a change of flags.
macro_rules! register {
    ($first:literal, $second:literal) => {
        concat!(
            "lea rcx, [rip + 2f]\n lea rcx, [rcx + {r} * 8]\n jmp rcx\n .balign 8\n 2:\n .irp n,0,1,2,3,4,5,6,7\n .byte ",
            $first,
            ", ",
            $second,
            " + \\n\n jmp 3f\n .balign 8\n .endr\n 3:"
        )
    };
}

use quick::Quick;
use {register, x87_method};

/// Number of the register ST(i) that an instruction names beside ST(0), or alone.
fn stack_register(instruction: &Instruction) -> u64 {
    let number = |operand: u32| {
        if instruction.op_kind(operand) != OpKind::Register || operand >= instruction.op_count() {
            return 0;
        }
        (instruction.op_register(operand) as u64).wrapping_sub(iced_x86::Register::ST0 as u64) & 7
    };
    number(0) | number(1)
}

/// Records what FNSTENV shows of the last instruction.
fn record<C: Operands>(x87: &mut X87, instruction: &Instruction, context: &C) {
    x87.instruction = context.rip();
    x87.opcode = context.x87_opcode(instruction) & 0x7ff;
    if instruction.op_count() != 0 && instruction.op0_kind() == OpKind::Memory {
        x87.data = context.effective_address(instruction, 0);
    }
}

/// Executes an instruction on a copy of the x87 registers.
fn execute<C: Operands, O: Operation>(
    state: &VectorState,
    instruction: &Instruction,
    context: &C,
    memory: &mut [u8; 16],
) -> (X87, u16, u64) {
    let mut image = Image::of(&state.x87);
    let flags = (context.flags() & 0xff) << 8 | context.flags() >> 11 & 1;
    // SAFETY: the pointers are made of references, and the flags of exceptions in the image are
    // zero.
    let flags = unsafe { O::run(&raw mut image, memory, stack_register(instruction), flags) };
    let mut x87 = state.x87.clone();
    let raised = image.apply(&mut x87);
    record(&mut x87, instruction, context);
    (x87, raised, flags)
}

/// An instruction on registers.
fn registers<C: Operands, O: Operation, const SIZE: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let mut memory = [0; 16];
    state.x87 = match quick::execute::<C, O>(&state.x87, instruction, context, &mut memory) {
        Some(done) => done.x87,
        None => execute::<C, O>(state, instruction, context, &mut memory).0,
    };
    Ok(())
}

/// An instruction that reads `SIZE` bytes of memory.
fn load<C: Operands, O: Operation, const SIZE: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let mut memory = [0; 16];
    context.load(instruction, 0, memory.get_mut(..SIZE).unwrap_or_default())?;
    state.x87 = match quick::execute::<C, O>(&state.x87, instruction, context, &mut memory) {
        Some(done) => done.x87,
        None => execute::<C, O>(state, instruction, context, &mut memory).0,
    };
    Ok(())
}

/// An instruction that writes `SIZE` bytes of memory, unless it raises an unmasked exception other
/// than inexact.
fn store<C: Operands, O: Operation, const SIZE: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let mut memory = [0; 16];
    if let Some(done) = quick::execute::<C, O>(&state.x87, instruction, context, &mut memory) {
        context.store(instruction, 0, memory.get(..SIZE).unwrap_or_default())?;
        state.x87 = done.x87;
        return Ok(());
    }
    let (x87, raised, _) = execute::<C, O>(state, instruction, context, &mut memory);
    if raised & NOT_STORED & !state.x87.control == 0 {
        context.store(instruction, 0, memory.get(..SIZE).unwrap_or_default())?;
    } else {
        context.check_store(instruction, 0, SIZE)?;
    }
    state.x87 = x87;
    Ok(())
}

/// A comparison that sets the status flags.
fn compare<C: Operands, O: Operation, const SIZE: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let mut memory = [0; 16];
    let flags;
    // Some processors clear C1, and others leave it.
    let quick = if state.x87.status & quick::C1 == 0 {
        quick::execute::<C, O>(&state.x87, instruction, context, &mut memory)
    } else {
        None
    };
    (state.x87, flags) = match quick {
        Some(done) => (done.x87, done.flags),
        None => {
            let (x87, _, flags) = execute::<C, O>(state, instruction, context, &mut memory);
            (x87, flags)
        }
    };
    context.set_flags(STATUS_FLAGS, flags >> 8 & (STATUS_FLAGS & 0xff) | (flags & 1) << 11);
    Ok(())
}

/// Returns the handler of the instruction.
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    table::handler(code).or_else(|| control::handler(code)).or_else(|| environment::handler(code))
}
