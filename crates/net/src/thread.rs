//! Scheduling policy of a queue pair's thread.

use std::cell::Cell;
use std::fs;
use std::io;

thread_local! {
    static POLICY: Cell<SchedPolicy> = const { Cell::new(SchedPolicy::Ordinary) };
}

/// Scheduling policy of this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SchedPolicy {
    /// `SCHED_OTHER`.
    Ordinary,
    /// `SCHED_BATCH`, set by [`set_sched_batch`].
    Batch,
    /// Set by another part of the system; never changed here.
    Foreign,
}

/// Selects `SCHED_BATCH` (sched(7)) for the calling thread while the driver sends a stream, and the
/// ordinary policy otherwise.
///
/// A batch thread does not preempt others when it wakes up. With an idle processor this changes
/// nothing. Without one, the thread that is preempted is mostly the guest's: right after the first
/// of many frames, which then go one by one, with a notification, a system call and an
/// acknowledgement each. A frame that is no part of a stream is sent at once instead, because its
/// reply may be waited for.
///
/// Only a thread with the ordinary policy changes it. A call that changes nothing makes no system
/// call.
pub(crate) fn set_sched_batch(on: bool) {
    let wanted = if on { SchedPolicy::Batch } else { SchedPolicy::Ordinary };
    let now = POLICY.get();
    if now == wanted || now == SchedPolicy::Foreign {
        return;
    }
    if on && policy() != libc::SCHED_OTHER {
        return POLICY.set(SchedPolicy::Foreign);
    }
    // 0 is this thread.
    match set_policy(0, if on { libc::SCHED_BATCH } else { libc::SCHED_OTHER }) {
        Ok(()) => POLICY.set(wanted),
        Err(error) => {
            log::debug!("a network card's thread is scheduled as before: {error}");
            POLICY.set(SchedPolicy::Foreign);
        }
    }
}

fn policy() -> libc::c_int {
    // SAFETY: a call that only asks.
    unsafe { libc::sched_getscheduler(0) }
}

/// Calls `start`, which makes the host's kernel start a vhost worker for this process, and gives
/// the worker `SCHED_BATCH` permanently: it knows no streams.
pub(crate) fn start_worker_in_batch<T>(start: impl FnOnce() -> T) -> T {
    // Since Linux 6.4 the worker is a thread of this process, and gets what the thread has that
    // starts it.
    set_sched_batch(true);
    let result = start();
    set_sched_batch(false);
    // Until then it is a thread of the kernel, which has a name, and which only root may change.
    if let Err(error) =
        kernel_workers().try_for_each(|worker| set_policy(worker, libc::SCHED_BATCH))
    {
        log::debug!("vhost's thread is scheduled as others: {error}");
    }
    result
}

/// The threads of the kernel that vhost has started for this process.
fn kernel_workers() -> impl Iterator<Item = libc::pid_t> {
    let name = format!("vhost-{}\n", std::process::id());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |process| {
        let number = process.file_name().to_str()?.parse().ok()?;
        (fs::read_to_string(process.path().join("comm")).ok()? == name).then_some(number)
    })
}

fn set_policy(thread: libc::pid_t, policy: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a value of this structure of integers.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives for the whole call.
    if unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_that_of_one_thread_while_there_is_a_stream() {
        let before = policy();
        let other = std::thread::spawn(move || {
            let policies = [true, true, false, false].map(|on| {
                set_sched_batch(on);
                policy()
            });
            let (batch, other) = (libc::SCHED_BATCH, libc::SCHED_OTHER);
            assert_eq!(policies, [batch, batch, other, other]);
        });
        other.join().unwrap();
        assert_eq!(policy(), before);
    }

    #[test]
    fn a_thread_that_takes_over_in_the_middle_of_a_stream_has_its_own_policy() {
        for _ in 0..2 {
            let one = std::thread::spawn(|| {
                set_sched_batch(true);
                policy()
            });
            assert_eq!(one.join().unwrap(), libc::SCHED_BATCH);
        }
    }

    #[test]
    fn a_policy_that_was_chosen_stays() {
        let chosen = std::thread::spawn(|| {
            set_policy(0, libc::SCHED_BATCH).unwrap();
            [true, false].map(|on| {
                set_sched_batch(on);
                policy()
            })
        });
        assert_eq!(chosen.join().unwrap(), [libc::SCHED_BATCH; 2]);
    }

    #[test]
    fn a_thread_that_is_started_inherits_the_policy_and_the_one_that_starts_it_keeps_its_own() {
        let before = policy();
        let other = start_worker_in_batch(|| std::thread::spawn(policy).join().unwrap());
        assert_eq!(other, libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
