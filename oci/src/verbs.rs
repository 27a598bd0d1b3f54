//! The commands for a container that exists.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::runtime::{CgroupBuilder, FeaturesBuilder, LinuxFeatureBuilder, LinuxNamespaceType};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;

use crate::cli::{Delete, Format, Kill, List, Ps};
use crate::container::{Container, OCI_VERSION, Status};
use crate::guest::ANNOTATIONS;
use crate::hooks;

/// Longest wait for the end of a process that was killed. A kill takes effect when the process is
/// scheduled, and on a host that swaps that takes time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the guest of a created container.
///
/// # Errors
/// If it was started before or has ended.
pub fn start(root: &Path, id: &str) -> Result<()> {
    let container = Container::open(root, id)?;
    let status = container.status();
    ensure!(status == Status::Created, "container {id} is {status}, not created");
    // Of several who start it, one gets the name.
    let mine = container.path(&format!("start.{}", std::process::id()));
    fs::rename(container.path("start"), &mine)
        .with_context(|| format!("container {id} was started meanwhile"))?;
    let written = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&mine)
        .and_then(|mut fifo| fifo.write_all(b"."));
    fs::remove_file(&mine).context("start")?;
    written.with_context(|| format!("container {id} has ended"))?;
    let bundle = container.bundle()?;
    if let Some(hooks) = bundle.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref()) {
        hooks::run(Some(hooks), &container.state_with(Status::Running)?)?;
    }
    Ok(())
}

/// Prints the state of a container.
///
/// # Errors
/// If it does not exist.
pub fn state(root: &Path, id: &str) -> Result<()> {
    print_json(&Container::open(root, id)?.state()?)
}

/// Sends a signal.
///
/// # Errors
/// If the signal is unknown, or the container does not exist or has ended.
pub fn kill(root: &Path, args: &Kill) -> Result<()> {
    let signal = signal(&args.signal)?;
    let container = Container::open(root, &args.id)?;
    let id = container.id();
    let process =
        container.process().with_context(|| format!("container {id} is being created"))?;
    match process.send(signal) {
        Err(Errno::SRCH) if args.all => Ok(()),
        Err(Errno::SRCH) => bail!("container {id} is stopped: container not running"),
        result => result.with_context(|| format!("container {id}")),
    }
}

/// The signal of a name such as `TERM` or `SIGTERM`, or of a number.
fn signal(name: &str) -> Result<Signal> {
    let number = name.parse().or_else(|_| {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        full.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32)
    });
    number
        .ok()
        .and_then(Signal::from_named_raw)
        .with_context(|| format!("signal {name:?} does not exist"))
}

/// Removes a container that has ended.
///
/// # Errors
/// If it runs and `force` is not set, or it does not exist and `force` is not set.
pub fn delete(root: &Path, args: &Delete) -> Result<()> {
    let container = match Container::find(root, &args.id)? {
        Some(container) => container,
        None if args.force => return Ok(()),
        None => bail!("container {} does not exist", args.id),
    };
    let status = container.status();
    if args.force {
        end(&container)?;
    } else {
        ensure!(status == Status::Stopped, "container {} is {status}, not stopped", container.id());
    }
    remove(container)
}

/// Ends all processes of a container, also of one that was never finished.
fn end(container: &Container) -> Result<()> {
    let cgroup = container.cgroup().ok();
    if container.path("paused").exists() {
        // A frozen process does not die.
        cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.freeze(false))?;
    }
    let known = container.process();
    let others = cgroup.and_then(|cgroup| cgroup.processes().ok()).unwrap_or_default();
    let others = others.into_iter().filter_map(crate::process::Identity::of);
    for process in known.into_iter().chain(others) {
        match process.send(Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => (),
            Err(error) => return Err(error).context("kill"),
        }
        ensure!(
            process.has_ended_within(PATIENCE),
            "process {} does not end, {} s after it was killed",
            process.pid,
            PATIENCE.as_secs()
        );
    }
    Ok(())
}

