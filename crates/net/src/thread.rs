//! How the thread of a queue pair is scheduled.

use std::fs;
use std::io;

/// This thread does not push others off their processor when it wakes up (`SCHED_BATCH`, sched(7)). With a processor to spare nothing
/// changes. Where there is none, it is mostly the guest that would be stopped: right after the first of many frames, which then
/// go one by one, with a notification, a system call and an acknowledgement each.
pub(crate) fn do_not_preempt() {
    // 0 is this thread.
    if let Err(error) = set_policy(0, libc::SCHED_BATCH) {
        log::debug!("a network card's thread is scheduled as others: {error}");
    }
}

/// Does something that has the host's kernel start a thread for this process, a vhost worker, and has that thread scheduled in the same way.
pub(crate) fn do_not_preempt_in<T>(start: impl FnOnce() -> T) -> T {
    // Since Linux 6.4 the worker is a thread of this process, and gets what the thread has that starts it.
    // SAFETY: a call that only asks.
    let before = unsafe { libc::sched_getscheduler(0) };
    do_not_preempt();
    let result = start();
    if let Err(error) = set_policy(0, before) {
        log::debug!("the policy of a thread cannot be restored: {error}");
    }
    // Until then it is a thread of the kernel, which has a name, and which only root may change.
    if let Err(error) = kernel_workers().try_for_each(|worker| set_policy(worker, libc::SCHED_BATCH)) {
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

    fn policy() -> libc::c_int {
        // SAFETY: a call that only asks.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn the_policy_is_that_of_one_thread() {
        let before = policy();
        let other = std::thread::spawn(move || {
            do_not_preempt();
            policy()
        });
        assert_eq!(other.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }

    #[test]
    fn a_thread_that_is_started_inherits_the_policy_and_the_one_that_starts_it_keeps_its_own() {
        let before = policy();
        let other = do_not_preempt_in(|| std::thread::spawn(policy).join().unwrap());
        assert_eq!(other, libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
