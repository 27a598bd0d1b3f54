//! Runs jobs in one boot of the lab, and boots again where the lab itself froze.

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::agent::{JOBS, JobList};
use super::forward;
use super::initramfs::Files;
use super::kernel::{self, Kernel};
use super::qemu::{Console, Machine, Qemu};
use super::queue::Queue;
use super::wire::{self, End, Frame, Kind};
use crate::job::{Job, Outcome, Stream};
use crate::{host, packages, paths, progress};

/// A lab from which nothing was heard for so long is frozen; a live one beats every second.
const SILENCE: Duration = Duration::from_secs(60);
/// Time that a job may take beyond its own limit before the lab, not the job, is held to be at
/// fault.
const GRACE: Duration = Duration::from_secs(60);
/// Clock rate of a sound lab at most, in multiples of the host's. With a faster one, time limits
/// that go by it mean nothing.
const CLOCK_RATE: u32 = 2;
/// Time that reports of a job's start and end can be late.
const LATE: Duration = Duration::from_secs(5);
/// Beginning of the names of running labs' folders; the number of the process follows.
const RUN: &str = "run-";
/// Messages of a kernel that is stuck.
const FROZEN: [&str; 3] = ["soft lockup", "rcu_preempt detected stalls", "Kernel panic"];
/// Number of times that a frozen lab is started again.
pub(crate) const MAX_RETRIES: usize = 2;

