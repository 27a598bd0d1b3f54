//! The part of xtask that runs inside the lab: it executes the jobs that it is sent, and reports on
//! the second serial port.

use std::io::Stdout;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::forward;
use super::wire::{self, End, Kind};
use crate::exec;
use crate::job::{Job, Stream};

/// Path of the jobs in the initramfs.
pub(crate) const JOBS: &str = "/lab/jobs.toml";

/// Busybox words that run the command after them in a network of its own, which has a loopback
/// interface and nothing else. What a job leaves there, taps, links, addresses, neighbours and
/// connections, goes with the last process that is in it. The mounts are its own, too, because
/// `/sys` shows the network of the process that mounted it.
const ISOLATED: [&str; 7] = ["/bin/busybox", "unshare", "-n", "-m", "/bin/busybox", "sh", "-c"];
const ENTER: &str = r#"mount -t sysfs sysfs /sys && ip link set lo up && exec "$@""#;

/// Interval of the lab's signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// The file the agent reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobList {
    /// Jobs that the host may request.
    pub(crate) jobs: Vec<Job>,
}

#[derive(Clone)]
struct Line(Arc<Mutex<Stdout>>);

impl Line {
    fn send(&self, kind: Kind, job: usize, payload: &[u8]) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A failure of the line itself cannot be reported; the host notices the silence.
        let _ = wire::write(&mut *line, kind, job, payload);
    }
}

/// Runs jobs of the file at `path` for as long as the host says which.
pub(crate) fn main(path: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list: JobList =
        toml::from_str(&text).with_context(|| format!("bad job list {}", path.display()))?;
    let line = Line(Arc::new(Mutex::new(std::io::stdout())));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    line.send(Kind::Ready, 0, release.trim().as_bytes());

    let beat = line.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(BEAT);
            beat.send(Kind::Beat, 0, b"");
        }
    });

    let mut commands = std::io::stdin().lock();
    while let Some(index) = wire::next_job(&mut commands).context("waiting for a job")? {
        let job = list.jobs.get(index).with_context(|| format!("there is no job {index}"))?;
        line.send(Kind::Start, index, b"");
        let (ending, time) = exec::execute(&placed(job)?, &mut |stream, bytes| {
            let kind = if stream == Stream::Out { Kind::Out } else { Kind::Err };
            line.send(kind, index, bytes);
        });
        let end = End { ending, milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) };
        line.send(Kind::End, index, toml::to_string(&end)?.as_bytes());
    }
    line.send(Kind::Done, 0, b"");
    let _ = rustix::termios::tcdrain(std::io::stdout());
    Ok(())
}

/// The same job in a network of its own, or in the lab's with a relay to its port.
fn placed(job: &Job) -> Result<Job> {
    if let Some(port) = job.port {
        forward::relay(port).context("cannot lead the host's port to the job")?;
        return Ok(job.clone());
    }
    let enter = ISOLATED.into_iter().chain([ENTER, "sh"]).map(str::to_owned);
    Ok(Job { command: enter.chain(job.command.iter().cloned()).collect(), ..job.clone() })
}
