//! `vmm ctl`: asks a running machine through its control socket.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use nerite_control::protocol::{Command, Request};
use nerite_control::{Client, ClientError};
use nerite_snapshot::{Files, Staging};

use crate::clone_client::{self as client, CloneArgs};
use crate::error::Error;
use crate::number::parse_number;
use crate::options::value::Bytes;
use crate::output;

/// `vmm ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The socket that `vmm run --api-socket` made
    #[arg(value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,

    /// Command.
    #[command(subcommand)]
    pub action: CtlAction,
}

/// The commands of `vmm ctl`.
#[derive(Debug, Clone, Subcommand)]
#[non_exhaustive]
pub enum CtlAction {
    /// Hold all vCPUs, or one
    Pause(OneVcpu),
    /// Resume all vCPUs, or one
    Resume(OneVcpu),
    /// End the guest as SIGTERM does, with exit code 143
    Stop,
    /// End the process at once, as SIGKILL does
    Kill,
    /// Press the power button of a guest that is not Hermit, which then powers itself off if it
    /// listens
    PowerButton,
    /// State of each vCPU
    Status,
    /// Statistics so far; more with `--stats`
    Stats,
    /// The registers of all vCPUs, or of one
    Regs(OneVcpu),
    /// Ask the guest for memory by its balloon, or how much it has given; with `--balloon`
    Balloon {
        /// Memory that the host is to have in all, such as 256M
        #[arg(value_parser = parse_size)]
        size: Option<u64>,
    },
    /// Send a non-maskable interrupt to vCPU 0, or to another
    Nmi(OneVcpu),
    /// Make an edge on an interrupt line, or raise or lower it
    Irq {
        /// The line of the interrupt controllers, 0 to 23
        line: u32,
        /// Leave it raised (high) or lowered (low)
        #[arg(long, value_name = "high|low", value_parser = parse_level)]
        level: Option<bool>,
    },
    /// Send an interrupt message (MSI), as a device does by writing DATA to ADDR
    Msi {
        /// Such as 0xfee00000 for the processor with APIC id 0
        #[arg(value_name = "ADDR", value_parser = parse_number)]
        address: u64,
        /// The vector, and how it is delivered
        #[arg(value_parser = parse_data)]
        data: u32,
    },
    /// Pull the cable of a network card, or plug it in again
    Link {
        /// Its number, from 0, or the name of the tap it is connected to
        card: String,
        /// State of the link
        #[arg(value_name = "up|down", value_parser = parse_link, action = clap::ArgAction::Set)]
        up: bool,
    },
    /// Save the guest to a directory, for `vmm run --restore`; it is paused meanwhile
    Snapshot {
        /// The directory, which is made; nothing is overwritten
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// End the guest as soon as it is saved, with exit code 143
        #[arg(long)]
        stop: bool,
        /// Copy the memory of this snapshot before the guest is paused, and write only what differs
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        base: Option<PathBuf>,
    },
    /// Hand the guest over to KVM or to the processor in software, with `run --accel kvm,software`
    Accel {
        /// The one that is to run the guest
        #[arg(value_name = "kvm|software")]
        accelerator: String,
    },
    /// Run a clone of `vmm clones`, print its output and end with its exit code
    Clone(CloneArgs),
    /// Copy guest-physical memory to a file; pause the guest before, to have it of one moment
    DumpMemory {
        /// The file, which is created or overwritten
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// First address, such as 0x100000
        #[arg(value_parser = parse_number)]
        address: u64,
        /// Number of bytes
        #[arg(value_parser = parse_number)]
        length: u64,
    },
}

/// A choice of one vCPU.
#[derive(Debug, Clone, Copy, Args)]
pub struct OneVcpu {
    /// Only this vCPU, from 0
    #[arg(long, value_name = "N")]
    pub vcpu: Option<usize>,
}

/// The data of an interrupt message.
///
/// # Errors
///
/// If it is no number, or does not fit 32 bits.
pub fn parse_data(text: &str) -> Result<u32, String> {
    let number = parse_number(text).map_err(|error| error.to_string())?;
    u32::try_from(number).map_err(|_| "more than 32 bits".to_owned())
}

/// Parses a size in bytes, which may have a unit.
///
/// # Errors
///
/// If it is no size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<Bytes>().map(|size| size.0).map_err(|error| error.to_string())
}

/// Parses the level of a line: `true` is high.
///
/// # Errors
///
/// If it is neither `high` nor `low`.
pub fn parse_level(text: &str) -> Result<bool, &'static str> {
    match text {
        "high" => Ok(true),
        "low" => Ok(false),
        _ => Err("write `high` or `low`"),
    }
}

/// Parses the state of a link: `true` is up.
///
/// # Errors
///
/// If it is neither `up` nor `down`.
pub fn parse_link(text: &str) -> Result<bool, &'static str> {
    match text {
        "up" => Ok(true),
        "down" => Ok(false),
        _ => Err("write `up` or `down`"),
    }
}

