//! An OCI runtime whose containers are virtual machines.
//!
//! Engines (podman, containerd, CRI-O) start containers by calling a runtime: `create`, `start`,
//! `kill`, `delete` and a few more commands, with the container described by a *bundle*, a
//! directory with a `config.json` ([runtime-spec]). This runtime makes a virtual machine of a
//! bundle. The bundle's program is the image of a Hermit guest (or a Linux kernel) in the bundle's
//! root file system.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`bundle`] | `config.json`, read and checked |
//! | [`guest`] | from a bundle to the options of `vmm run` |
//! | [`container`] | the state on disk |
//! | [`monitor`] | the process of a container: namespaces, cgroup, network, then the guest |
//! | [`create`], [`verbs`] | the commands |
//! | [`network`] | a card that is joined to the namespace's interface |
//!
//! [runtime-spec]: https://github.com/opencontainers/runtime-spec

#![forbid(unsafe_code)]

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod container;
pub mod create;
pub mod guest;
pub mod hooks;
pub mod monitor;
pub mod network;
pub mod process;
mod report;
pub mod terminal;
pub mod verbs;

use std::ffi::OsString;

use clap::Parser as _;

use cli::{Cli, Command, Global};

/// Exit code of a command that failed.
const FAILED: u8 = 1;

/// Executes a command line, the first word of which is the program's name, and returns the exit
/// code.
///
/// Errors are reported on standard error and in the log file that the engine reads.
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere to say that the streams cannot be written.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILED);
        }
    };
    let global = cli.global.clone();
    execute(cli).unwrap_or_else(|error| {
        report::error(&global, &error);
        FAILED
    })
}

fn execute(cli: Cli) -> anyhow::Result<u8> {
    let Cli { global, command } = cli;
    let root = container::root(global.root.as_deref());
    let done = |result: anyhow::Result<()>| result.map(|()| 0);
    match command {
        Command::Create(args) => done(create::create(&root, &global, &args).map(drop)),
        Command::Start(name) => done(verbs::start(&root, &name.id)),
        Command::State(name) => done(verbs::state(&root, &name.id)),
        Command::Kill(args) => done(verbs::kill(&root, &args)),
        Command::Delete(args) => done(verbs::delete(&root, &args)),
        Command::List(args) => done(verbs::list(&root, &args)),
        Command::Ps(args) => done(verbs::ps(&root, &args)),
        Command::Pause(name) => done(verbs::pause(&root, &name.id)),
        Command::Resume(name) => done(verbs::resume(&root, &name.id)),
        Command::Run(args) => create::run(&root, &global, &args),
        Command::Features => done(verbs::features()),
        Command::Spec(args) => done(bundle::write_example(&args.bundle)),
        Command::Exec(_) => unsupported("exec", "a guest has no processes that another could join"),
        Command::Update(_) => {
            unsupported("update", "a guest's memory and vCPUs are fixed at its start")
        }
        Command::Checkpoint(_) | Command::Restore(_) => {
            unsupported("checkpoint and restore", "`vmm ctl SOCKET snapshot` saves a guest")
        }
        Command::Events(_) => unsupported("events", "the cgroup has a container's statistics"),
        Command::Monitor(args) => monitor::main(&root, &args),
    }
}

fn unsupported(command: &str, reason: &str) -> anyhow::Result<u8> {
    anyhow::bail!("{command} is not supported: {reason}")
}

/// Options that `create` hands to the process of a container.
fn global_words(root: &std::path::Path, global: &Global) -> Vec<OsString> {
    let mut words = vec!["--root".into(), root.into()];
    if global.systemd_cgroup {
        words.push("--systemd-cgroup".into());
    }
    words
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
