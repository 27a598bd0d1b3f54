//! The host's GDB at a guest in the lab, as `cargo xtask run --lab --gdb` brings them together: a
//! breakpoint in a guest with two processors, one of which is busy in a loop, and its end.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::job::{Ending, Job, Stream};
use crate::lab::{Machine, Session};
use crate::results::{Failure, Results};
use crate::{debugger, kernels, packages, progress};

/// Name of the test.
pub(crate) const NAME: &str = "gdb-from-host";
/// Seconds for the guest and GDB.
const TIMEOUT: u64 = 300;
/// Line of `vmm` after which GDB can connect.
const READY: &str = "GDB can connect";
/// Texts of GDB, in this order.
const EXPECTED: [&str; 5] =
    ["Breakpoint 1,", "bump", "(vCPU 1, paused)", "Breakpoint 1,", "exited normally"];

/// Runs the test with this `vmm`.
pub(crate) fn check(vmm: &Path) -> Results {
    match run(vmm) {
        Ok(()) => {
            progress::print(&format!("ok   {NAME}"));
            Results::passed()
        }
        Err(error) => {
            let failure = Failure::new(NAME, format!("{error:#}"));
            progress::print(&format!("FAIL {NAME}: {}", failure.output));
            Results::failed(failure)
        }
    }
}

fn run(vmm: &Path) -> Result<()> {
    let gdb = packages::need(&[debugger::GDB])?.into_iter().next().context("no path of gdb")?;
    let guest = kernels::build_one("debugged")?;
    // A port that is free now; QEMU listens there.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut session = Session::new(Machine { port: Some(address), ..Machine::default() })?;
    session.files().add(vmm, "/bin/vmm".as_ref())?;
    let words = ["vmm", "run", "-c", "2", "--no-aslr"].map(str::to_owned).into_iter();
    let words = words.chain([format!("--gdb={}", address.port()), guest.display().to_string()]);
    let job = Job {
        name: NAME.to_owned(),
        command: words.collect(),
        timeout: TIMEOUT,
        port: Some(address.port()),
        files: vec![guest.clone()],
        ..Job::default()
    };
    let connect = || {
        let mut gdb = Command::new(&gdb);
        gdb.args(["-nx", "-batch"]).arg(&guest);
        let commands = [&format!("target remote {address}"), "break bump", "continue"];
        let commands = commands.into_iter().chain(["info threads", "continue", "delete"]);
        commands.chain(["continue"]).for_each(|command| {
            gdb.args(["-ex", command]);
        });
        gdb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let (mut said, mut debugger) = (String::new(), None::<std::io::Result<Child>>);
    let outcome = session.run_one(&job, &mut |stream, bytes| {
        if stream == Stream::Err && debugger.is_none() {
            said.push_str(&String::from_utf8_lossy(bytes));
            debugger = said.contains(READY).then(connect);
        }
    })?;
    let debugger = debugger.with_context(|| format!("vmm does not wait for GDB: {said}"))?;
    // The lab has gone, and with it what GDB is connected to.
    let output = debugger.context("cannot run gdb")?.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut rest = &*text;
    for expected in EXPECTED {
        let error = || format!("{expected:?} is missing: {text}{}", lossy(&output.stderr));
        rest = rest.split_once(expected).with_context(error)?.1;
    }
    ensure!(
        outcome.ending == Ending::Exited(0),
        "vmm: {}\n{}{text}",
        outcome.ending,
        lossy(&outcome.stderr)
    );
    Ok(())
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
