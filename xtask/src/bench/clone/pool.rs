//! A server of clones and its clients.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::starts::{PATIENCE, wait_until};
use super::{Bench, number};

/// A server of clones.
pub(super) struct Pool {
    server: Child,
    socket: PathBuf,
    /// Clones that run.
    clones: Vec<Clone>,
}

/// A clone that runs.
struct Clone {
    stream: UnixStream,
    output: File,
    _errors: File,
}

impl Clone {
    /// Waits for its end.
    fn end(mut self) -> Result<()> {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest)?;
        let mut line = String::new();
        BufReader::new(self.stream).read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        ensure!(answer["ok"]["code"] == 0, "a clone ended with {answer}");
        Ok(())
    }
}

impl Pool {
    /// A server of clones of the snapshot `name`.
    pub(super) fn start(bench: &Bench, name: &str, pool: usize, most: usize) -> Result<Self> {
        let mount = bench.mount();
        let (pool, most) = (pool.to_string(), most.to_string());
        let words = ["clones", name, "--listen", "pool", "--accel", &bench.accel];
        let limits = ["--pool", &pool, "--max-running", &most, "--mount", &mount];
        let mut command = bench.vmm(&[&words[..], &limits[..]].concat());
        command.stderr(std::process::Stdio::inherit());
        let server = command.spawn().context("cannot run vmm")?;
        let socket = bench.path("pool");
        let pool = Self { server, socket, clones: Vec::new() };
        wait_until("the server", || Ok(UnixStream::connect(&pool.socket).is_ok()))?;
        Ok(pool)
    }

    fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket).context("cannot reach the server")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn status(&self) -> Result<Value> {
        let mut stream = self.connect()?;
        stream.write_all(b"{\"version\":1,\"command\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str::<Value>(&line)?["ok"].take())
    }

    /// Waits until so many are ready.
    pub(super) fn wait_ready(&self, count: u64) -> Result<()> {
        wait_until("a clone that is ready", || {
            Ok(self.status()?["ready"].as_u64().is_some_and(|ready| ready >= count))
        })
    }

    /// Private memory in KiB of a process that is ready.
    pub(super) fn private_memory(&self) -> Result<u64> {
        let pid = self.server.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next().context("there is no process")?;
        number(&PathBuf::from(format!("/proc/{first}/smaps_rollup")), "Private_Dirty:")
    }

    fn request(&self) -> Result<Clone> {
        let mut stream = self.connect()?;
        stream.write_all(b"{\"version\":1,\"command\":\"clone\"}\n")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            .context("no clone came")?;
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(new) = message {
                files.extend(new);
            }
        }
        let Ok([output, errors]) = <[_; 2]>::try_from(files) else {
            bail!("the server refused: {}", String::from_utf8_lossy(&bytes));
        };
        Ok(Clone { stream, output: output.into(), _errors: errors.into() })
    }

    /// Runs a clone: the times from the request to its first output, and to its end.
    pub(super) fn run_one(&mut self) -> Result<(Duration, Duration)> {
        let begin = Instant::now();
        let mut clone = self.request()?;
        ensure!(clone.output.read(&mut [0])? == 1, "the clone printed nothing");
        let first = begin.elapsed();
        clone.end()?;
        Ok((first, begin.elapsed()))
    }

    /// Starts clones that stay.
    pub(super) fn run_many(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let clone = self.request()?;
            self.clones.push(clone);
        }
        let running = self.status()?;
        let alive = running["running"].as_array().map_or(0, Vec::len);
        ensure!(alive == count, "{alive} of {count} clones are alive");
        Ok(())
    }

    /// Ends the server.
    pub(super) fn end(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.server), Signal::TERM)?;
        let status = self.server.wait()?;
        ensure!(status.code() == Some(143), "the server of clones: {status}");
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // It has ended in good order, or the bench has failed.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
