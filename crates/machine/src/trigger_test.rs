//! The instruction of a port write, found again.

use super::*;

#[test]
fn the_instruction_of_a_port_write_is_found() {
    for (code, port, width, length) in [
        ([0, 0, 0xee], 0x3f8, 1, Some(1)),
        ([0x66, 0x66, 0xef], 0x3f8, 4, Some(1)),
        ([0, 0x66, 0xef], 0x3f8, 2, Some(2)),
        ([0, 0, 0xef], 0x3f8, 2, Some(1)),
        // An immediate port that looks like the other form.
        ([0, 0xe6, 0xee], 0xee, 1, Some(2)),
        ([0, 0xe7, 0xf4], 0xf4, 4, Some(2)),
        ([0x66, 0xe7, 0xf4], 0xf4, 2, Some(3)),
        // Another port, width or instruction.
        ([0, 0, 0xee], 0x3f9, 1, None),
        ([0, 0, 0xee], 0x3f8, 4, None),
        ([0, 0xe6, 0xf5], 0xf4, 1, None),
        ([0x90, 0x90, 0x90], 0x3f8, 1, None),
    ] {
        assert_eq!(length_of_write(code, 0x3f8, port, width), length, "{code:x?} {port:#x}");
    }
}
