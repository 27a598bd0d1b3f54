//! `vmm run`.

use std::path::Path;
use std::time::Duration;

use libc::{SIGINT, SIGTERM};
use log::{info, warn};
use nerite_control::Server;
use nerite_machine::config::{CardLink, CardSpec, Debug, FileLimits, Output, SandboxLevel};
use nerite_machine::{Config, Handle, Opened, Outcome, Report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::RunArgs;
use crate::error::Error;
use crate::resolve::{self, Environment};
use crate::signals::{self, Signals};
use crate::terminal::Terminal;
use crate::{bus_error, descriptors, exit_code, layout, output, statistics, stderr};

/// So many mounts are opened without asking how many files may be open.
const FEW_MOUNTS: usize = 100;
/// Time from a signal or the time limit to the end, if something is in the way of an end in good
/// order.
pub(crate) const END_WITHIN: Duration = Duration::from_millis(900);
/// Upper bound of the files that the program opens for itself: 16 vCPUs, memory, console, mounts.
const OWN_DESCRIPTORS: usize = 256;

/// Runs an image to its end, and says with which exit code the program should end.
///
/// # Errors
///
/// If the run does not come about, or the host fails while it lasts. What the guest does, crashes
/// included, is no error.
pub fn run(args: RunArgs) -> Result<u8, Error> {
    let mut resolved = resolve::resolve(args, &Environment::of_this_process())?;
    close_inherited(&resolved.config)?;
    if let Some(limit) = resolved.config.observe.time_limit {
        signals::end_after(limit.saturating_add(END_WITHIN)).map_err(Error::Signals)?;
    }
    if let Some(file) = &resolved.file {
        info!("settings are read from {}", file.display());
    }
    for warning in &resolved.warnings {
        warn!("{warning}");
    }
    let descriptors = wanted_descriptors(&resolved.config);
    // A sandbox sets the limit; what is opened before is little.
    let limited = resolved.options.sandbox.level() != SandboxLevel::Off
        && resolved.config.mounts.len() < FEW_MOUNTS;
    let descriptors = if limited { Some(descriptors) } else { raise_descriptor_limit(descriptors) };
    let embedding = layout::embedding(&mut resolved.config)?;
    let failed = |source| failed(&resolved.config, source);
    let mut statistics = statistics::Destination::open(resolved.options.observe.stats.as_ref())?;
    let mut counts = statistics::Counts::open(resolved.options.observe.count.as_ref())?;
    let debugger = resolved
        .options
        .debugger()
        .map(|(address, _)| nerite_gdb::Server::bind(address))
        .transpose()?;
    let server = resolved.options.observe.api_socket.as_deref().map(Server::bind).transpose()?;
    let mut opened = Opened::open_embedded(&resolved.config, embedding).map_err(failed)?;
    // From here on a signal waits until the vCPU threads, once there are some, have stopped. Until
    // here, where opening can take any time, the system's default, to end at once, is right.
    let signals = Signals::listen().map_err(Error::Signals)?;
    let graceful = resolved.config.observe.graceful_stop.unwrap_or_default();
    signals.end_within(graceful.saturating_add(END_WITHIN));
    if resolved.config.restore.is_some() {
        bus_error::report().map_err(Error::Signals)?;
    }
    let policy = resolved.options.sandbox.policy(descriptors);
    let folders = server
        .iter()
        .map(Server::folder)
        .chain(debugger.iter().filter_map(nerite_gdb::Server::folder));
    let folders: Vec<_> = folders.collect();
    for missing in opened.confine(&policy, &folders).map_err(failed)? {
        warn!("{missing}");
    }
    let machine = opened.build().map_err(failed)?;
    let terminal = if machine.wants_terminal() {
        let signals = signals.fd().map_err(Error::Signals)?;
        Some(Terminal::give(signals).map_err(Error::Terminal)?)
    } else {
        None
    };
    // A guest that was ended before its first instruction executes none.
    if let Some(signal) = signals.received() {
        return Ok(exit_code::from_signal(signal));
    }
    let running = machine.start().map_err(failed)?;
    let stop = Some(signals.fd().map_err(Error::Signals)?);
    let debugging = debugger
        .map(|server| start_debugger(server, running.handle(), resolved.config.observe.debug));
    let debugging = debugging.transpose()?;
    let serving = server.map(|server| server.start(Box::new(running.handle()))).transpose()?;
    let (outcome, report, remains) = running.wait_and_leave(stop);
    // The process ends in a moment, which gives everything back. With debug assertions it is given
    // back here, so that what is left for a leak checker to find is a leak.
    if cfg!(debug_assertions) {
        drop(remains);
    } else {
        std::mem::forget(remains);
    }
    drop((serving, debugging));
    // Before anything is said.
    drop(terminal);
    statistics.print(&report);
    counts.print(&report);
    let outcome = outcome.map_err(failed)?;
    let code = code(&outcome, &signals);
    if let Outcome::Crashed(crash) = &outcome {
        say_more(&resolved.config.image, &report, crash.vcpus.len());
    }
    Ok(code)
}

/// Says where the core file of a crash is, and why a guest with several vCPUs may have crashed.
fn say_more(image: &Path, report: &Report, vcpus: usize) {
    let is_layout = nerite_image::Reference::parse(image.as_os_str()).is_some();
    if let Some(core) = &report.core_file {
        let (image, core) = (image.display(), core.display());
        let how = if is_layout { "" } else { &*format!("; look at it with `gdb {image} {core}`") };
        output::say(&format!("vmm: the core file is {core}{how}"));
    }
    if vcpus > 1 {
        output::say("vmm: if this kernel is built for one processor, run it with --cpus 1");
    }
}

/// Closes what the parent process left open, but for the taps that it opened for this one.
fn close_inherited(config: &Config) -> Result<(), Error> {
    let taps = config.network.iter().filter_map(|card| match card.link {
        CardLink::Fd { fd, .. } => Some(fd),
        _ => None,
    });
    let keep: Vec<_> = taps.chain(stderr::descriptor()).collect();
    descriptors::close_inherited(&keep).map_err(Error::Descriptors)
}

/// Says where GDB can connect, and waits for it.
fn start_debugger(
    server: nerite_gdb::Server,
    handle: Handle,
    start: Option<Debug>,
) -> Result<nerite_gdb::Serving, Error> {
    let is_held = start == Some(Debug::Held);
    let state = if is_held { "the guest waits for it" } else { "the guest runs" };
    output::say(&format!("vmm: GDB can connect to {}; {state}", server.address()));
    Ok(server.start(Box::new(handle), is_held)?)
}

/// Error of the program for an error of the machine.
pub(crate) fn failed(config: &Config, source: nerite_machine::Error) -> Error {
    match source {
        nerite_machine::Error::Output(source) => {
            let to = match &config.output {
                Output::File(path) => path.display().to_string(),
                _ => "standard output".to_owned(),
            };
            Error::Output { to, source }
        }
        source => Error::of_machine(&config.image, source),
    }
}

/// Room for the guest's files and connections, so that they do not take the descriptors that the
/// program itself needs.
pub(crate) fn wanted_descriptors(config: &Config) -> u64 {
    let FileLimits { open_files, temporary_entries, .. } = config.file_limits;
    let is_user_mode = |card: &&CardSpec| matches!(card.link, CardLink::User { .. });
    let cards = config.network.iter().filter(is_user_mode).count();
    let connections = config
        .devices
        .vsock
        .as_ref()
        .map_or(0, |_| nerite_machine::nerite_virtio_vsock::Limits::default().connections);
    let files = open_files
        .saturating_add(temporary_entries)
        .saturating_add(cards.saturating_mul(nerite_net::nerite_user_net::SOCKETS))
        .saturating_add(connections)
        .saturating_add(OWN_DESCRIPTORS);
    u64::try_from(files).unwrap_or(u64::MAX)
}

/// Makes room for so many files. Where the host allows fewer, the guest gets an error when they are
/// used up. Gives how many there are to be.
fn raise_descriptor_limit(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Some(wanted);
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current < wanted {
        warn!(
            "this host allows {current} open files, and the guest with what vmm itself needs may want {wanted}"
        );
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }) {
        warn!("cannot allow this process {current} open files: {error}");
        return limit.current;
    }
    Some(current)
}

