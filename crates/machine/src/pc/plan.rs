//! What will be built for a guest that is not Hermit: every choice is made.

use nerite_loader::{GuestImage, Protocol};

use super::devices;
use crate::Error;
use crate::config::{Config, ConsoleKind, DEFAULT_PC_MEMORY};
use crate::network::LINES;
use crate::plan;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PcPlan {
    /// RAM in bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) command_line: String,
    /// The interrupt lines of the PCI slots after the host bridge: of network cards, then of other devices.
    pub(crate) lines: Vec<u8>,
}

impl PcPlan {
    pub(crate) fn new(config: &Config, image: &GuestImage) -> Result<Self, Error> {
        let protocol = image.protocol();
        let only_hermit = [
            ("--kernel-arg", !config.guest.kernel_args.is_empty()),
            ("--env", !config.guest.env.is_empty()),
            ("--mount", !config.mounts.is_empty()),
        ];
        if let Some((option, _)) = only_hermit.into_iter().find(|(_, given)| *given) {
            return Err(Error::NotForThisGuest { option, protocol });
        }
        let given = plan::check(config, config.memory.size.unwrap_or(DEFAULT_PC_MEMORY), config.cpus.count)?;
        let (memory, cpus) = given;
        let cards = LINES.into_iter().take(config.network.len());
        let lines = cards.chain(devices::LINES).collect();
        Ok(Self { memory, cpus, command_line: command_line(config, protocol), lines })
    }
}

/// What was given with `--cmdline`, then the words after the image. A multiboot kernel's begins with its own name. Linux is told to talk
/// where its input comes from, if nobody says anything.
fn command_line(config: &Config, protocol: Protocol) -> String {
    let mut words: Vec<String> = Vec::new();
    if protocol == Protocol::Multiboot {
        words.push(config.image.to_string_lossy().into_owned());
    }
    words.extend(config.boot.command_line.clone().filter(|text| !text.is_empty()));
    words.extend(config.guest.app_args.iter().cloned());
    if words.is_empty() && config.boot.command_line.is_none() && protocol != Protocol::Multiboot {
        let line = match config.devices.console {
            ConsoleKind::Serial => "console=ttyS0",
            ConsoleKind::Virtio => "console=hvc0",
        };
        words.push(line.to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: Option<&str>, args: &[&str]) -> Config {
        let mut config = Config { image: "dir/kernel".into(), ..Config::default() };
        config.boot.command_line = line.map(str::to_owned);
        config.guest.app_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        config
    }

    #[test]
    fn the_command_line_is_what_was_given_and_then_the_words() {
        let line = |config: &Config, protocol| command_line(config, protocol);
        assert_eq!(line(&config(None, &[]), Protocol::Linux), "console=ttyS0");
        let mut virtio = config(None, &[]);
        virtio.devices.console = ConsoleKind::Virtio;
        assert_eq!(line(&virtio, Protocol::Linux), "console=hvc0");
        assert_eq!(line(&config(Some(""), &[]), Protocol::Linux), "");
        assert_eq!(line(&config(Some("a b"), &["c"]), Protocol::Pvh), "a b c");
        assert_eq!(line(&config(None, &["quiet"]), Protocol::Linux), "quiet");
        assert_eq!(line(&config(None, &["x"]), Protocol::Multiboot), "dir/kernel x");
    }
}
