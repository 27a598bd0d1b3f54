//! Starts, restores and the snapshots that they need.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, snapshot};

/// Time after which something counts as hanging.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    /// `vmm` with these words.
    pub(super) fn vmm(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.vmm);
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Waits until something is so.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Saves a guest that waits, started with this argument, as `name`.
pub(super) fn save(bench: &Bench, size: u32, name: &str, argument: Option<&str>) -> Result<()> {
    let (memory, mount) = (format!("{size}M"), bench.mount());
    let guest = bench.guest.to_string_lossy();
    let output = bench.path("output");
    let words = ["run", "--accel", &bench.accel, "-m", &memory, "--mount", &mount];
    let mut run = bench.vmm(&words);
    run.args(["--api-socket", "socket", "-o", "output"]).arg(&*guest).args(argument);
    let mut child = run.spawn().context("cannot run vmm")?;
    let is_there = || Ok(output.metadata().is_ok_and(|it| it.len() > 0));
    let saved = wait_until("the guest", is_there).and_then(|()| {
        let words = ["ctl", "socket", "snapshot", "--stop", name];
        let status = bench.vmm(&words).status().context("cannot run vmm")?;
        ensure!(status.success(), "the guest was not saved: {status}");
        Ok(())
    });
    if saved.is_err() {
        child.kill()?;
    }
    child.wait()?;
    std::fs::remove_file(output)?;
    saved
}

/// Time of a command, which succeeds.
fn time(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    let status = command.status().context("cannot run vmm")?;
    let time = begin.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(time)
}

/// Time of a guest from its start to its end.
pub(super) fn cold(bench: &Bench, size: u32) -> Result<Duration> {
    let (memory, mount) = (format!("{size}M"), bench.mount());
    let words = ["run", "--accel", &bench.accel, "-m", &memory, "--mount", &mount];
    time(bench.vmm(&words).arg(&bench.guest))
}

/// Time of a guest that goes on in a process of its own, to its end.
pub(super) fn restore(bench: &Bench, size: u32) -> Result<Duration> {
    let (name, mount) = (snapshot(size), bench.mount());
    let words = ["run", "--accel", &bench.accel, "--mount", &mount, "--restore", &name];
    time(&mut bench.vmm(&words))
}
