//! x86-64 boot state as plain data: registers, CPUID, MSRs, GDT, page tables, device tree, boot information.
