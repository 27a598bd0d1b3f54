//! How the thread of a queue pair is scheduled.

use std::cell::Cell;
use std::fs;
use std::io;

thread_local! {
    static MANNERS: Cell<Manners> = const { Cell::new(Manners::Ordinary) };
}

/// How this thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// As any other.
    Ordinary,
    /// It lets others be, since it was asked to here.
    LetsBe,
    /// As somebody else chose.
    Chosen,
}

/// Whether this thread lets others be, or pushes them off their processor when it wakes up, as
/// threads do. While the driver sends a stream, it lets them be (`SCHED_BATCH`, sched(7)).
///
/// With a processor to spare this changes nothing. Where there is none, it is mostly the guest that
/// would be stopped: right after the first of many frames, which then go one by one, with a
/// notification, a system call and an acknowledgement each. But what is no stream is sent at once,
/// or whoever waits for an answer waits for the guest's time on the processor to run out.
///
/// Only a thread with the ordinary policy changes it. What is so already costs nothing.
pub(crate) fn let_others_be(on: bool) {
    let wanted = if on { Manners::LetsBe } else { Manners::Ordinary };
    let now = MANNERS.get();
    if now == wanted || now == Manners::Chosen {
        return;
    }
    if on && policy() != libc::SCHED_OTHER {
        return MANNERS.set(Manners::Chosen);
    }
    // 0 is this thread.
    match set_policy(0, if on { libc::SCHED_BATCH } else { libc::SCHED_OTHER }) {
        Ok(()) => MANNERS.set(wanted),
        Err(error) => {
            log::debug!("a network card's thread is scheduled as before: {error}");
            MANNERS.set(Manners::Chosen);
        }
    }
}

fn policy() -> libc::c_int {
    // SAFETY: a call that only asks.
    unsafe { libc::sched_getscheduler(0) }
}

/// Does something that has the host's kernel start a thread for this process, a vhost worker, and
/// has that thread always let others be: nobody tells it of streams.
pub(crate) fn do_not_preempt_in<T>(start: impl FnOnce() -> T) -> T {
    // Since Linux 6.4 the worker is a thread of this process, and gets what the thread has that
    // starts it.
    let_others_be(true);
    let result = start();
    let_others_be(false);
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

    #[test]
    fn the_policy_is_that_of_one_thread_while_there_is_a_stream() {
        let before = policy();
        let other = std::thread::spawn(move || {
            let policies = [true, true, false, false].map(|on| {
                let_others_be(on);
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
                let_others_be(true);
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
                let_others_be(on);
                policy()
            })
        });
        assert_eq!(chosen.join().unwrap(), [libc::SCHED_BATCH; 2]);
    }

    #[test]
    fn a_thread_that_is_started_inherits_the_policy_and_the_one_that_starts_it_keeps_its_own() {
        let before = policy();
        let other = do_not_preempt_in(|| std::thread::spawn(policy).join().unwrap());
        assert_eq!(other, libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
