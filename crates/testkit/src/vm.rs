//! Small guests for tests of hypervisors, in 64-bit mode on identity-mapped memory.
//!
//! They need no MMIO, and report by ports that no interrupt controller has.

use std::sync::Arc;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::paging::IdentityMap;
use nerite_arch::{BootState, DescriptorTable, gdt};
use nerite_hypervisor::{Entry, Exit, Vcpu};
use nerite_memory::{Backing, GuestRam, Region};

/// Size of the guests' RAM.
pub const RAM: u64 = 2 << 20;
/// Memory that the page tables map and that is not RAM.
pub const MMIO: u64 = 0x30_0000;
/// Guest-physical address of a test's own program.
pub const CODE: u64 = 0x1_0000;
/// Port written when a round or a set-up is done.
pub const STEP: u16 = 0x90;
/// Port of a result of [`compute`], or of the timer's interrupt.
pub const RESULT: u16 = 0x91;
/// Port written at the end of [`compute`], or by [`application`] when it is ready.
pub const DONE: u16 = 0x92;
/// Port written by [`application`] at the interrupt from the other processor.
pub const INTERRUPTED: u16 = 0x93;

/// Runs a guest to its next write of a port, and returns the port and the value.
///
/// # Panics
/// If it ends with another exit.
pub fn next_write(vcpu: &mut dyn Vcpu) -> (u16, u32) {
    match vcpu.run(Entry::Resume).unwrap() {
        Exit::PortOut { port, value, .. } => (port, value),
        other => panic!("{other:?}"),
    }
}

/// Runs a guest until it writes [`DONE`], and returns its results.
///
/// # Panics
/// As [`next_write`].
pub fn results(vcpu: &mut dyn Vcpu) -> Vec<u32> {
    let mut results = Vec::new();
    loop {
        match next_write(vcpu) {
            (RESULT, value) => results.push(value),
            (DONE, _) => return results,
            _ => {}
        }
    }
}

const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const COMPUTE_CODE: u64 = 0x1_1000;
const BSP_CODE: u64 = 0x1_2000;
const DEADLINE_CODE: u64 = 0x1_3000;
const AP_CODE: u64 = 0x1_4000;
const TICK_CODE: u64 = 0x1_5000;
const IPI_CODE: u64 = 0x1_6000;
const CHECKSUM_CODE: u64 = 0x1_7000;
const BEAT_CODE: u64 = 0x1_8000;
const IDT: u64 = 0x2_0000;
const CHECKSUM_DATA: u64 = 0x5_0000;
/// Number of the periodic timer's interrupts in [`checksum`], 32 bits.
pub const BEATS: u64 = 0x6_0000;
const STACKS: u64 = 0x4_0000;
/// Vectors of the timer's interrupt, of the one between processors, and of the periodic timer.
const TICK_VECTOR: u64 = 0x40;
const IPI_VECTOR: u64 = 0x41;
const BEAT_VECTOR: u64 = 0x42;
/// The code segment of the boot GDT, and a present 64-bit interrupt gate.
const CODE_SELECTOR: u64 = 8;
const GATE: u64 = 0x8e;

/// RAM with page tables, descriptor tables and all programs.
pub fn ram() -> Arc<GuestRam> {
    let ram = empty();
    let map =
        IdentityMap { pml4: PML4, tables_start: TABLES, tables_end: CODE, start: 0, end: 4 << 20 };
    for table in map.tables().unwrap() {
        ram.write(table.addr, table.bytes.as_slice()).unwrap();
    }
    ram.write(GDT, &gdt::bytes()).unwrap();
    let programs: [(u64, &[u8]); 8] = [
        (COMPUTE_CODE, &COMPUTE),
        (BSP_CODE, &BSP),
        (DEADLINE_CODE, &DEADLINE),
        (AP_CODE, &AP),
        (TICK_CODE, &TICK),
        (IPI_CODE, &IPI),
        (CHECKSUM_CODE, &CHECKSUM),
        (BEAT_CODE, &BEAT),
    ];
    for (address, code) in programs {
        ram.write(address, code).unwrap();
    }
    for (vector, handler) in
        [(TICK_VECTOR, TICK_CODE), (IPI_VECTOR, IPI_CODE), (BEAT_VECTOR, BEAT_CODE)]
    {
        let gate = handler & 0xffff | CODE_SELECTOR << 16 | GATE << 40 | (handler >> 16) << 48;
        ram.write_obj(IDT + vector * 16, &gate).unwrap();
    }
    ram
}

