//! The commands that make a container: `create` and `run`.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{FileType, Mode, mknodat};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::cli::{Create, Global, Run};
use crate::container::{Container, Status, write_whole};
use crate::guest::Guest;
use crate::process::Identity;
use crate::{global_words, hooks, monitor, terminal, verbs};

/// Creates a container and returns its process.
///
/// # Errors
/// If the bundle or the host does not allow it; nothing of the container is left then.
pub fn create(root: &Path, global: &Global, args: &Create) -> Result<Child> {
    let bundle = Bundle::read(&args.bundle)?;
    // For its errors: the container's process does it again, from what is kept.
    if !bundle.is_sandbox() {
        Guest::of(&bundle)?;
    }
    let is_terminal = bundle.process()?.terminal().unwrap_or(false);
    match (&args.console_socket, is_terminal) {
        (None, false) | (Some(_), true) => (),
        (None, true) => bail!("process.terminal is set: --console-socket is needed"),
        (Some(_), false) => bail!("--console-socket is given, but process.terminal is not set"),
    }
    make(root, global, args, &bundle)
}

fn make(root: &Path, global: &Global, args: &Create, bundle: &Bundle) -> Result<Child> {
    let container = Container::create(root, &args.id)?;
    let cgroup = Cgroup::of(bundle, &args.id, global.systemd_cgroup);
    let made = cgroup.and_then(|cgroup| {
        let made = fill(&container, &cgroup, root, global, args, bundle);
        made.inspect_err(|_| _ = cgroup.remove())
    });
    match made {
        Ok(child) => Ok(child),
        Err(error) => {
            container.remove()?;
            Err(error)
        }
    }
}

fn fill(
    container: &Container,
    cgroup: &Cgroup,
    root: &Path,
    global: &Global,
    args: &Create,
    bundle: &Bundle,
) -> Result<Child> {
    container.keep_bundle(bundle, global.systemd_cgroup)?;
    let start = container.path("start");
    mknodat(rustix::fs::CWD, &start, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .context("start")?;
    let size = bundle.process()?.console_size();
    let socket = args.console_socket.as_deref();
    let terminal = socket.map(|socket| terminal::make(socket, size)).transpose()?;
    let mut process =
        in_process_namespace(bundle, || Process::spawn(root, global, args, terminal))?;
    let made = process.lead(container, cgroup, args, bundle);
    match made {
        Ok(()) => Ok(process.child),
        Err(error) => {
            // It may have ended by itself.
            let _ = process.child.kill();
            let _ = process.child.wait();
            Err(error)
        }
    }
}

/// Does `spawn` with the container's namespace of processes for children, which only they enter.
fn in_process_namespace<T>(bundle: &Bundle, spawn: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut namespaces = bundle.namespaces().iter();
    let Some(namespace) = namespaces.find(|its| its.typ() == LinuxNamespaceType::Pid) else {
        return spawn();
    };
    let own = File::open("/proc/self/ns/pid").context("pid namespace")?;
    match namespace.path() {
        None => unshare(CloneFlags::CLONE_NEWPID).context("pid namespace")?,
        Some(path) => File::open(path)
            .and_then(|file| setns(file, CloneFlags::CLONE_NEWPID).map_err(Into::into))
            .with_context(|| format!("pid namespace {}", path.display()))?,
    }
    let spawned = spawn();
    // Hooks are children as well, and belong to the runtime's namespace.
    setns(own, CloneFlags::CLONE_NEWPID).context("pid namespace")?;
    spawned
}

/// The container's process and the pipes to it; see [`monitor`].
struct Process {
    child: Child,
    report: PipeReader,
    permit: PipeWriter,
}

impl Process {
    fn spawn(
        root: &Path,
        global: &Global,
        args: &Create,
        terminal: Option<std::os::fd::OwnedFd>,
    ) -> Result<Self> {
        let (report, report_end) = std::io::pipe().context("pipe")?;
        let (permit_end, permit) = std::io::pipe().context("pipe")?;
        inherit(&report_end)?;
        inherit(&permit_end)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(global_words(root, global)).arg("monitor");
        command.args(["--report", &report_end.as_raw_fd().to_string()]);
        command.args(["--permit", &permit_end.as_raw_fd().to_string()]);
        // No settings of the engine's user are the guest's.
        command.arg(&args.id).env_clear().current_dir("/");
        if let Some(terminal) = terminal {
            let clone = || terminal.try_clone().map(Stdio::from);
            command.stdin(clone()?).stdout(clone()?).stderr(clone()?);
        }
        let child = command.spawn().context("the container's process")?;
        Ok(Self { child, report, permit })
    }

    /// Leads the process until it waits for `start`.
    fn lead(
        &mut self,
        container: &Container,
        cgroup: &Cgroup,
        args: &Create,
        bundle: &Bundle,
    ) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process identifier")?;
        let process = Identity::of(pid).context("the container's process has ended")?;
        cgroup.join(bundle, pid)?;
        self.permit()?;
        self.wait()?;
        if let Some(hooks) = bundle.spec.hooks() {
            let mut state = container.state_with(Status::Creating)?;
            state.pid = Some(pid);
            #[allow(deprecated, reason = "engines still use them")]
            hooks::run(hooks.prestart().as_ref(), &state)?;
            hooks::run(hooks.create_runtime().as_ref(), &state)?;
        }
        self.permit()?;
        self.wait()?;
        container.keep_process(process)?;
        if let Some(path) = &args.pid_file {
            write_whole(path, pid.to_string().as_bytes())?;
        }
        self.permit()
    }

    fn permit(&mut self) -> Result<()> {
        self.permit.write_all(b".").context("the container's process has ended")
    }

    /// Waits for the process's report, which is an error's text if it is not that it is done.
    fn wait(&mut self) -> Result<()> {
        let mut text = vec![0; monitor::DONE.len()];
        if self.report.read_exact(&mut text).is_ok() && text == monitor::DONE {
            return Ok(());
        }
        // What did not fit a shorter read is lost only if there was less than `DONE`.
        self.report.read_to_end(&mut text).context("the container's process")?;
        let text = String::from_utf8_lossy(&text);
        bail!("{}", text.trim_matches(['\0', '\n']))
    }
}

/// Lets the next program keep a descriptor.
fn inherit(fd: impl AsFd) -> Result<()> {
    fcntl_setfd(fd, FdFlags::empty()).context("descriptor")
}

/// Creates a container, starts its guest, and waits for its end unless it is to be detached;
/// returns the exit code.
///
/// # Errors
/// Those of `create`, `start` and `delete`.
pub fn run(root: &Path, global: &Global, args: &Run) -> Result<u8> {
    let mut child = create(root, global, &args.create)?;
    let id = &args.create.id;
    let started = verbs::start(root, id);
    if args.detach && started.is_ok() {
        return Ok(0);
    }
    if started.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context("the container's process")?;
    verbs::remove(Container::open(root, id)?)?;
    started.map(|()| code(status))
}

/// Exit code of a process that ended with `status`, as shells say it.
fn code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| signal.saturating_add(128));
    status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
