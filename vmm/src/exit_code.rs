//! Exit codes of `vmm`. See [`HELP`].

/// The command line or the environment is wrong.
pub const USAGE: u8 = 240;
/// The configuration file cannot be used.
pub const CONFIG_FILE: u8 = 241;
/// The image cannot be used.
pub const IMAGE: u8 = 242;
/// The host cannot do what it takes: no KVM, no memory, a failed read or write.
pub const HOST: u8 = 243;
/// The guest crashed.
pub const CRASH: u8 = 244;
/// The time that the guest was given is up.
pub const TIME_LIMIT: u8 = 245;
/// The guest asked for a reboot.
pub const REBOOT: u8 = 246;
/// The guest asked for a reset through the keyboard controller.
pub const KEYBOARD_RESET: u8 = 247;
/// All instructions that the guest was given are executed.
pub const INSTRUCTION_LIMIT: u8 = 248;
/// All codes that `vmm` itself ends with, but for those of signals.
pub const OWN: [u8; 9] =
    [USAGE, CONFIG_FILE, IMAGE, HOST, CRASH, TIME_LIMIT, REBOOT, KEYBOARD_RESET, INSTRUCTION_LIMIT];
/// A signal ended the run: this, plus the signal's number.
pub const SIGNAL_BASE: u8 = 128;

/// Number of SIGPIPE: it ends a program whose standard output has no reader any more.
const SIGPIPE: u8 = 13;
/// Standard output has no reader any more.
pub const BROKEN_PIPE: u8 = SIGNAL_BASE + SIGPIPE;

/// The exit codes, for `--help`.
pub const HELP: &str = "\
Exit codes of `vmm run`:
  0-255  the guest's own; -1 to -128 as 255 to 128, any other number as 255 with a message
  240    wrong command line or environment
  241    wrong configuration file
  242    wrong image
  243    the host cannot do it: no KVM, no memory, failed input or output
  244    the guest crashed; the report is on standard error
  245    the guest's time was up (--time-limit)
  246    the guest asked for a reboot (--on-reboot exit)
  247    the guest asked for a reset through the keyboard controller
  248    the guest's instructions were executed (--insn-limit)
  128+n  ended by signal n: 130 SIGINT, 143 SIGTERM, 129 SIGHUP, 141 the output has no reader

240 and above come with a message on standard error, unless they are the guest's own.";

/// The exit code for what a guest ended with, and whether it is that number exactly.
///
/// 0 to 255 are themselves, -1 to -128 their low eight bits (-1 is 255, as a shell shows it), and
/// everything else is 255.
#[must_use]
pub fn from_guest(code: i32) -> (u8, bool) {
    match (u8::try_from(code), i8::try_from(code)) {
        (Ok(code), _) => (code, true),
        (_, Ok(negative)) => (negative.cast_unsigned(), true),
        _ => (u8::MAX, false),
    }
}

/// The exit code of a run that a signal ended.
#[must_use]
pub fn from_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| SIGNAL_BASE.saturating_add(signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_codes() {
        for (code, expected) in [
            (0, (0, true)),
            (42, (42, true)),
            (255, (255, true)),
            (256, (255, false)),
            (-1, (255, true)),
            (-128, (128, true)),
            (-129, (255, false)),
            (i32::MAX, (255, false)),
            (i32::MIN, (255, false)),
        ] {
            assert_eq!(from_guest(code), expected, "{code}");
        }
    }

    #[test]
    fn signals_codes() {
        assert_eq!(from_signal(2), 130);
        assert_eq!(from_signal(15), 143);
        assert_eq!(from_signal(1), 129);
        assert_eq!(from_signal(300), 255);
    }

    #[test]
    fn the_help_names_every_code() {
        for code in OWN.into_iter().chain([BROKEN_PIPE]) {
            assert!(HELP.contains(&format!("{code} ")), "{code}");
        }
    }
}