/// The exit code for how a run ended; says what a code alone does not.
pub(crate) fn code(outcome: &Outcome, signals: &Signals) -> u8 {
    match outcome {
        Outcome::Exited(guest) => {
            let (code, exact) = exit_code::from_guest(*guest);
            if !exact {
                output::say(&format!(
                    "vmm: the guest ended with {guest}, which no exit code can be; this is {code}"
                ));
            }
            code
        }
        // Through the control socket, if not by a signal.
        Outcome::Stopped => exit_code::from_signal(signals.received().unwrap_or(SIGTERM)),
        Outcome::Crashed(report) => {
            output::say(&report.to_string());
            exit_code::CRASH
        }
        Outcome::TimeLimit => {
            output::say(signals::TIME_IS_UP.trim_end());
            exit_code::TIME_LIMIT
        }
        limit @ Outcome::InstructionLimit { .. } => {
            output::say(&format!("vmm: {limit}"));
            exit_code::INSTRUCTION_LIMIT
        }
        Outcome::Reset => {
            output::say(
                "vmm: the guest asked for a reboot, and is ended instead (see --on-reboot)",
            );
            exit_code::REBOOT
        }
        Outcome::KeyboardReset => {
            let way = "through the keyboard controller";
            output::say(&format!(
                "vmm: the guest asked for a reset {way}, and is ended instead (see --on-reboot)"
            ));
            exit_code::KEYBOARD_RESET
        }
        // As good as Ctrl-C.
        Outcome::EscapeKey => exit_code::from_signal(SIGINT),
        // Powered off: an end in good order.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_in_user_mode_have_room_for_their_sockets() {
        let wanted = |cards: &[&str]| {
            let network = cards.iter().map(|card| card.parse().unwrap()).collect();
            wanted_descriptors(&Config { network, ..Config::default() })
        };
        let without = wanted(&[]);
        assert_eq!(wanted(&["tap=tap0"]), without);
        assert_eq!(wanted(&["user", "tap=tap0", "user,host=on"]), without + 2 * 1280);
    }

    #[test]
    fn a_vsock_device_has_room_for_its_connections() {
        let mut config = Config::default();
        let without = wanted_descriptors(&config);
        config.devices.vsock = Some("cid=3,socket=v".parse().unwrap());
        assert_eq!(wanted_descriptors(&config), without + 1024);
    }
}
