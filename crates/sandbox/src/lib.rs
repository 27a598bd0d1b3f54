#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod capabilities;
mod compile;
mod error;
mod files;
mod namespaces;
mod policy;
mod program;
#[allow(dead_code, reason = "the tables are for the build script; tests look at them here")]
mod rules;
mod seccomp;
mod user;
mod violation;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

// Crates whose types are in this one's interface.
pub use libc;

pub use error::{Error, Missing};
pub use policy::{Level, Policy, Seccomp, User, UserError, WordError};
pub use program::Program;
pub use rules::{Condition, Kind as ThreadKind, Rule};
pub use violation::Violation;

use rules::Features;
use seccomp::Filters;

/// A file or directory that stays accessible by path.
#[derive(Debug, Clone, Copy)]
pub struct Reachable<'a> {
    /// A descriptor of it; `O_PATH` is enough.
    pub file: BorrowedFd<'a>,
    /// Operations that stay possible.
    pub rights: Rights,
    /// `true` for a directory; the rights then hold for everything below it as well.
    pub is_directory: bool,
}

/// Rights to a file, or to everything below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Reading.
    Read,
    /// Reading, writing, creating and removing.
    Write,
    /// Removing alone, and nothing is opened there: for the socket of a process that others connect
    /// to. It may accept connections then.
    Remove,
    /// As [`Self::Remove`], and connecting to Unix sockets there, which [`enter`] makes the working
    /// directory for that. Where the process may mount, its paths do not lead out of it.
    Sockets,
    /// Removing files below a directory, and nothing is opened there.
    RemoveFiles,
    /// Creating, reading, writing and removing files below a directory; nothing about directories.
    MakeFiles,
    /// Giving directories below a directory other names there, and removing them and their files;
    /// nothing is opened there.
    RenameDirectories,
}

/// The confinement of a process. Threads inherit it when they are started.
#[derive(Debug)]
pub struct Confinement {
    filters: Option<Filters>,
    missing: Vec<Missing>,
}

impl Confinement {
    /// Parts of the confinement that the host lacks and [`Level::Normal`] does without.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Gives up everything but the calls of a program of the caller's, for good, on the calling
    /// thread.
    ///
    /// # Errors
    /// If the host refuses the filter.
    pub fn enter_program(&self, program: &Program) -> Result<(), Error> {
        self.filters.as_ref().map_or(Ok(()), |filters| filters.load_program(program))
    }

    /// Gives up what only the main thread needs, for good, on the calling thread: by this crate's
    /// tables.
    ///
    /// # Errors
    /// If the host refuses the filter.
    pub fn enter_thread(&self, kind: ThreadKind) -> Result<(), Error> {
        self.filters.as_ref().map_or(Ok(()), |filters| filters.load(kind))
    }
}

/// Confines the calling process, for good.
///
/// Call it before there are other threads, and after everything that has to be opened is. The
/// system calls are limited for all threads, the rest (Landlock, capabilities, user, namespaces)
/// only for this one and those it starts.
///
/// # Errors
/// If the host refuses something that was asked for by name (a user, a directory), and with
/// [`Level::Strict`] if it lacks anything.
pub fn enter<'a>(
    policy: &Policy,
    reachable: impl IntoIterator<Item = Reachable<'a>>,
) -> Result<Confinement, Error> {
    let reachable: Vec<_> = reachable.into_iter().collect();
    let mut missing = Vec::new();
    let level = policy.level;

    let sockets = reachable.iter().find(|path| path.rights == Rights::Sockets);
    let sockets = sockets.map(|path| namespaces::separate(policy, path.file, &mut missing));
    let sockets = sockets.transpose()?;
    namespaces::enter(policy, &mut missing)?;
    if let Some(folder) = sockets {
        rustix::process::fchdir(folder).map_err(Error::host("changing the working directory"))?;
    }
    if level != Level::Off {
        limit_resources(policy)?;
        capabilities::renounce(level, &mut missing)?;
    }
    if let Some(user) = policy.user {
        user::become_user(user)?;
    }
    if level != Level::Off {
        capabilities::drop_all()?;
        no_new_privileges()?;
        files::confine(&reachable, policy.network && policy.sockets, &mut missing)?;
    }
    if level == Level::Strict
        && let Some(first) = missing.pop()
    {
        return Err(Error::Strict(first));
    }
    let seccomp = policy.effective_seccomp();
    let filters = match seccomp {
        Seccomp::Off => None,
        Seccomp::On | Seccomp::Log => {
            if level == Level::Off {
                no_new_privileges()?;
            }
            let has = |wanted: fn(Rights) -> bool| reachable.iter().any(|path| wanted(path.rights));
            let features = Features {
                files: has(|rights| {
                    use Rights::{Remove, RenameDirectories, Sockets};
                    !matches!(rights, Remove | RenameDirectories | Sockets)
                }),
                control: policy.debug || has(|rights| rights == Rights::Remove),
                network: policy.network,
                sockets: policy.sockets,
                devices: policy.devices,
                unix_sockets: has(|rights| rights == Rights::Sockets),
                debug: policy.debug,
                kvm: policy.kvm,
                switch: policy.switch,
                naming: has(|rights| rights == Rights::RenameDirectories),
            };
            let filters = Filters::new(features, policy, seccomp == Seccomp::Log);
            filters.load_for_process()?;
            Some(filters)
        }
    };
    Ok(Confinement { filters, missing })
}

/// Without it a filter or Landlock needs a privilege, and a program that is started could get some
/// back (prctl(2)).
fn no_new_privileges() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).map_err(Error::host("giving up new privileges"))
}

/// No core file with a guest's memory in it, and no more descriptors than the policy says.
fn limit_resources(policy: &Policy) -> Result<(), Error> {
    let fixed = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Core, fixed(0)).map_err(Error::host("forbidding core files"))?;
    let Some(files) = policy.open_files else { return Ok(()) };
    let failed = "limiting the number of open files";
    match setrlimit(Resource::Nofile, fixed(files)) {
        // More than an administrator allows.
        Err(Errno::PERM) => {
            let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(files).min(files);
            log::warn!(
                "this host allows {allowed} open files, and the guest with what vmm itself needs may want {files}"
            );
            setrlimit(Resource::Nofile, fixed(allowed)).map_err(Error::host(failed))
        }
        other => other.map_err(Error::host(failed)),
    }
}
