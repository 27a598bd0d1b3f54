//! `cargo xtask test-kernels hostile`: guests that do what no honest guest does, run under a `vmm`
//! that notices more.
//!
//! The debug build, with assertions and overflow checks, runs them confined as always, on KVM and
//! on the processor in software. That is part of the whole test. Then a faster build with these
//! checks runs them under AddressSanitizer, not confined, because its runtime opens files and stops
//! all threads to look for leaks. That build takes three minutes of a processor, so it is this
//! command's alone.

use std::path::PathBuf;

use anyhow::Result;

use crate::build::{self, TARGET, sanitizer_obstacle, sanitizing};
use crate::platform::Runner;
use crate::results::Results;
use crate::suite::Test;
use crate::{guest_tests, paths, progress};

/// The release profile with checks: under AddressSanitizer, fast enough for the lab, and small
/// enough to be sent there.
const CHECKED: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];
/// To have all other crates optimised takes longer than the guests then save.
const QUICKLY: &str = r#"profile.release.package."*".opt-level=0"#;

/// Runs the tests with assertions, on KVM and in software.
pub(crate) fn run_asserting(tests: &[Test], runner: &Runner) -> Result<Results> {
    let vmm = build::vmm_for_tests()?;
    let mut results = guest_tests::run_with(tests, runner, &vmm)?;
    results += guest_tests::run_in_software_with(tests, runner.workers, runner.repeat, &vmm)?;
    Ok(results)
}

/// Runs the tests in all ways.
pub(crate) fn run(tests: &[Test], runner: &Runner) -> Result<Results> {
    let mut results = run_asserting(tests, runner)?;
    if let Some(reason) = sanitizer_obstacle() {
        progress::print(&format!("SKIP all of them under AddressSanitizer: {reason}"));
        results.summary.skipped += tests.len();
        return Ok(results);
    }
    let vmm = build_sanitized()?;
    let tests: Vec<Test> = tests.iter().map(|test| test.sanitized()).collect();
    results += guest_tests::run_with(&tests, runner, &vmm)?;
    Ok(results)
}

fn build_sanitized() -> Result<PathBuf> {
    let step = progress::step("building vmm with AddressSanitizer");
    let target = paths::target().join("asan");
    let mut command = sanitizing();
    command.args([
        "build",
        "--release",
        "--package",
        "nerite-vmm",
        "--bin",
        "vmm",
        "--target",
        TARGET,
        "--config",
        QUICKLY,
    ]);
    command.arg("--target-dir").arg(&target).envs(CHECKED).env("RUSTFLAGS", "-Zsanitizer=address");
    build::run(&mut command, "the sources of vmm")?;
    step.done();
    Ok(target.join(TARGET).join("release/vmm"))
}
