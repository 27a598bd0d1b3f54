//! The child process that executes a batch.

use std::io::{Error, Result};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{mem, ptr};

use crate::case::{Case, MEMORY_ADDRESS, MEMORY_SIZE};
use crate::enter::{abort_address, exit_address, native_enter, prepare};

/// Address of the page of code.
const CODE: usize = 0x2010_0000;
/// Size of a page.
const PAGE: usize = 4096;
/// Size of the stack of the signal handler.
const STACK: usize = 1 << 16;

/// The case that is being executed in this process, for the signal handler.
static CURRENT: AtomicPtr<Case> = AtomicPtr::new(ptr::null_mut());

/// Maps memory.
fn map(address: usize, size: usize, protection: i32, flags: i32) -> Result<*mut u8> {
    // SAFETY: the kernel chooses a free place, or the flags say that nothing is replaced.
    let found = unsafe {
        libc::mmap(address as *mut _, size, protection, flags | libc::MAP_ANONYMOUS, -1, 0)
    };
    if found == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(found.cast()) }
}

/// Executes each case in a child process, and returns them with the state afterwards.
///
/// # Errors
///
/// Those of the system calls. A child that ends in another way than planned is an error too.
///
/// # Panics
///
/// If the host has no XSAVE.
pub fn execute(mut cases: Vec<Case>) -> Result<Vec<Case>> {
    assert_ne!(crate::vector_components(), 0, "the host has no XSAVE");
    let size = mem::size_of_val(cases.as_slice()).max(1);
    let shared = map(0, size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
    let shared_cases: *mut Case = shared.cast();
    // SAFETY: the mapping has room for the cases, which are plain data, and is aligned to a page.
    unsafe { ptr::copy_nonoverlapping(cases.as_ptr(), shared_cases, cases.len()) };
    // SAFETY: the child calls nothing but functions that are safe after a fork, and ends with
    // `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if run(shared_cases, cases.len()).is_ok() { 0 } else { 1 };
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child, if there is one.
    let waited = if child > 0 { unsafe { libc::waitpid(child, &raw mut status, 0) } } else { -1 };
    let result = if waited == child && status == 0 {
        // SAFETY: as above, in the other direction; the child has written whole cases.
        unsafe { ptr::copy_nonoverlapping(shared_cases, cases.as_mut_ptr(), cases.len()) };
        Ok(cases)
    } else if waited == child {
        Err(Error::other(format!("the child process ended with status {status:#x}")))
    } else {
        Err(Error::last_os_error())
    };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { libc::munmap(shared.cast(), size) };
    result
}

/// Executes the cases, in the child.
fn run(cases: *mut Case, count: usize) -> Result<()> {
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    let code = map(CODE, PAGE, all, fixed)?;
    let page = MEMORY_ADDRESS as usize & !(PAGE - 1);
    map(page, PAGE, libc::PROT_READ | libc::PROT_WRITE, fixed)?;
    map(page + PAGE, PAGE, libc::PROT_NONE, fixed)?;
    let memory = MEMORY_ADDRESS as *mut u8;
    catch_signals()?;
    prepare(CODE as u64);
    for index in 0..count {
        // SAFETY: the pointer is within the mapping of the cases, and there is one thread.
        let case = unsafe { &mut *cases.wrapping_add(index) };
        case.trap = [Case::NONE, 0];
        // SAFETY: the page is writable and longer than an instruction and the jump after it.
        unsafe { write_code(code, case) };
        // SAFETY: the memory is writable.
        unsafe { ptr::copy_nonoverlapping(case.memory.as_ptr(), memory, MEMORY_SIZE) };
        CURRENT.store(case, Ordering::Relaxed);
        // SAFETY: the code ends with a jump back, and a signal ends it too. The instruction is one
        // that a test has chosen, which writes to no other memory than that of the case.
        unsafe { native_enter(case) };
        // SAFETY: the memory is readable.
        unsafe { ptr::copy_nonoverlapping(memory, case.memory.as_mut_ptr(), MEMORY_SIZE) };
    }
    Ok(())
}

/// Writes the instruction, and a jump back.
///
/// # Safety
///
/// `page` is writable.
unsafe fn write_code(page: *mut u8, case: &Case) {
    let length = usize::from(case.length);
    let mut code = [0; 32];
    code[..length].copy_from_slice(&case.code[..length]);
    // JMP [RIP + 0]
    code[length..length + 6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
    code[length + 6..length + 14].copy_from_slice(&exit_address().to_le_bytes());
    // SAFETY: as the caller promises.
    unsafe { ptr::copy_nonoverlapping(code.as_ptr(), page, code.len()) };
}

/// Installs the handler for the signals of exceptions.
fn catch_signals() -> Result<()> {
    let stack = libc::stack_t {
        ss_sp: map(0, STACK, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?.cast(),
        ss_flags: 0,
        ss_size: STACK,
    };
    // SAFETY: the stack is mapped, and nothing else uses it.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action.sa_sigaction = on_signal as *const () as usize;
    for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGTRAP] {
        // SAFETY: the handler is of the type that the flags say.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// Order of registers in an instruction, as `gregs` has them.
const ORDER: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Puts the state at an exception into the case.
extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid context.
    let machine = unsafe { &mut (*context).uc_mcontext };
    let rip = machine.gregs[libc::REG_RIP as usize] as usize;
    if !(CODE..CODE + PAGE).contains(&rip) {
        // A bug: not the instruction's.
        // SAFETY: ends the process.
        unsafe { libc::_exit(100 + signal) };
    }
    // SAFETY: the case is being executed by the only thread.
    let case = unsafe { &mut *CURRENT.load(Ordering::Relaxed) };
    case.trap = [
        machine.gregs[libc::REG_TRAPNO as usize] as u32,
        machine.gregs[libc::REG_ERR as usize] as u32,
    ];
    for (register, index) in case.registers.iter_mut().zip(ORDER) {
        if index != libc::REG_RSP {
            *register = machine.gregs[index as usize] as u64;
        }
    }
    case.flags = machine.gregs[libc::REG_EFL as usize] as u64;
    // SAFETY: the kernel puts an XSAVE area in the standard format here, of which the components
    // are at least those of a case: the host has them.
    unsafe { ptr::copy_nonoverlapping(machine.fpregs.cast(), case.vector.as_mut_ptr(), 832) };
    machine.gregs[libc::REG_RIP as usize] = abort_address() as i64;
}
