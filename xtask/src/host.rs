//! Answers of this host that take Nerite's crates, by a program of its own: xtask builds without
//! them.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::{build, progress};

/// The host's KVM.
#[derive(Clone, Debug)]
pub(crate) struct Kvm {
    /// `true` if it runs guests on the processor.
    pub(crate) is_hardware: bool,
    /// Its kind in a few words.
    pub(crate) kind: String,
}

/// Asks the host's KVM to run a guest.
pub(crate) fn kvm() -> Result<Kvm> {
    let Output { status, stdout, stderr } = ask("kvm")?;
    let is_hardware = match status.code() {
        Some(0) => true,
        Some(1) if !stdout.is_empty() => false,
        _ => anyhow::bail!("the probe of KVM ended with {status}: {}", text(&stderr)),
    };
    Ok(Kvm { is_hardware, kind: text(&stdout) })
}

/// Rate of the host's time-stamp counter in kHz.
pub(crate) fn tsc_khz() -> Result<u64> {
    let Output { status, stdout, stderr } = ask("tsc")?;
    ensure!(status.success(), "the time-stamp counter was not measured: {}", text(&stderr));
    text(&stdout).parse().context("the rate of the time-stamp counter is no number")
}

/// The program, which is built once in a run.
pub(crate) fn program() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = BUILT.get() {
        return Ok(program.clone());
    }
    let step = progress::step("building xtask-host");
    let program = build::host_tool()?;
    step.done();
    Ok(BUILT.get_or_init(|| program).clone())
}

fn ask(question: &str) -> Result<Output> {
    let program = program()?;
    let output = Command::new(&program).arg(question).output();
    output.with_context(|| format!("cannot run {}", program.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_answers() {
        let kvm = kvm().unwrap();
        assert_eq!(kvm.is_hardware, kvm.kind == "hardware KVM", "{kvm:?}");
        assert!(tsc_khz().unwrap() > 100_000);
    }
}