fn empty() -> Arc<GuestRam> {
    Arc::new(GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default()).unwrap())
}

/// RAM with the same bytes.
pub fn copy(ram: &GuestRam) -> Arc<GuestRam> {
    let copy = empty();
    let mut page = [0; 4096];
    for address in (0..RAM).step_by(page.len()) {
        ram.read(address, &mut page).unwrap();
        copy.write(address, &page).unwrap();
    }
    copy
}

/// The state in which processor `index` starts at `entry`, with the stack and tables of [`ram`].
pub fn entry_state(index: u32, entry: u64) -> BootState {
    let stack = STACKS + u64::from(index) * 0x1_0000;
    let addresses = BootAddresses { entry, boot_info: 0, stack, pml4: PML4, gdt: GDT };
    let mut state = BootState::hermit(index, &addresses);
    state.special.idt = DescriptorTable { base: IDT, limit: 0xfff };
    state
}

/// 16 rounds of SSE, x87 and integer arithmetic, each with a write to [`STEP`] at its end; then
/// eight results and [`DONE`].
pub fn compute() -> BootState {
    entry_state(0, COMPUTE_CODE)
}

/// So many rounds of checksums over memory with integers, SSE and x87, each with a write to
/// [`STEP`] at its end, while a periodic timer interrupts each millisecond; then five results and
/// [`DONE`].
pub fn checksum(rounds: u64) -> BootState {
    let mut state = entry_state(0, CHECKSUM_CODE);
    (state.regs.rcx, state.regs.rsi) = (rounds, CHECKSUM_DATA);
    state
}

/// Starts the local APIC's timer, one shot of 300 ms, writes [`STEP`] and halts. At the interrupt
/// it sends another one to processor 1 and writes [`RESULT`].
pub fn timer() -> BootState {
    entry_state(0, BSP_CODE)
}

/// As [`timer`], in TSC deadline mode: 300 million ticks.
pub fn deadline_timer() -> BootState {
    entry_state(0, DEADLINE_CODE)
}

/// Processor 1: writes [`DONE`] and halts. At the interrupt it writes [`INTERRUPTED`].
pub fn application() -> BootState {
    entry_state(1, AP_CODE)
}

