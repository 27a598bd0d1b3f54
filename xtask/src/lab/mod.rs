//! The lab: real KVM on a machine that has none, in an emulated machine with nested virtualisation.

pub(crate) mod agent;
pub(crate) mod forward;
mod initramfs;
pub(crate) mod kernel;
mod qemu;
mod queue;
pub(crate) mod session;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use initramfs::Files;
pub(crate) use qemu::Machine;
pub(crate) use queue::Queue;
pub(crate) use session::{Report, Session};

use crate::guest_words::{self, Words};
use crate::job::{Job, Stream};
use crate::{build, progress};

/// Path of this program inside the lab.
pub(crate) const MYSELF: &str = "/lab/xtask";
/// Path of xtask-host inside the lab.
pub(crate) const HOST_TOOL: &str = "/lab/xtask-host";

/// Reason why there can be no lab on this host, if there is one, in one line.
pub(crate) fn obstacle() -> Option<String> {
    Session::new(Machine::default()).err().map(|error| progress::one_line(&error))
}

/// `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add a file or folder of this host, at the same path or at GUEST; programs bring their shared
    /// libraries
    #[arg(short = 'v', long = "file", value_name = "HOST[:GUEST]")]
    files: Vec<String>,
    /// Feed this file to the command's standard input ("-": our own, read to its end first)
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Set an environment variable for the command
    #[arg(short, long, value_name = "K=V")]
    env: Vec<String>,
    /// Kill the command after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Memory of the lab in MiB
    #[arg(long, default_value_t = Machine::default().memory_mib, value_name = "MIB")]
    memory: u64,
    /// CPUs of the lab; with more than one, some interrupts arrive twice
    #[arg(long, default_value_t = 1, value_name = "N")]
    cpus: u32,
    /// Address on this host of a port that leads into the lab
    #[arg(skip)]
    port: Option<SocketAddr>,
    /// Our own `vmm`, where it is built and the words after it are known to be right
    #[arg(skip)]
    vmm: Option<PathBuf>,
    /// The command; "vmm" is our own, and files it names that exist here are added
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    /// Runs `vmm` with these words, which are known to be right.
    /// `port` leads to the same one in the lab.
    pub(crate) fn for_vmm(
        vmm: PathBuf,
        words: impl Iterator<Item = String>,
        timeout: u64,
        port: Option<SocketAddr>,
    ) -> Self {
        let Machine { memory_mib, cpus, .. } = Machine::default();
        let command = ["vmm".to_owned()].into_iter().chain(words).collect();
        Self {
            vmm: Some(vmm),
            port,
            files: Vec::new(),
            stdin: None,
            env: Vec::new(),
            timeout,
            memory: memory_mib,
            cpus,
            command,
        }
    }
}

/// Runs one command in the lab; its exit status is the result.
pub(crate) fn main(args: Args) -> Result<i32> {
    let (memory_mib, cpus, port) = (args.memory, args.cpus, args.port);
    let machine = Machine { memory_mib, cpus, port, ..Machine::default() };
    let vmm = match args.vmm {
        None if args.command.first().is_some_and(|program| program == "vmm") => {
            let vmm = build::vmm()?;
            if let Some(code) = refused(&vmm, args.command.get(1..).unwrap_or_default())? {
                return Ok(code);
            }
            Some(vmm)
        }
        known => known,
    };
    let mut session = Session::new(machine)?;
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let mut job = Job {
        name: args.command.join(" "),
        command: args.command,
        dir: Some(here.clone()),
        timeout: args.timeout,
        port: port.map(|address| address.port()),
        ..Job::default()
    };
    // So that the folder is there, too.
    session.files().add_text(here.join(".lab"), "");
    for pair in &args.env {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("--env {pair}: not of the form K=V"))?;
        job.env.insert(key.to_owned(), value.to_owned());
    }
    for spec in &args.files {
        let (host, guest) = spec.split_once(':').unwrap_or((spec, spec));
        session.files().add(Path::new(host), Path::new(guest))?;
    }
    if let Some(stdin) = &args.stdin {
        let guest = Path::new("/lab/stdin");
        if stdin.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes)
                .context("cannot read standard input")?;
            session.files().add_text(guest, bytes);
        } else {
            session.files().add(stdin, guest)?;
        }
        job.stdin_file = Some(guest.to_owned());
    }
    if let Some(vmm) = &vmm {
        session.files().add(vmm, Path::new("/bin/vmm"))?;
    }
    job.files = job.command.iter().flat_map(|word| files_in(word)).collect();

    let outcome = session.run_one(&job, &mut |stream, bytes| {
        // A reader that has gone away is its own business.
        let _ = match stream {
            Stream::Out => {
                std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush())
            }
            Stream::Err => std::io::stderr().write_all(bytes),
        };
    })?;
    progress::say(&format!(
        "{} after {:.1} s in the lab",
        outcome.ending,
        outcome.time.as_secs_f64()
    ));
    Ok(outcome.ending.code())
}

/// Exit code of `vmm` if it refuses these words, of which nothing needs a lab to be seen.
fn refused(vmm: &Path, words: &[String]) -> Result<Option<i32>> {
    let [action, words @ ..] = words else { return Ok(None) };
    if action != "run" {
        return Ok(None);
    }
    match guest_words::check(vmm, words)? {
        Words::Wrong(code) => Ok(Some(code)),
        Words::Image(_) | Words::NoImage => Ok(None),
    }
}

/// The host files a word of a command line may mean: itself, what follows `=`, and what stands
/// before `:`.
fn files_in(word: &str) -> Vec<PathBuf> {
    let value = word.split_once('=').map(|(_, value)| value);
    let before = |text: &str| text.split_once(':').map(|(path, _)| path.to_owned());
    let mut candidates = vec![word.to_owned()];
    candidates.extend(before(word));
    candidates.extend(value.map(str::to_owned));
    candidates.extend(value.and_then(before));
    candidates.into_iter().map(PathBuf::from).filter(|path| path.is_file()).collect()
}
