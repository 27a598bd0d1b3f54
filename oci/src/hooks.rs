//! Programs that the bundle wants to be run at certain moments (runtime-spec, "POSIX-platform
//! Hooks").

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oci_spec::runtime::Hook;

use crate::container::State;
use crate::process::Identity;

/// Runs hooks in order.
///
/// # Errors
/// If one cannot be run, fails, or takes longer than its time limit; those after it are not run.
pub fn run(hooks: Option<&Vec<Hook>>, state: &State) -> Result<()> {
    for hook in hooks.into_iter().flatten() {
        run_one(hook, state).with_context(|| format!("hook {}", hook.path().display()))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &State) -> Result<()> {
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env_clear().stdin(Stdio::piped()).stdout(Stdio::null());
    for (name, value) in hook.env().iter().flatten().filter_map(|entry| entry.split_once('=')) {
        command.env(name, value);
    }
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(&serde_json::to_vec(state)?);
    }
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(limit) = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs) {
        let process = i32::try_from(child.id()).ok().and_then(Identity::of);
        if process.is_some_and(|process| !process.has_ended_within(limit)) {
            let _ = child.kill();
            let _ = child.wait();
            anyhow::bail!("not done after {} s", limit.as_secs());
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use crate::container::Status;

    use super::*;

    fn state() -> State {
        State {
            oci_version: "1.2.0",
            id: "x".to_owned(),
            status: Status::Creating,
            pid: None,
            bundle: "/b".into(),
            annotations: Default::default(),
        }
    }

    /// A hook that runs a line of shell; a script of its own might still be open for writing in a
    /// process that another test starts.
    fn hook(text: &str) -> Hook {
        let args = ["sh", "-c", text, "hook", "one"].map(str::to_owned);
        HookBuilder::default().path("/bin/sh").args(args).build().unwrap()
    }

    #[test]
    fn a_hook_gets_its_arguments_environment_and_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut hook = hook("{ cat; echo \" $1 $A $HOME\"; } > $OUT");
        hook.set_env(Some(vec!["A=b".into(), format!("OUT={}", out.display())]));
        run(Some(&vec![hook]), &state()).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert!(text.contains(r#""id":"x""#) && text.ends_with("one b \n"), "{text}");
    }

    #[test]
    fn a_hook_that_fails_or_hangs_is_an_error() {
        let error = run(Some(&vec![hook("exit 3")]), &state()).unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
        let mut slow = hook("exec sleep 1000");
        slow.set_timeout(Some(1));
        let error = run(Some(&vec![slow]), &state()).unwrap_err();
        assert!(format!("{error:#}").ends_with("not done after 1 s"), "{error:#}");
    }
}
