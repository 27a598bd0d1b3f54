//! The command line of Nerite, as a library so that its parser can be documented and tested.
//!
//! The one idea: the program is thin. [`cli`] says what the command line looks like,
//! [`config_file`] what a configuration file looks like; [`resolve`] makes one
//! [`nerite_machine::config::Config`] of them and the environment, and [`exit_code`] says how the
//! program ends. Everything in between is `nerite-machine`.
//!
//! ```
//! use clap::Parser;
//! use nerite_vmm::{cli::{Action, Cli}, resolve};
//!
//! let cli = Cli::try_parse_from(["vmm", "run", "-m", "1G", "hello", "--", "an argument"])?;
//! let Action::Run(run) = cli.action else { unreachable!() };
//! let resolved = resolve::resolve(*run, &resolve::Environment::default())?;
//! assert_eq!(resolved.config.memory.size, Some(1 << 30));
//! assert_eq!(resolved.config.guest.app_args, ["an argument"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Only `signals`, `bus_error`, `descriptors` and `clones` have any.
#![deny(unsafe_code)]

pub mod affinity;
#[allow(unsafe_code, reason = "a signal handler")]
pub mod bus_error;
pub mod cli;
pub mod clone_client;
pub mod clone_wire;
pub mod clones;
pub mod config_file;
pub mod ctl;
#[allow(unsafe_code, reason = "descriptors of no owner")]
pub mod descriptors;
pub mod error;
pub mod exit_code;
pub mod hint;
pub mod inspect;
mod layout;
pub mod logging;
pub mod number;
pub mod options;
pub mod output;
pub mod pack;
pub mod program;
pub mod resolve;
pub mod run;
#[allow(unsafe_code, reason = "signal handlers")]
pub mod signals;
pub mod size;
pub mod statistics;
pub mod stderr;
pub mod terminal;
mod tip;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
