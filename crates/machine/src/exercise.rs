//! Parts of a machine by themselves: hypercalls from any bytes, and the run loop with and without
//! what it can be controlled by, for the bench that compares the two.

use std::sync::Arc;

use nerite_platform::{End, Environment};
use nerite_vcpu::{Control, Counted, drive, drive_controlled};

pub use nerite_hermit::exercise::hypercalls;

use crate::debug::Stopper;
use crate::{Config, Error, Machine};

/// Layers that [`run_loop`] is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// Enter, answer, enter again, and nothing else.
    Bare,
    /// As in a machine in which nothing is watched: exits are counted, and it can be held, asked,
    /// stopped and debugged on request.
    Full,
}

/// Runs a machine of one vCPU on the calling thread until its guest ends itself, and gives its exit
/// code.
///
/// # Errors
/// If the machine cannot be built, or the guest ends in another way.
pub fn run_loop(config: &Config, kind: Loop) -> Result<i32, Error> {
    let Machine { platform, environment, vcpus, msrs, vm, .. } = Machine::new(config)?;
    let failed =
        |what: &str| Error::host("running the guest")(std::io::Error::other(what.to_owned()));
    let mut vcpu = vcpus.into_iter().next().ok_or_else(|| failed("it has no vCPU"))?;
    let control = Arc::new(Control::new());
    let mut dispatcher = platform.handler(control.clone(), None);
    let end = match kind {
        Loop::Bare => drive(&mut *vcpu, &mut *dispatcher)?,
        Loop::Full => {
            control.set_kicker(vcpu.kicker());
            let mut stopper = Stopper {
                dispatcher,
                control: control.clone(),
                events: None,
                holds_crashes: false,
                msrs,
                moment: None,
                snapshot: None,
                ram: environment.ram.clone(),
                ends: None,
            };
            let mut vcpu = Counted::new(vcpu);
            drive_controlled(&mut vcpu, &mut stopper, &control)?
                .ok_or_else(|| failed("it was stopped"))?
        }
    };
    platform.collect_coalesced(true);
    let Environment { console, .. } = &environment;
    console.flush().map_err(Error::Output)?;
    drop(vm);
    match end {
        Ok(End::Exited(code)) => Ok(code),
        other => Err(failed(&format!("{other:?}"))),
    }
}
