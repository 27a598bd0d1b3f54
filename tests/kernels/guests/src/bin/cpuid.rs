//! The processor features that Hermit expects are reported, on every processor alike; with the
//! argument `osxsave`, XSAVE is turned on.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

fn check_features(index: usize) {
    let leaf1 = cpu::cpuid(1, 0);
    for (bit, name) in [(21, "x2APIC"), (24, "TSC deadline"), (31, "hypervisor")] {
        check!(leaf1.ecx & 1 << bit != 0, "CPUID 1 ECX of processor {index} lacks {name}");
    }
    for (bit, name) in [(4, "TSC"), (5, "MSR"), (6, "PAE"), (9, "APIC"), (25, "SSE"), (26, "SSE2")]
    {
        check!(leaf1.edx & 1 << bit != 0, "CPUID 1 EDX of processor {index} lacks {name}");
    }
    let extended = cpu::cpuid(0x8000_0001, 0);
    for (bit, name) in [(20, "NX"), (29, "long mode")] {
        check!(
            extended.edx & 1 << bit != 0,
            "CPUID 0x80000001 EDX of processor {index} lacks {name}"
        );
    }
    let bits = cpu::cpuid(0x8000_0008, 0).eax;
    check!((36..=52).contains(&(bits & 0xff)), "{} physical address bits", bits & 0xff);
    check!((48..=57).contains(&(bits >> 8 & 0xff)), "{} virtual address bits", bits >> 8 & 0xff);
    let signature = cpu::cpuid(0x4000_0000, 0);
    check!(signature.eax >= 0x4000_0000, "no hypervisor leaves");
}

fn main() {
    check_features(0);
    smp::on_others(check_features);
    smp::wait_until_done();
    let leaf7 = cpu::cpuid(7, 0);
    let leaf1 = cpu::cpuid(1, 0);
    println!(
        "FSGSBASE {}, RDRAND {}, RDSEED {}, XSAVE {}, AVX {}, SSE4.2 {}",
        leaf7.ebx & 1,
        leaf1.ecx >> 30 & 1,
        leaf7.ebx >> 18 & 1,
        leaf1.ecx >> 26 & 1,
        leaf1.ecx >> 28 & 1,
        leaf1.ecx >> 20 & 1
    );
    // A feature that is not there cannot be turned on: this is an exception then.
    if boot::args().iter().any(|arg| arg == "osxsave") {
        cpu::set_cr4(1 << 18);
        println!("CR4 is {:#x}", cpu::cr4());
    }
}
