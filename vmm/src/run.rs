//! `vmm run`.

use log::{info, warn};
use nerite_machine::{Machine, Outcome};

use crate::cli::RunArgs;
use crate::error::Error;
use crate::merge::{self, Surroundings};
use crate::signals::Signals;
use crate::{exit_code, output};

/// Runs an image to its end, and says with which exit code the program should end.
///
/// # Errors
///
/// If the run does not come about, or the host fails while it lasts. What the guest does, crashes included, is no error.
pub fn run(args: RunArgs) -> Result<u8, Error> {
    let resolved = merge::resolve(args, &Surroundings::of_this_process())?;
    if let Some(file) = &resolved.file {
        info!("settings are read from {}", file.display());
    }
    for warning in &resolved.warnings {
        warn!("{warning}");
    }
    let failed = |source| Error::Machine { image: resolved.config.image.clone(), source };
    let machine = Machine::new(&resolved.config).map_err(failed)?;
    // From here on a signal must stop vCPU threads first. Until here the system's default, to end at once, is right.
    let signals = Signals::listen().map_err(Error::Signals)?;
    let outcome = machine.start().and_then(|running| running.wait(Some(signals.fd()))).map_err(failed)?;
    Ok(code(&outcome, &signals))
}

/// The exit code for how a run ended; says what a code alone does not.
fn code(outcome: &Outcome, signals: &Signals) -> u8 {
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
        Outcome::Stopped => exit_code::from_signal(signals.received().unwrap_or_default()),
        Outcome::Crashed(report) => {
            output::say(&report.to_string());
            exit_code::CRASH
        }
        Outcome::Reset => {
            output::say("vmm: the guest asked for a reset, and is ended instead");
            0
        }
        // Powered off: an end in good order.
        _ => 0,
    }
}