/// Report of a session while it runs.
pub(crate) enum Report<'a> {
    /// The job that runs now wrote something.
    Output(Stream, &'a [u8]),
    /// The job with this index ended.
    Finished(usize, &'a Outcome),
}

/// A lab that is set up but not started.
pub(crate) struct Session {
    machine: Machine,
    files: Files,
    kernel: Kernel,
    qemu: PathBuf,
}

impl Session {
    /// Gets together what a lab is made of, downloading or installing what is missing.
    pub(crate) fn new(machine: Machine) -> Result<Self> {
        let tools = packages::need(&[packages::QEMU, packages::BUSYBOX])?;
        let [qemu, busybox] = tools.as_slice() else {
            anyhow::bail!("the lab's programs are not there")
        };
        let kernel = kernel::get()?;
        sweep();
        let mut files = Files::new();
        files.add(busybox, "/bin/busybox".as_ref())?;
        // Not by its name: cargo may have put another build of xtask there since this one started.
        let myself = format!("/proc/{}/exe", std::process::id());
        files.add(myself.as_ref(), super::MYSELF.as_ref())?;
        files.add(&host::program()?, super::HOST_TOOL.as_ref())?;
        let mut names = String::new();
        // The drivers of the lab's card are those that guests have for ours.
        let drivers = machine.port.map_or(&[][..], |_| &kernel.guest_modules);
        for (name, file) in kernel.modules.iter().chain(drivers) {
            files.add(file, format!("/lab/{name}.ko").as_ref())?;
            names.push_str(name);
            names.push('\n');
        }
        files.add_text("/lab/modules", names);
        files.add_text("/lab/network", machine.port.map_or("", |_| forward::CONFIGURE));
        Ok(Self { machine, files, kernel, qemu: qemu.clone() })
    }

    /// The lab's files, to add more.
    pub(crate) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// The release of the lab's kernel.
    pub(crate) fn release(&self) -> &str {
        &self.kernel.release
    }

    /// Runs one job and returns what came of it; what it writes is handed to `output` as it comes.
    pub(crate) fn run_one(
        &mut self,
        job: &Job,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome> {
        let mut outcome = None;
        self.run(std::slice::from_ref(job), &Queue::new(1), &mut |report| match report {
            Report::Output(stream, bytes) => output(stream, bytes),
            Report::Finished(_, finished) => outcome = Some(finished.clone()),
        })?;
        outcome.context("the lab gave no result")
    }

    /// Runs the jobs in `queue`, one after the other, and tells `report` what happens. A job that
    /// takes too long has failed; a lab that freezes is started again and continues with the same
    /// job, [`MAX_RETRIES`] times in all. After that, all that are left have failed. Returns how
    /// often it froze.
    pub(crate) fn run(
        &mut self,
        jobs: &[Job],
        queue: &Queue,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<usize> {
        for job in jobs {
            for file in &job.files {
                self.files.add(file, file)?;
            }
        }
        let list = toml::to_string(&JobList { jobs: jobs.to_vec() })
            .context("cannot write the list of jobs")?;
        self.files.add_text(JOBS, list);
        let mut freezes = 0;
        while !queue.is_empty() {
            let Err(freeze) = self.boot(jobs, queue, report)? else { break };
            freezes += 1;
            let job = freeze.job.and_then(|job| jobs.get(job)).map_or("no job", |job| &job.name);
            let (log, state) = (tail(&freeze.log), &freeze.state);
            let why = &freeze.why;
            let text = format!("the lab froze in {job} ({why}); its console:\n{log}\n{state}\n");
            progress::say(&text);
            freeze.job.into_iter().for_each(|job| queue.put_back(job));
            if freezes <= MAX_RETRIES {
                progress::say(&format!(
                    "starting the lab again ({freezes} of {MAX_RETRIES} retries)"
                ));
                continue;
            }
            let why =
                format!("the lab froze {freezes} times, the last time because {}", freeze.why);
            while let Some(job) = queue.take() {
                report(Report::Finished(job, &Outcome::failed(why.clone())));
            }
        }
        Ok(freezes)
    }

    fn boot(
        &self,
        jobs: &[Job],
        queue: &Queue,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<Result<(), Freeze>> {
        let prefix = format!("{RUN}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(paths::lab())?;
        let initramfs = folder.path().join("initramfs.cpio");
        self.files.write(&initramfs)?;
        let release = &self.kernel.release;
        let booting = progress::step(&format!(
            "booting the lab (QEMU without KVM, nested SVM, Linux {release})"
        ));
        let (qemu, (commands, results)) =
            Qemu::start(&self.qemu, &self.kernel.image, &initramfs, self.machine, folder.path())?;
        let mut watch = Watch::new(listen(results), commands, qemu);
        watch.booting = Some(booting);
        Ok(watch.follow(jobs, queue, report))
    }
}

/// Removes what runs have left that were killed.
fn sweep() {
    let Ok(folders) = std::fs::read_dir(paths::lab()) else { return };
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let process =
            name.strip_prefix(RUN).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// A lab that is held to be frozen: the reason, its console, the state of its machine, and its job.
#[derive(Debug)]
struct Freeze {
    why: String,
    log: String,
    state: String,
    job: Option<usize>,
}

fn listen(results: ChildStdout) -> Receiver<Frame> {
    let (sender, frames) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(results);
        while let Ok(Some(frame)) = wire::read(&mut from) {
            if sender.send(frame).is_err() {
                break;
            }
        }
    });
    frames
}

/// Follows a running lab.
struct Watch<W, C> {
    frames: Receiver<Frame>,
    commands: W,
    qemu: C,
    console: u64,
    heard: Instant,
    started: Instant,
    /// Until the lab is up.
    booting: Option<progress::Step>,
    job: Option<(usize, Instant)>,
}

impl<W: Write, C: Console> Watch<W, C> {
    fn new(frames: Receiver<Frame>, commands: W, qemu: C) -> Self {
        let now = Instant::now();
        Self {
            frames,
            commands,
            qemu,
            console: 0,
            heard: now,
            started: now,
            booting: None,
            job: None,
        }
    }

    fn follow(
        &mut self,
        jobs: &[Job],
        queue: &Queue,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), Freeze> {
        let mut now = Outcome::failed("");
        loop {
            let frame = match self.frames.recv_timeout(Duration::from_millis(500)) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => {
                    self.check(jobs)?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.freeze("it ended by itself".to_owned()));
                }
            };
            self.heard = Instant::now();
            match frame.kind {
                Kind::Ready => {
                    drop(self.booting.take());
                    let seconds = self.started.elapsed().as_secs_f64();
                    progress::say(&format!("the lab is up after {seconds:.1} s"));
                    self.give_job(queue)?;
                }
                Kind::Start => now = Outcome::failed(""),
                Kind::Out => {
                    now.stdout.extend_from_slice(&frame.payload);
                    report(Report::Output(Stream::Out, &frame.payload));
                }
                Kind::Err => {
                    now.stderr.extend_from_slice(&frame.payload);
                    report(Report::Output(Stream::Err, &frame.payload));
                }
                Kind::End => {
                    let text = String::from_utf8_lossy(&frame.payload).into_owned();
                    let Ok(end) = toml::from_str::<End>(&text) else {
                        return Err(self.freeze(format!("its report is garbled: {text:?}")));
                    };
                    now.ending = end.ending;
                    now.time = Duration::from_millis(end.milliseconds);
                    if let Some((job, since)) = self.job {
                        self.check_clock(now.time, since.elapsed())?;
                        self.job = None;
                        report(Report::Finished(job, &now));
                    }
                    self.give_job(queue)?;
                }
                Kind::Beat => self.check(jobs)?,
                Kind::Done => return Ok(()),
            }
        }
    }

    /// Tells the lab what to run next.
    fn give_job(&mut self, queue: &Queue) -> Result<(), Freeze> {
        let job = queue.take();
        self.job = job.map(|job| (job, Instant::now()));
        wire::tell(&mut self.commands, job)
            .map_err(|error| self.freeze(format!("it takes no job: {error}")))
    }

    /// Looks for signs of a frozen lab.
    fn check(&mut self, jobs: &[Job]) -> Result<(), Freeze> {
        let length = self.qemu.length();
        if length != self.console {
            self.console = length;
            self.heard = Instant::now();
            let log = self.qemu.log();
            if let Some(sign) = FROZEN.iter().find(|sign| log.contains(*sign)) {
                return Err(self.freeze(format!("its kernel says \"{sign}\"")));
            }
        }
        if self.heard.elapsed() > SILENCE {
            return Err(self.freeze(format!("no sign of life for {} s", SILENCE.as_secs())));
        }
        if let Some((job, since)) = self.job {
            let limit =
                jobs.get(job).map_or(Duration::ZERO, |job| Duration::from_secs(job.timeout));
            if since.elapsed() > limit + GRACE {
                return Err(self.freeze("it did not end a job whose time was up".to_owned()));
            }
        }
        Ok(())
    }

    /// Compares the time that a job took by the lab's clock with the host's.
    fn check_clock(&self, lab: Duration, host: Duration) -> Result<(), Freeze> {
        if lab > host.saturating_mul(CLOCK_RATE).saturating_add(LATE) {
            let (lab, host) = (lab.as_secs_f64(), host.as_secs_f64());
            return Err(self.freeze(format!("by its clock {lab:.1} s have passed in {host:.1} s")));
        }
        Ok(())
    }

    fn freeze(&self, why: String) -> Freeze {
        let (log, state) = (self.qemu.log(), self.qemu.state());
        Freeze { why, log, state, job: self.job.map(|(job, _)| job) }
    }
}

/// The last lines of a console, where the trouble is.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
