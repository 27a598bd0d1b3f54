//! x87 instructions, executed by the host's x87 with the guest's registers, control word and status
//! word.

mod control;
mod environment;
mod quick;
mod table;

use iced_x86::Code;

use crate::Handler;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::{Outcome, STATUS_FLAGS};
use crate::state::X87;

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

/// Access of an instruction beside the x87 registers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing.
    Registers,
    /// Memory, which is read.
    Load,
    /// Memory, which is written unless an unmasked exception other than inexact is raised.
    Store,
    /// The status flags, which are written.
    Compare,
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

    /// Its access beside the registers.
    const ACCESS: Access;
    /// The shorter way.
    const QUICK: Quick;
    /// `true` if the shorter way takes all condition codes from the host, and not C1 alone.
    const CONDITIONS: bool;

    /// Executes it on ST(0) in `a` and, if it has another register, that in `b`, whose number is
    /// `register`. `control` is the control word, with all exceptions masked, and the host's. The
    /// result is the status word and, from bit 16 on, what [`Operation::run`] returns of
    /// comparisons.
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

    /// As [`Operation::quick`], with the host's control word and without the result.
    ///
    /// # Safety
    ///
    /// All pointers are valid.
    unsafe fn blind(a: *mut [u8; 10], b: *mut [u8; 10], memory: *mut [u8; 16], register: u64);
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

/// Records what FNSTENV shows of the last instruction.
#[inline(always)]
fn record<C: Operands>(context: &mut C, op: &C::Op, has_memory: bool) {
    let (rip, opcode) = (context.rip(op), context.x87_opcode(op) & 0x7ff);
    let data = has_memory.then(|| context.effective_address(op));
    let x87 = &mut context.vector_mut().x87;
    x87.instruction = rip;
    x87.opcode = opcode;
    if let Some(data) = data {
        x87.data = data;
    }
}

/// An instruction with `SIZE` bytes of memory.
fn handle<C: Operands, O: Operation, const SIZE: usize>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let mut memory = [0; 16];
    let bytes = memory.get_mut(..SIZE).unwrap_or_default();
    if O::ACCESS == Access::Load {
        context.load(op, bytes)?;
    }
    let number = usize::from(op.as_ref().stack);
    if quick::can_defer::<O>(&context.vector().x87, number) {
        if O::ACCESS == Access::Store {
            // Flags are not set if the operand cannot be written.
            context.check_store(op, SIZE)?;
        }
        quick::defer::<O, SIZE>(&mut context.vector_mut().x87, number, &mut memory);
        if O::ACCESS == Access::Store {
            context.store(op, memory.get(..SIZE).unwrap_or_default())?;
        }
        quick::move_top::<O>(&mut context.vector_mut().x87);
        record(context, op, matches!(O::ACCESS, Access::Load | Access::Store));
        return Ok(());
    }
    if O::QUICK.uses_host() {
        context.vector_mut().x87.collect();
    }
    let Some(done) = quick::execute::<O>(&context.vector().x87, number, &mut memory) else {
        return in_full::<C, O, SIZE>(context, op, &mut memory);
    };
    if O::ACCESS == Access::Store {
        context.store(op, memory.get(..SIZE).unwrap_or_default())?;
    }
    done.apply::<O>(&mut context.vector_mut().x87, number);
    record(context, op, matches!(O::ACCESS, Access::Load | Access::Store));
    if O::ACCESS == Access::Compare {
        set_flags(context, done.flags());
    }
    Ok(())
}

/// [`handle`] with all x87 registers in the host's.
#[inline(never)]
fn in_full<C: Operands, O: Operation, const SIZE: usize>(
    context: &mut C,
    op: &C::Op,
    memory: &mut [u8; 16],
) -> Outcome<C> {
    context.vector_mut().x87.collect();
    let before = &context.vector().x87;
    let mut image = Image::of(before);
    let flags = (context.flags() & 0xff) << 8 | context.flags() >> 11 & 1;
    let register = u64::from(op.as_ref().stack);
    // SAFETY: the pointers are made of references, and the flags of exceptions in the image are
    // zero.
    let flags = unsafe { O::run(&raw mut image, memory, register, flags) };
    let mut after = before.clone();
    let raised = image.apply(&mut after);
    if O::ACCESS == Access::Store {
        if raised & NOT_STORED & !before.control == 0 {
            context.store(op, memory.get(..SIZE).unwrap_or_default())?;
        } else {
            context.check_store(op, SIZE)?;
        }
    }
    context.vector_mut().x87 = after;
    record(context, op, matches!(O::ACCESS, Access::Load | Access::Store));
    if O::ACCESS == Access::Compare {
        set_flags(context, flags);
    }
    Ok(())
}

/// Sets the status flags to what [`Operation::run`] returns.
fn set_flags<C: Operands>(context: &mut C, flags: u64) {
    context.set_flags(STATUS_FLAGS, flags >> 8 & (STATUS_FLAGS & 0xff) | (flags & 1) << 11);
}

/// Returns the handler of the instruction.
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    table::handler(code).or_else(|| control::handler(code)).or_else(|| environment::handler(code))
}
