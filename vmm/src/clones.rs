//! `vmm clones`: a server that keeps processes ready, each of which continues one snapshot.
//!
//! The server is one thread that looks into no snapshot. It forks *shells*: processes that restore
//! the snapshot, confined like `vmm run`, and pause before the guest's first instruction. A client
//! gets the next of them: the shell gets its arguments, and the client the reading ends of
//! its standard output and error. Nothing is created between request and first instruction.

pub mod client;
#[allow(unsafe_code, reason = "fork")]
mod fork;
mod server;
mod shell;
mod wire;

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use log::warn;
use nerite_machine::config::{OnChanged, Output};

use crate::cli::{RunArgs, parse_on_changed};
use crate::error::Error;
use crate::options::Options;
use crate::resolve::{self, Environment, Resolved};
use crate::signals::Signals;
use crate::{run, stderr};

/// `vmm clones`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct ClonesArgs {
    /// Directory of the snapshot, which must not change while the server runs
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,

    /// Socket for `vmm ctl SOCKET clone`, which is made for this user alone
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub listen: PathBuf,

    /// Number of processes that are kept ready
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub pool: u32,

    /// Number of clones that run at a time at most; more requests wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_running: u32,

    /// Compare all memory of the snapshot with its digest, in each process
    #[arg(long)]
    pub verify: bool,

    /// As for `vmm run --restore` [default: refuse]
    #[arg(long, value_name = "POLICY", value_parser = parse_on_changed)]
    pub on_changed: Option<OnChanged>,

    /// Read settings from this TOML file [env: HERMIT_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The machine and its guest.
    #[command(flatten)]
    pub options: Options,
}

/// Clones cannot be served, or a clone not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClonesError {
    /// The host failed.
    #[error("{what}: {source}")]
    Host {
        /// The operation.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The server refused.
    #[error("the server of clones: {0}")]
    Refused(String),
    /// The server has gone, or answers something that is not understood.
    #[error("the server of clones ended the connection")]
    Gone,
}

impl ClonesError {
    fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}

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
        (config.output != Output::Stdout, "--output"),
        (!config.network.is_empty(), "--net"),
        (!config.devices.disks.is_empty(), "--disk"),
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
    run::wanted_descriptors(&resolved.config.file_limits)
}
