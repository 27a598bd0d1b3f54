//! The part of xtask that runs inside the lab: it executes the jobs that it is sent, and reports on
//! the second serial port.

use std::collections::BTreeSet;
use std::io::{self, Stdout};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::forward;
use super::wire::{self, End, Kind};
use crate::exec;
use crate::job::{Job, Stream};

/// Folder of the files that the job in progress does not name.
const ASIDE: &str = "/lab/aside";

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

    let files = JobFiles::of(&list.jobs, Path::new(ASIDE))?;
    let mut commands = std::io::stdin().lock();
    while let Some(index) = wire::next_job(&mut commands).context("waiting for a job")? {
        let job = list.jobs.get(index).with_context(|| format!("there is no job {index}"))?;
        files.show(&job.files).context("cannot show a job its files")?;
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

/// The files of all jobs. Each job sees only those that it names: one that relied on another's
/// would fail in a lab that has only its own.
struct JobFiles {
    all: BTreeSet<PathBuf>,
    aside: PathBuf,
}

impl JobFiles {
    fn of(jobs: &[Job], aside: &Path) -> Result<Self> {
        std::fs::create_dir_all(aside)
            .with_context(|| format!("cannot create {}", aside.display()))?;
        let all = jobs.iter().flat_map(|job| job.files.iter().cloned()).collect();
        Ok(Self { all, aside: aside.to_owned() })
    }

    /// Puts `wanted` in their places and all others aside.
    fn show(&self, wanted: &[PathBuf]) -> io::Result<()> {
        for (index, file) in self.all.iter().enumerate() {
            let hidden = self.aside.join(index.to_string());
            let (from, to) = if wanted.contains(file) { (&hidden, file) } else { (file, &hidden) };
            match std::fs::rename(from, to) {
                // It is there already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_sees_the_files_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["vmm", "hello", "args"].map(|name| folder.path().join(name));
        let [vmm, hello, args] = &paths;
        paths.iter().for_each(|path| std::fs::write(path, path.to_str().unwrap()).unwrap());
        let job = |files: &[&PathBuf]| Job {
            files: files.iter().copied().cloned().collect(),
            ..Job::default()
        };
        let jobs = [job(&[vmm, hello]), job(&[vmm, args])];
        let files = JobFiles::of(&jobs, &folder.path().join("aside")).unwrap();
        for (job, seen) in
            [(0, [true, true, false]), (1, [true, false, true]), (1, [true, false, true])]
        {
            files.show(&jobs[job].files).unwrap();
            assert_eq!(paths.each_ref().map(|path| path.exists()), seen);
        }
        files.show(&paths).unwrap();
        for path in &paths {
            assert_eq!(std::fs::read(path).unwrap(), path.as_os_str().as_encoded_bytes());
        }
    }
}
