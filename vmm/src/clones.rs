//! `vmm clones`: a server that keeps processes ready, each of which continues one snapshot.
//!
//! The server is one thread that looks into no snapshot. It forks *shells*: processes that restore
//! the snapshot, confined like `vmm run`, and pause before the guest's first instruction. A client
//! gets the next of them: the shell gets its arguments, and the client the reading ends of
//! its standard output and error. Nothing is created between request and first instruction.

#[allow(unsafe_code, reason = "fork")]
mod fork;
mod server;
mod shell;

use log::warn;
use nerite_machine::config::Output;

use crate::cli::{ClonesArgs, RunArgs};
use crate::error::Error;
use crate::resolve::{self, Environment, Resolved};
use crate::signals::Signals;
use crate::{run, stderr};

/// Serves clones until a signal ends the program.
///
/// # Errors
/// Fails if the command line is wrong, the socket cannot be made, or the host fails.
pub fn run(args: ClonesArgs) -> Result<u8, Error> {
    let (listen, pool, most) = (args.listen, args.pool, args.max_running);
    let resolved = resolve(RunArgs {
        image_and_args: Vec::new(),
        restore: Some(args.directory),
        verify: args.verify,
        on_changed: args.on_changed,
        config: args.config,
        options: args.options,
    })?;
    for warning in &resolved.warnings {
        warn!("{warning}");
    }
    crate::descriptors::close_inherited(&stderr::descriptor().into_iter().collect::<Vec<_>>())
        .map_err(Error::Descriptors)?;
    let socket = nerite_control::Server::bind(&listen)?;
    let signals = Signals::listen().map_err(Error::Signals)?;
    signals.fd().map_err(Error::Signals)?;
    let limits = server::Limits {
        pool: usize::try_from(pool).unwrap_or(1),
        most: usize::try_from(most).unwrap_or(1),
        time: resolved.config.observe.time_limit,
    };
    let done = server::Server::new(&resolved, socket.listener(), &signals, limits).serve();
    if let Err(error) = std::fs::remove_file(&listen) {
        log::debug!("{}: {error}", listen.display());
    }
    Ok(done?)
}

/// The configuration of each shell.
fn resolve(args: RunArgs) -> Result<Resolved, Error> {
    let resolved = resolve::resolve(args, &Environment::of_this_process())?;
    let (options, config) = (&resolved.options, &resolved.config);
    let observe = &options.observe;
    let single = [
        (observe.api_socket.is_some(), "--api-socket"),
        (options.debugger().is_some(), "--gdb"),
        (observe.stats.is_some(), "--stats"),
        (observe.trace.is_some(), "--trace"),
        (observe.count.is_some(), "--count"),
        (observe.snapshot.is_some(), "--snapshot"),
        (config.output != Output::Stdout, "--output"),
        (!config.network.is_empty(), "--net"),
        (!config.devices.disks.is_empty(), "--disk"),
        (config.devices.vsock.is_some(), "--vsock"),
    ];
    match single.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => Err(Error::Usage(format!(
            "{option} cannot be shared by several guests, and has no meaning with `vmm clones`"
        ))),
        None => Ok(resolved),
    }
}

/// Number of descriptors that a shell may have open.
fn descriptors(resolved: &Resolved) -> u64 {
    run::wanted_descriptors(&resolved.config)
}