#[rustfmt::skip]
const COMPUTE: [u8; 145] = [
    0x0f, 0x20, 0xe0,                         // mov rax,cr4
    0x0d, 0x00, 0x06, 0x00, 0x00,             // or eax,0x600
    0x0f, 0x22, 0xe0,                         // mov cr4,rax
    0xdb, 0xe3,                               // fninit
    0xd9, 0xeb,                               // fldpi
    0xd9, 0xe8,                               // fld1
    0xb8, 0x03, 0x00, 0x00, 0x00,             // mov eax,0x3
    0xf2, 0x0f, 0x2a, 0xc0,                   // cvtsi2sd xmm0,eax
    0xb8, 0x07, 0x00, 0x00, 0x00,             // mov eax,0x7
    0xf2, 0x0f, 0x2a, 0xc8,                   // cvtsi2sd xmm1,eax
    0xbb, 0x45, 0x23, 0x01, 0x00,             // mov ebx,0x12345
    0xb9, 0x10, 0x00, 0x00, 0x00,             // mov ecx,0x10
    0xba, 0x64, 0x00, 0x00, 0x00,             // mov edx,0x64
    0xf2, 0x0f, 0x58, 0xc1,                   // addsd xmm0,xmm1
    0xf2, 0x0f, 0x5e, 0xc8,                   // divsd xmm1,xmm0
    0x66, 0x0f, 0xfe, 0xd1,                   // paddd xmm2,xmm1
    0xd8, 0xc1,                               // fadd st,st(1)
    0x48, 0x69, 0xdb, 0x2d, 0xf4, 0x51, 0x58, // imul rbx,rbx,0x5851f42d
    0x48, 0x81, 0xc3, 0x7e, 0x7b, 0x05, 0x14, // add rbx,0x14057b7e
    0xff, 0xca,                               // dec edx
    0x75, 0xe0,                               // jne 0x32
    0xe6, 0x90,                               // out 0x90,al
    0xff, 0xc9,                               // dec ecx
    0x75, 0xd5,                               // jne 0x2d
    0x66, 0x48, 0x0f, 0x7e, 0xc0,             // movq rax,xmm0
    0xe7, 0x91,                               // out 0x91,eax
    0x48, 0xc1, 0xe8, 0x20,                   // shr rax,0x20
    0xe7, 0x91,                               // out 0x91,eax
    0x66, 0x48, 0x0f, 0x7e, 0xd0,             // movq rax,xmm2
    0xe7, 0x91,                               // out 0x91,eax
    0x48, 0x89, 0xd8,                         // mov rax,rbx
    0xe7, 0x91,                               // out 0x91,eax
    0x48, 0xc1, 0xe8, 0x20,                   // shr rax,0x20
    0xe7, 0x91,                               // out 0x91,eax
    0xdb, 0x7c, 0x24, 0xf0,                   // fstp TBYTE PTR [rsp-0x10]
    0x8b, 0x44, 0x24, 0xf0,                   // mov eax,DWORD PTR [rsp-0x10]
    0xe7, 0x91,                               // out 0x91,eax
    0x8b, 0x44, 0x24, 0xf4,                   // mov eax,DWORD PTR [rsp-0xc]
    0xe7, 0x91,                               // out 0x91,eax
    0x0f, 0xb7, 0x44, 0x24, 0xf8,             // movzx eax,WORD PTR [rsp-0x8]
    0xe7, 0x91,                               // out 0x91,eax
    0xe6, 0x92,                               // out 0x92,al
    0xf4,                                     // hlt
];
#[rustfmt::skip]
const BSP: [u8; 72] = [
    0x31, 0xd2,                   // xor edx,edx
    0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx,0x1b
    0x0f, 0x32,                   // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00, // or eax,0xc00
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx,0x80f
    0x31, 0xd2,                   // xor edx,edx
    0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax,0x1ff
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x3e, 0x08, 0x00, 0x00, // mov ecx,0x83e
    0xb8, 0x0b, 0x00, 0x00, 0x00, // mov eax,0xb
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x32, 0x08, 0x00, 0x00, // mov ecx,0x832
    0xb8, 0x40, 0x00, 0x00, 0x00, // mov eax,0x40
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x38, 0x08, 0x00, 0x00, // mov ecx,0x838
    0xb8, 0x00, 0xa3, 0xe1, 0x11, // mov eax,0x11e1a300
    0x0f, 0x30,                   // wrmsr
    0xe6, 0x90,                   // out 0x90,al
    0xfb,                         // sti
    0xf4,                         // hlt
    0xeb, 0xfd,                   // jmp 0x45
];
#[rustfmt::skip]
const DEADLINE: [u8; 77] = [
    0x31, 0xd2,                         // xor edx,edx
    0xb9, 0x1b, 0x00, 0x00, 0x00,       // mov ecx,0x1b
    0x0f, 0x32,                         // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00,       // or eax,0xc00
    0x0f, 0x30,                         // wrmsr
    0xb9, 0x0f, 0x08, 0x00, 0x00,       // mov ecx,0x80f
    0x31, 0xd2,                         // xor edx,edx
    0xb8, 0xff, 0x01, 0x00, 0x00,       // mov eax,0x1ff
    0x0f, 0x30,                         // wrmsr
    0xb9, 0x32, 0x08, 0x00, 0x00,       // mov ecx,0x832
    0xb8, 0x40, 0x00, 0x04, 0x00,       // mov eax,0x40040
    0x0f, 0x30,                         // wrmsr
    0x0f, 0x31,                         // rdtsc
    0x48, 0xc1, 0xe2, 0x20,             // shl rdx,0x20
    0x48, 0x01, 0xd0,                   // add rax,rdx
    0x48, 0x05, 0x00, 0xa3, 0xe1, 0x11, // add rax,0x11e1a300
    0x48, 0x89, 0xc2,                   // mov rdx,rax
    0x48, 0xc1, 0xea, 0x20,             // shr rdx,0x20
    0xb9, 0xe0, 0x06, 0x00, 0x00,       // mov ecx,0x6e0
    0x0f, 0x30,                         // wrmsr
    0xe6, 0x90,                         // out 0x90,al
    0xfb,                               // sti
    0xf4,                               // hlt
    0xeb, 0xfd,                         // jmp 0x4a
];
#[rustfmt::skip]
const TICK: [u8; 32] = [
    0xb9, 0x0b, 0x08, 0x00, 0x00, // mov ecx,0x80b
    0x31, 0xc0,                   // xor eax,eax
    0x31, 0xd2,                   // xor edx,edx
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x30, 0x08, 0x00, 0x00, // mov ecx,0x830
    0xb8, 0x41, 0x00, 0x00, 0x00, // mov eax,0x41
    0xba, 0x01, 0x00, 0x00, 0x00, // mov edx,0x1
    0x0f, 0x30,                   // wrmsr
    0xe6, 0x91,                   // out 0x91,al
    0x48, 0xcf,                   // iretq
];
#[rustfmt::skip]
const AP: [u8; 36] = [
    0x31, 0xd2,                   // xor edx,edx
    0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx,0x1b
    0x0f, 0x32,                   // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00, // or eax,0xc00
    0x0f, 0x30,                   // wrmsr
    0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx,0x80f
    0x31, 0xd2,                   // xor edx,edx
    0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax,0x1ff
    0x0f, 0x30,                   // wrmsr
    0xe6, 0x92,                   // out 0x92,al
    0xfb,                         // sti
    0xf4,                         // hlt
    0xeb, 0xfd,                   // jmp 0x21
];
#[rustfmt::skip]
const IPI: [u8; 15] = [
    0xb9, 0x0b, 0x08, 0x00, 0x00, // mov ecx,0x80b
    0x31, 0xc0,                   // xor eax,eax
    0x31, 0xd2,                   // xor edx,edx
    0x0f, 0x30,                   // wrmsr
    0xe6, 0x93,                   // out 0x93,al
    0x48, 0xcf,                   // iretq
];
#[rustfmt::skip]
const CHECKSUM: [u8; 195] = [
    0x49, 0x89, 0xc9,                         // mov r9,rcx
    0x0f, 0x20, 0xe0,                         // mov rax,cr4
    0x0d, 0x00, 0x06, 0x00, 0x00,             // or eax,0x600
    0x0f, 0x22, 0xe0,                         // mov cr4,rax
    0x31, 0xd2,                               // xor edx,edx
    0xb9, 0x1b, 0x00, 0x00, 0x00,             // mov ecx,0x1b
    0x0f, 0x32,                               // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00,             // or eax,0xc00
    0x0f, 0x30,                               // wrmsr
    0x31, 0xd2,                               // xor edx,edx
    0xb9, 0x0f, 0x08, 0x00, 0x00,             // mov ecx,0x80f
    0xb8, 0xff, 0x01, 0x00, 0x00,             // mov eax,0x1ff
    0x0f, 0x30,                               // wrmsr
    0xb9, 0x3e, 0x08, 0x00, 0x00,             // mov ecx,0x83e
    0xb8, 0x0b, 0x00, 0x00, 0x00,             // mov eax,0xb
    0x0f, 0x30,                               // wrmsr
    0xb9, 0x32, 0x08, 0x00, 0x00,             // mov ecx,0x832
    0xb8, 0x42, 0x00, 0x02, 0x00,             // mov eax,0x20042
    0x0f, 0x30,                               // wrmsr
    0xb9, 0x38, 0x08, 0x00, 0x00,             // mov ecx,0x838
    0xb8, 0x40, 0x42, 0x0f, 0x00,             // mov eax,0xf4240
    0x0f, 0x30,                               // wrmsr
    0xfb,                                     // sti
    0xdb, 0xe3,                               // fninit
    0xd9, 0xe8,                               // fld1
    0xd9, 0xee,                               // fldz
    0xbb, 0x67, 0x45, 0x23, 0x01,             // mov ebx,0x1234567
    0x45, 0x31, 0xc0,                         // xor r8d,r8d
    0x4a, 0x8b, 0x04, 0x06,                   // mov rax,QWORD PTR [rsi+r8*1]
    0x48, 0x31, 0xd8,                         // xor rax,rbx
    0x48, 0x69, 0xd8, 0x2d, 0xf4, 0x51, 0x58, // imul rbx,rax,0x5851f42d
    0x4c, 0x01, 0xc3,                         // add rbx,r8
    0x4a, 0x89, 0x1c, 0x06,                   // mov QWORD PTR [rsi+r8*1],rbx
    0x66, 0x48, 0x0f, 0x6e, 0xdb,             // movq xmm3,rbx
    0x66, 0x0f, 0xd4, 0xc3,                   // paddq xmm0,xmm3
    0xf2, 0x49, 0x0f, 0x2a, 0xe0,             // cvtsi2sd xmm4,r8
    0xf2, 0x0f, 0x58, 0xd4,                   // addsd xmm2,xmm4
    0xd8, 0xc1,                               // fadd st,st(1)
    0x49, 0x83, 0xc0, 0x40,                   // add r8,0x40
    0x49, 0x81, 0xf8, 0x00, 0x04, 0x00, 0x00, // cmp r8,0x400
    0x72, 0xca,                               // jb 0x5f
    0xe6, 0x90,                               // out 0x90,al
    0x49, 0xff, 0xc9,                         // dec r9
    0x75, 0xc0,                               // jne 0x5c
    0x48, 0x89, 0xd8,                         // mov rax,rbx
    0xe7, 0x91,                               // out 0x91,eax
    0x48, 0xc1, 0xe8, 0x20,                   // shr rax,0x20
    0xe7, 0x91,                               // out 0x91,eax
    0x66, 0x48, 0x0f, 0x7e, 0xc0,             // movq rax,xmm0
    0xe7, 0x91,                               // out 0x91,eax
    0x66, 0x48, 0x0f, 0x7e, 0xd0,             // movq rax,xmm2
    0x48, 0xc1, 0xe8, 0x20,                   // shr rax,0x20
    0xe7, 0x91,                               // out 0x91,eax
    0xdd, 0x1e,                               // fstp QWORD PTR [rsi]
    0x8b, 0x46, 0x04,                         // mov eax,DWORD PTR [rsi+0x4]
    0xe7, 0x91,                               // out 0x91,eax
    0xe6, 0x92,                               // out 0x92,al
    0xf4,                                     // hlt
];
#[rustfmt::skip]
const BEAT: [u8; 26] = [
    0x50,                                     // push rax
    0x51,                                     // push rcx
    0x52,                                     // push rdx
    0xff, 0x04, 0x25, 0x00, 0x00, 0x06, 0x00, // inc DWORD PTR ds:0x60000
    0xb9, 0x0b, 0x08, 0x00, 0x00,             // mov ecx,0x80b
    0x31, 0xc0,                               // xor eax,eax
    0x31, 0xd2,                               // xor edx,edx
    0x0f, 0x30,                               // wrmsr
    0x5a,                                     // pop rdx
    0x59,                                     // pop rcx
    0x58,                                     // pop rax
    0x48, 0xcf,                               // iretq
];
