//! The worker, which runs where guests run: it times and counts the cases, and writes lines of
//! JSON.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::data::{Case, Line, Run};
use super::trace;

/// Works through the cases in the file at `path`.
pub(crate) fn main(path: &Path) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases: Vec<Case> = serde_json::from_str(&text).context("bad list of cases")?;
    let mut works = vec![true; cases.len()];
    let mut benches: Vec<&str> = cases.iter().map(|case| case.bench.as_str()).collect();
    benches.dedup();
    for bench in benches {
        let mine: Vec<usize> = (0..cases.len()).filter(|at| cases[*at].bench == bench).collect();
        let rounds = mine.iter().map(|at| cases[*at].rounds).max().unwrap_or(0);
        // One more, before all others, that does not count: it brings files into memory.
        for round in 0..=rounds {
            // Each goes first in every other round.
            let order: Vec<usize> =
                if round % 2 == 0 { mine.clone() } else { mine.iter().rev().copied().collect() };
            for case in order.into_iter().filter(|case| works[*case]).collect::<Vec<_>>() {
                match timed(&cases[case]) {
                    Ok(run) if round > 0 => tell(&Line::Timed { case, run })?,
                    Ok(_) => {}
                    Err(error) => {
                        works[case] = false;
                        tell(&Line::Failed { case, why: format!("{error:#}") })?;
                    }
                }
            }
        }
        for case in
            mine.into_iter().filter(|case| works[*case] && cases[*case].counted).collect::<Vec<_>>()
        {
            let limit = Duration::from_secs(cases[case].timeout * 10);
            match trace::count(&cases[case].command, limit) {
                Ok(counts) => tell(&Line::Counted { case, counts })?,
                Err(error) => tell(&Line::Failed { case, why: format!("not counted: {error:#}") })?,
            }
        }
    }
    Ok(())
}

fn tell(line: &Line) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    out.flush().context("cannot write to standard output")
}

/// Kills a process after a time, unless dropped before.
struct Watchdog(#[allow(dead_code, reason = "its end is the message")] mpsc::Sender<()>);

impl Watchdog {
    fn new(child: &Child, limit: Duration) -> Self {
        let (alive, over) = mpsc::channel::<()>();
        let pid = Pid::from_child(child);
        thread::spawn(move || {
            if over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Not reaped yet: the thread that waits for it holds the other end.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(alive)
    }
}

fn timed(case: &Case) -> Result<Run> {
    let (program, arguments) = case.command.split_first().context("no command")?;
    let mut errors = tempfile()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.try_clone()?);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let watchdog = Watchdog::new(&child, Duration::from_secs(case.timeout));
    let mut stdout = child.stdout.take().context("no output")?;
    let (mut output, mut piece, mut first) = (Vec::new(), vec![0; 64 << 10], None);
    loop {
        let length = stdout.read(&mut piece)?;
        first.get_or_insert_with(|| start.elapsed());
        if length == 0 {
            break;
        }
        // The rest of a flood says nothing more, but its end does.
        if output.len() < 1 << 20 {
            output.extend_from_slice(&piece[..length]);
        } else {
            let keep = length.min(4096);
            output.truncate((1 << 20) - 4096);
            output.extend_from_slice(&piece[length - keep..length]);
        }
    }
    let status = child.wait()?;
    let whole = start.elapsed();
    drop(watchdog);
    let text = String::from_utf8_lossy(&output);
    if !text.contains(&case.expect) {
        let mut said = String::new();
        errors.seek(SeekFrom::Start(0))?;
        errors.read_to_string(&mut said)?;
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("nothing on standard error");
        bail!("{status}, and no {:?} in its output: {last}", case.expect);
    }
    ensure!(status.code().is_some(), "{status}");
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(Run {
        first: microseconds(first.unwrap_or(whole)),
        whole: microseconds(whole),
        values: text.lines().filter_map(value).collect(),
    })
}

fn tempfile() -> Result<File> {
    tempfile::tempfile().context("cannot make a temporary file")
}

/// A line in which a guest tells a figure: `name: 12 unit`.
pub(crate) fn value(line: &str) -> Option<(String, f64, String)> {
    let (name, rest) = line.split_once(": ")?;
    let (number, unit) = rest.split_once(' ')?;
    let known = ["ns", "MiB/s"].contains(&unit);
    known.then_some((name.to_owned(), number.parse().ok()?, unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::data::Who;

    fn case(script: &str, expect: &str) -> Case {
        Case {
            bench: "b".to_owned(),
            who: Who::Ours,
            command: ["sh", "-c", script].map(str::to_owned).into(),
            expect: expect.to_owned(),
            rounds: 1,
            counted: false,
            timeout: 5,
        }
    }

    #[test]
    fn the_first_output_and_the_end_are_timed() {
        let run = timed(&case("echo one: 5 ns; sleep 0.3; echo ok", "ok")).unwrap();
        assert!(run.first < run.whole && run.whole > 300_000.0, "{run:?}");
        assert_eq!(run.values, [("one".to_owned(), 5.0, "ns".to_owned())]);
    }

    #[test]
    fn a_run_without_what_is_expected_has_failed() {
        let error =
            timed(&case("echo no; echo because >&2; exit 3", "ok")).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains('3'), "{error}");
        let hung = Case { timeout: 1, ..case("echo ok; exec sleep 60", "ok") };
        assert!(timed(&hung).is_err());
    }

    #[test]
    fn figures_have_a_name_and_a_unit() {
        assert_eq!(value("port in: 12.5 ns"), Some(("port in".to_owned(), 12.5, "ns".to_owned())));
        assert_eq!(value("write: 100 MiB/s").unwrap().1, 100.0);
        assert_eq!(value("it took: long ns"), None);
        assert_eq!(value("5000 exits"), None);
    }
}
