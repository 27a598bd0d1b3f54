//! Registers as JSON: every value a hexadecimal text, because JSON's numbers do not hold 64 bits
//! everywhere.

use nerite_arch::{DescriptorTable, Regs, Segment, SpecialRegs};
use serde_json::{Value, json};

fn hex(value: u64) -> Value {
    Value::String(format!("{value:#x}"))
}

fn segment(segment: &Segment) -> Value {
    json!({
        "selector": hex(segment.selector.into()),
        "base": hex(segment.base),
        "limit": hex(segment.limit.into()),
        "dpl": segment.dpl,
        "type": segment.kind,
        "long": segment.l,
    })
}

fn table(table: DescriptorTable) -> Value {
    json!({ "base": hex(table.base), "limit": hex(table.limit.into()) })
}

/// The registers of one vCPU.
pub(crate) fn to_json(vcpu: usize, regs: &Regs, special: &SpecialRegs) -> Value {
    let general = json!({
        "rax": hex(regs.rax), "rbx": hex(regs.rbx), "rcx": hex(regs.rcx), "rdx": hex(regs.rdx),
        "rsi": hex(regs.rsi), "rdi": hex(regs.rdi), "rsp": hex(regs.rsp), "rbp": hex(regs.rbp),
        "r8": hex(regs.r8), "r9": hex(regs.r9), "r10": hex(regs.r10), "r11": hex(regs.r11),
        "r12": hex(regs.r12), "r13": hex(regs.r13), "r14": hex(regs.r14), "r15": hex(regs.r15),
        "rip": hex(regs.rip), "rflags": hex(regs.rflags),
    });
    json!({
        "vcpu": vcpu,
        "general": general,
        "control": {
            "cr0": hex(special.cr0), "cr2": hex(special.cr2), "cr3": hex(special.cr3),
            "cr4": hex(special.cr4), "cr8": hex(special.cr8), "efer": hex(special.efer),
            "apic_base": hex(special.apic_base),
        },
        "segments": {
            "cs": segment(&special.cs), "ds": segment(&special.ds), "es": segment(&special.es),
            "fs": segment(&special.fs), "gs": segment(&special.gs), "ss": segment(&special.ss),
            "tr": segment(&special.tr), "ldt": segment(&special.ldt),
        },
        "tables": { "gdt": table(special.gdt), "idt": table(special.idt) },
    })
}