/// Removes what is left of a container without processes.
///
/// # Errors
/// If its cgroup or its files cannot be removed.
pub fn remove(container: Container) -> Result<()> {
    // One that was never finished may have no bundle, and then it has no cgroup.
    if let Ok(cgroup) = container.cgroup() {
        // A process that has just ended may still count.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = cgroup.remove() {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let state = container.state_with(Status::Stopped).ok();
    let hooks = container.bundle().ok().and_then(|bundle| bundle.spec.hooks().clone());
    container.remove()?;
    if let (Some(state), Some(hooks)) = (state, hooks) {
        hooks::run(hooks.poststop().as_ref(), &state)?;
    }
    Ok(())
}

/// Lists all containers of a root.
///
/// # Errors
/// If they cannot be read or printed.
pub fn list(root: &Path, args: &List) -> Result<()> {
    let containers = Container::all(root)?;
    if args.quiet {
        let ids: Vec<String> = containers.iter().map(|each| format!("{}\n", each.id())).collect();
        return print(&ids.concat());
    }
    let states: Vec<_> = containers.iter().filter_map(|each| each.state().ok()).collect();
    match args.format {
        Format::Json => print_json(&states),
        Format::Table => {
            let mut text = format!("{:<20} {:>8} {:<8} BUNDLE\n", "ID", "PID", "STATUS");
            for state in states {
                let pid = state.pid.unwrap_or_default();
                let (id, status) = (&state.id, state.status);
                text += &format!("{id:<20} {pid:>8} {status:<8} {}\n", state.bundle.display());
            }
            print(&text)
        }
    }
}

/// Lists the processes of a container.
///
/// # Errors
/// If it does not exist.
pub fn ps(root: &Path, args: &Ps) -> Result<()> {
    let container = Container::open(root, &args.id)?;
    let process = container.process().filter(|its| its.is_alive());
    let pids: Vec<i32> = process.into_iter().map(|process| process.pid).collect();
    match args.format {
        Format::Json => print_json(&pids),
        Format::Table => {
            let lines: Vec<String> = pids.iter().map(|pid| format!("{pid}\n")).collect();
            print(&format!("PID\n{}", lines.concat()))
        }
    }
}

/// Freezes a running container.
///
/// # Errors
/// If it does not run, or the host has no cgroups.
pub fn pause(root: &Path, id: &str) -> Result<()> {
    freeze(root, id, true)
}

/// Thaws a container.
///
/// # Errors
/// If it is not paused.
pub fn resume(root: &Path, id: &str) -> Result<()> {
    freeze(root, id, false)
}

fn freeze(root: &Path, id: &str, is_pause: bool) -> Result<()> {
    let container = Container::open(root, id)?;
    let (needed, word) =
        if is_pause { (Status::Running, "running") } else { (Status::Paused, "paused") };
    let status = container.status();
    ensure!(status == needed, "container {id} is {status}, not {word}");
    let marker = container.path("paused");
    if is_pause {
        // First the marker: a container that is thought to be frozen is thawed before it is ended.
        fs::write(&marker, []).context("paused")?;
    }
    let frozen = container.cgroup().and_then(|cgroup| cgroup.freeze(is_pause));
    if is_pause == frozen.is_err() {
        fs::remove_file(&marker).context("paused")?;
    }
    frozen
}

/// Prints what this runtime supports (runtime-spec, "Features Structure").
///
/// # Errors
/// If it cannot be printed.
pub fn features() -> Result<()> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let hooks =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let linux = LinuxFeatureBuilder::default()
        .namespaces(vec![Cgroup, Ipc, Mount, Network, Pid, Uts])
        .cgroup(CgroupBuilder::default().systemd(true).build()?)
        .build()?;
    let features = FeaturesBuilder::default()
        .oci_version_min("1.0.0")
        .oci_version_max(OCI_VERSION)
        .hooks(hooks.map(str::to_owned).to_vec())
        .mount_options(["bind", "rbind", "ro", "rw"].map(str::to_owned).to_vec())
        .linux(linux)
        .build()?;
    let mut value = serde_json::to_value(&features)?;
    if let Some(object) = value.as_object_mut() {
        object.insert(
            "annotations".to_owned(),
            json!({ "nerite.annotations": ANNOTATIONS.join(",") }),
        );
    }
    print_json(&value)
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for name in ["TERM", "term", "SIGTERM", "15"] {
            assert_eq!(signal(name).unwrap(), Signal::TERM, "{name}");
        }
        assert_eq!(signal("9").unwrap(), Signal::KILL);
        for name in ["", "SIG", "FOO", "-1", "999"] {
            assert!(signal(name).is_err(), "{name}");
        }
    }
}
