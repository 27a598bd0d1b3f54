//! How the thread of a queue pair is scheduled.

/// This thread does not push others off their processor when it wakes up (`SCHED_BATCH`, sched(7)). With a processor to spare nothing
/// changes. Where there is none, it is mostly the guest that would be stopped: right after the first of many frames, which then
/// go one by one, with a notification, a system call and an acknowledgement each.
pub(crate) fn do_not_preempt() {
    // SAFETY: all zeros is a value of this structure of integers.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives for the whole call; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
        log::debug!("a network card's thread is scheduled as others: {}", std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_policy_is_that_of_one_thread() {
        // SAFETY: a call that only asks.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let other = std::thread::spawn(move || {
            super::do_not_preempt();
            policy()
        });
        assert_eq!(other.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
