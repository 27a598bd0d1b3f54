//! A guest that reboots, on the processor in software.

use crate::config::{Config, OnCrash, OnReboot};
use crate::tiny_kernel::{Code, ENTRY, Guest, JNZ, JZ};
use crate::{Embedding, Machine, Outcome, tiny_kernel};

/// Code of the guest's end if it did not find the machine in its first state.
const BAD: i32 = 3;

/// A multiboot kernel that looks whether it finds the machine in its first state, prints `?`, and
/// does what it reads from the serial port: `c`, `k` and `t` are ways to reboot, anything else
/// ends it with 1.
fn kernel() -> Vec<u8> {
    let mut code = Code::default();
    // RAM behind the kernel is zero, and its data is as loaded: it is the first four bytes here.
    code.add(&[0xeb, 4, 0x5a, 0x5a, 0x5a, 0x5a]); // jmp over the data
    code.add(&[0x83, 0x3d]).add(&0x30_0000_u32.to_le_bytes()).add(&[0]).jump(JNZ, "bad");
    code.add(&[0x81, 0x3d]).add(&(ENTRY + 2).to_le_bytes()).add(&[0x5a; 4]).jump(JNZ, "bad");
    code.add(&[0xff, 0x05]).add(&0x30_0000_u32.to_le_bytes()); // inc dword [0x300000]
    code.add(&[0xff, 0x05]).add(&(ENTRY + 2).to_le_bytes()); // inc dword [data]
    code.add(&[0x66, 0xba, 0xff, 0x03, 0xec, 0xa8, 0xff]).jump(JNZ, "bad"); // scratch is 0
    code.add(&[0xb0, 3, 0xee]); // mov al, 3; out dx, al
    code.ask();
    code.label("wait").add(&[0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 1]).jump(JZ, "wait");
    code.add(&[0x66, 0xba, 0xf8, 0x03, 0xec]); // in al, 0x3f8
    for (byte, target) in [(b'c', "register"), (b'k', "keyboard"), (b't', "fault")] {
        code.add(&[0x3c, byte]).jump(JZ, target);
    }
    code.add(&[0x31, 0xc0, 0xe7, 0xf4]); // xor eax, eax; out 0xf4, eax
    code.label("register").add(&[0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xf4]);
    code.label("keyboard").add(&[0xb0, 0xfe, 0xe6, 0x64, 0xf4]);
    code.label("fault").add(&[0x0f, 0x01, 0x1d]).add(&0x40_0000_u32.to_le_bytes()); // lidt [0]
    code.add(&[0x0f, 0x0b]); // ud2
    code.label("bad").add(&[0xb8, 1, 0, 0, 0, 0xe7, 0xf4]); // mov eax, 1; out 0xf4, eax
    code.kernel()
}

fn config() -> Config {
    let mut config = tiny_kernel::config();
    config.cpus.count = Some(2);
    config.devices.random = true;
    config.observe.on_reboot = OnReboot::Restart;
    config
}

#[test]
fn each_way_to_reboot_restarts_the_machine() {
    let mut guest = Guest::start(kernel(), &config());
    for way in *b"cktcckkttq" {
        guest.tell(way);
    }
    let (outcome, report) = guest.end();
    assert!(matches!(outcome, Outcome::Exited(1)), "{outcome} ({BAD} is a state that is left)");
    assert_eq!(report.restarts, 9);
}

#[test]
fn a_reboot_ends_the_machine_by_default() {
    let default = Config { observe: crate::config::Observe::default(), ..config() };
    for (way, is_right) in [
        (b'c', (|end| matches!(end, Outcome::Reset)) as fn(&Outcome) -> bool),
        (b'k', |end| matches!(end, Outcome::KeyboardReset)),
        (b't', |end| matches!(end, Outcome::Crashed(_))),
    ] {
        let mut guest = Guest::start(kernel(), &default);
        guest.tell(way);
        let (outcome, report) = guest.end();
        assert!(is_right(&outcome), "{outcome}");
        assert_eq!(report.restarts, 0);
    }
}

#[test]
fn a_triple_fault_is_a_crash_where_a_core_file_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.observe.on_crash = OnCrash::Dump(folder.path().join("core"));
    let mut guest = Guest::start(kernel(), &config);
    guest.tell(b'k');
    guest.tell(b't');
    let (outcome, report) = guest.end();
    assert!(matches!(outcome, Outcome::Crashed(_)), "{outcome}");
    assert_eq!(report.restarts, 1);
}

#[test]
fn a_stop_ends_a_machine_that_restarts_all_the_time() {
    let mut guest = Guest::start(kernel(), &config());
    for _ in 0..20 {
        guest.tell(b'c');
    }
    guest.handle().stop();
    assert!(matches!(guest.end().0, Outcome::Stopped));
}

#[test]
fn devices_without_a_saved_state_cannot_restart() {
    let embedding =
        Embedding::new().image(kernel()).hypercall(0x900, |_| std::ops::ControlFlow::Continue(()));
    let error = Machine::embed(&config(), embedding).unwrap().start().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Host);
    let text = nerite_log_budget::Causes(&error).to_string();
    assert!(text.contains("embedding program"), "{text}");
}
