//! Plan of a PC: every choice is made.

use nerite_loader::{GuestImage, Protocol};

use nerite_platform::check_size;

use crate::{DEFAULT_MEMORY, Error, Settings};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PcPlan {
    /// RAM in bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) command_line: String,
    /// The number of the machine's generation.
    pub(crate) generation: [u8; 16],
    /// The interrupt lines of the PCI slots after the host bridge: of network cards, then of other
    /// devices.
    pub(crate) lines: Vec<u8>,
}

impl PcPlan {
    pub(crate) fn new(settings: &Settings, image: &GuestImage) -> Result<Self, Error> {
        let protocol = image.protocol();
        let (memory, cpus) = check_size(settings.memory.unwrap_or(DEFAULT_MEMORY), settings.vcpus)?;
        let command_line = command_line(settings, protocol);
        let (generation, lines) = (settings.generation, settings.lines.clone());
        Ok(Self { memory, cpus, command_line, generation, lines })
    }
}

/// Text of `--cmdline`, then the words after the image. A multiboot kernel's begins with its own
/// name. Linux gets a console on the device of its input, unless the text names one.
fn command_line(settings: &Settings, protocol: Protocol) -> String {
    let mut words: Vec<String> = Vec::new();
    if protocol == Protocol::Multiboot {
        words.push(settings.image.to_string_lossy().into_owned());
    }
    words.extend(settings.command_line.clone().filter(|text| !text.is_empty()));
    words.extend(settings.app_args.iter().cloned());
    if words.is_empty() && settings.command_line.is_none() && protocol != Protocol::Multiboot {
        let line = if settings.virtio_console { "console=hvc0" } else { "console=ttyS0" };
        words.push(line.to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: Option<&str>, args: &[&str]) -> Settings {
        let mut settings = Settings { image: "dir/kernel".into(), ..Settings::default() };
        settings.command_line = line.map(str::to_owned);
        settings.app_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        settings
    }

    #[test]
    fn the_command_line_is_what_was_given_and_then_the_words() {
        let line = |settings: &Settings, protocol| command_line(settings, protocol);
        assert_eq!(line(&config(None, &[]), Protocol::Linux), "console=ttyS0");
        let mut virtio = config(None, &[]);
        virtio.virtio_console = true;
        assert_eq!(line(&virtio, Protocol::Linux), "console=hvc0");
        assert_eq!(line(&config(Some(""), &[]), Protocol::Linux), "");
        assert_eq!(line(&config(Some("a b"), &["c"]), Protocol::Pvh), "a b c");
        assert_eq!(line(&config(None, &["quiet"]), Protocol::Linux), "quiet");
        assert_eq!(line(&config(None, &["x"]), Protocol::Multiboot), "dir/kernel x");
    }
}
