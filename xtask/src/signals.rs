//! SIGINT, SIGTERM and SIGHUP: what this program has started ends with it.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

/// Time for the processes of our own group, which a terminal has sent the signal, too, before they
/// are sent it from here.
const POLITE: Duration = Duration::from_secs(1);
/// Time after which what is left is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// `true` once a signal has come.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// From now on, a signal that ends this process ends what it has started first. Signals that are
/// ignored stay so.
pub(crate) fn end_children() -> Result<()> {
    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|&signal| ignored & bit(signal) == 0);
    let mut signals = Signals::new(wanted).context("cannot listen for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            STOPPING.store(true, Ordering::SeqCst);
            end(std::process::id(), signal, POLITE, PATIENCE);
            // Its parent sees which signal it was.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Called before something is printed, and so before each new step: once a signal has come, nothing
/// more happens here.
pub(crate) fn stop_here() {
    while STOPPING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// `true` if this process ignores a signal other than SIGPIPE, which Rust's runtime ignores and
/// gives back.
pub(crate) fn some_are_ignored() -> bool {
    ignored() & !bit(SIGPIPE) != 0
}

/// Signals that this process ignores, a bit for each (proc_pid_status(5)).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Bit of a signal in the kernel's masks.
fn bit(signal: i32) -> u64 {
    1_u64.checked_shl(signal.unsigned_abs().wrapping_sub(1)).unwrap_or(0)
}

/// A process, as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    group: u32,
}

/// Sends all descendants of a process the signal, and kills those that do not end. Those in its own
/// group have probably got the signal from the terminal; they are sent it after the time `polite`.
fn end(root: u32, signal: i32, polite: Duration, patience: Duration) {
    let start = Instant::now();
    let own_group =
        all().into_iter().find(|process| process.id == root).map(|process| process.group);
    let mut told = HashSet::new();
    let mut killed: Option<Instant> = None;
    loop {
        let alive = descendants(root, &all());
        if alive.is_empty() {
            return;
        }
        for process in alive {
            let pid = i32::try_from(process.id).ok().and_then(Pid::from_raw);
            if start.elapsed() >= patience {
                killed.get_or_insert_with(Instant::now);
                pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            } else if (Some(process.group) != own_group || start.elapsed() >= polite)
                && told.insert(process.id)
            {
                pid.zip(Signal::from_named_raw(signal))
                    .map(|(pid, signal)| rustix::process::kill_process(pid, signal));
            }
        }
        // What the kernel does not end is left behind.
        if killed.is_some_and(|killed| killed.elapsed() >= PATIENCE) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that a process has started, directly or not, with all that is in their groups.
fn descendants(root: u32, all: &[Process]) -> Vec<Process> {
    let mut known = HashSet::from([root]);
    let mut found: Vec<Process> = Vec::new();
    loop {
        let new: Vec<Process> = all
            .iter()
            .filter(|process| !known.contains(&process.id))
            // A group has the number of the process that it was made for.
            .filter(|process| {
                known.contains(&process.parent)
                    || found.iter().any(|leader| leader.id == process.group)
            })
            .copied()
            .collect();
        if new.is_empty() {
            return found;
        }
        known.extend(new.iter().map(|process| process.id));
        found.extend(new);
    }
}

/// All processes that have not ended.
fn all() -> Vec<Process> {
    let Ok(folders) = fs::read_dir("/proc") else { return Vec::new() };
    let stat = |folder: fs::DirEntry| fs::read_to_string(folder.path().join("stat")).ok();
    folders.flatten().filter_map(stat).filter_map(|stat| parse(&stat)).collect()
}

/// Reads `12 (name) S 1 12 ...`; `None` for a process that has ended and not been waited for.
fn parse(stat: &str) -> Option<Process> {
    // The name may hold anything.
    let (begin, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let process = Process {
        id: begin.split(' ').next()?.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    };
    (!matches!(state, "Z" | "X")).then_some(process)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let process = Process { id: 12, parent: 3, group: 4 };
        assert_eq!(parse("12 (a) b) R 9) S 3 4 4 0 -1 0"), Some(process));
        assert_eq!(parse("12 (a) Z 3 4 4 0 -1 0"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn descendants_are_found_by_parent_and_by_group() {
        let process = |id, parent, group| Process { id, parent, group };
        // 20 made a group of its own; the parent of 22, which is in it, has ended.
        let all = [
            process(10, 1, 10),
            process(20, 10, 20),
            process(21, 20, 10),
            process(22, 1, 20),
            process(30, 1, 30),
        ];
        let mut found: Vec<u32> = descendants(10, &all).iter().map(|process| process.id).collect();
        found.sort_unstable();
        assert_eq!(found, [20, 21, 22]);
    }

    #[test]
    fn children_end_politely_or_are_killed() {
        // One child ignores the signal, the other is in another group.
        let script = "(trap '' INT; echo ready; exec sleep 1000) & \
                      setsid sh -c 'echo ready; exec sleep 1000' & wait";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().take(2);
        assert!(lines.into_iter().all(|line| line.unwrap() == "ready"));
        end(child.id(), SIGINT, Duration::ZERO, Duration::from_millis(300));
        assert_eq!(descendants(child.id(), &all()), []);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