/// Asks, and prints the answer as a line of JSON.
///
/// # Errors
///
/// If the machine cannot be reached or refuses.
pub fn run(args: &CtlArgs) -> Result<u8, Error> {
    if let CtlAction::Clone(clone) = &args.action {
        return client::run(&args.socket, clone);
    }
    let mut client = Client::connect(&args.socket)?;
    let (command, vcpu) = match &args.action {
        CtlAction::Pause(one) => (Command::Pause, one.vcpu),
        CtlAction::Resume(one) => (Command::Resume, one.vcpu),
        CtlAction::Stop => (Command::Stop, None),
        CtlAction::Kill => (Command::Kill, None),
        CtlAction::PowerButton => (Command::PowerButton, None),
        CtlAction::Status => (Command::Status, None),
        CtlAction::Stats => (Command::Stats, None),
        CtlAction::Regs(one) => (Command::Regs, one.vcpu),
        CtlAction::Nmi(one) => (Command::Nmi, one.vcpu),
        CtlAction::Irq { line, level } => {
            let request = Request {
                command: Command::Irq,
                line: Some(*line),
                level: *level,
                ..Request::default()
            };
            return answer(client.ask(request)?);
        }
        CtlAction::Msi { address, data } => {
            let (address, data) = (Some(*address), Some(*data));
            return answer(client.ask(Request {
                command: Command::Msi,
                address,
                data,
                ..Request::default()
            })?);
        }
        CtlAction::Link { card, up } => {
            let (card, up) = (Some(card.clone()), Some(*up));
            return answer(client.ask(Request {
                command: Command::Link,
                card,
                up,
                ..Request::default()
            })?);
        }
        CtlAction::Balloon { size } => {
            let size = *size;
            return answer(client.ask(Request {
                command: Command::Balloon,
                size,
                ..Request::default()
            })?);
        }
        CtlAction::Accel { accelerator } => {
            return answer(client.ask(Request {
                command: Command::Accel,
                accelerator: Some(accelerator.clone()),
                ..Request::default()
            })?);
        }
        CtlAction::Snapshot { directory, stop, base } => {
            return snapshot(&mut client, directory, *stop, base.as_deref());
        }
        CtlAction::Clone(_) => return Ok(0),
        CtlAction::DumpMemory { file, address, length } => {
            return dump_memory(&mut client, file, *address, *length).map(|()| 0);
        }
    };
    match client.command(command, vcpu) {
        // It has no time left to answer.
        Err(ClientError::Broken(_)) if command == Command::Kill => Ok(0),
        answered => answer(answered?),
    }
}

fn answer(value: impl std::fmt::Display) -> Result<u8, Error> {
    output::print(format_args!("{value}\n"))?;
    Ok(0)
}

/// Has the machine written to files of this process, which has the rights of the operator and gives
/// the directory its name.
fn snapshot(
    client: &mut Client,
    directory: &Path,
    stop: bool,
    base: Option<&Path>,
) -> Result<u8, Error> {
    let staging = Staging::create(directory)?;
    if staging.replaced_remains() {
        log::warn!("{}: an interrupted snapshot of this name was replaced", directory.display());
    }
    if let Some(base) = base {
        staging.copy_memory_of(base)?;
    }
    let Files { state, memory, image } = staging.files();
    if stop {
        // Nothing of the guest is lost between the snapshot and its end, or if the former fails.
        client.command(Command::Pause, None)?;
    }
    let saved = client.snapshot([state.as_fd(), memory.as_fd(), image.as_fd()]);
    let saved = saved
        .map_err(Error::from)
        .and_then(|value| staging.commit().map(|()| value).map_err(Error::from));
    if stop {
        let after = if saved.is_ok() { Command::Stop } else { Command::Resume };
        client.command(after, None)?;
    }
    answer(saved?)
}

fn dump_memory(client: &mut Client, file: &Path, address: u64, length: u64) -> Result<(), Error> {
    // A guest's memory holds its secrets.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let output = options.open(file).map_err(ClientError::Output)?;
    let mut output = BufWriter::new(output);
    client.read_memory(address, length, &mut output)?;
    Ok(output.flush().map_err(ClientError::Output)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_hexadecimal() {
        assert_eq!(parse_number("0x1F"), Ok(31));
        assert_eq!(parse_number("31"), Ok(31));
        assert_eq!(parse_number("0xffffffffffffffff"), Ok(u64::MAX));
        assert_eq!((parse_data("0x31"), parse_level("high")), (Ok(0x31), Ok(true)));
        assert_eq!((parse_link("up"), parse_link("down")), (Ok(true), Ok(false)));
        assert!(
            parse_link("high").is_err()
                && parse_data("0x100000000").is_err()
                && parse_level("up").is_err()
        );
        for bad in ["", "0x", "0x+1", "-1", "1f", "0x10000000000000000"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
    }
}
