//! Hardware counters of guests (perf_event_open(2), with the host excluded).
//!
//! A counter is opened by the thread that sets everything up, while it still has the right to, and
//! is inherited by the threads it starts: what it says is of all vCPUs of the process together.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd};

use nerite_hypervisor::CounterKind;

use crate::kick::{kick_signal, thread_id};

/// `struct perf_event_attr` of `<linux/perf_event.h>` in its first version, of 64 bytes, which
/// every kernel takes.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    breakpoint_address: u64,
}

const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_COUNT_HW_CPU_CYCLES: u64 = 0;
const PERF_COUNT_HW_INSTRUCTIONS: u64 = 1;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// Threads that are started later count, too.
const INHERIT: u64 = 1 << 1;
/// All the time or not at all: a share of the time would have to be extrapolated.
const PINNED: u64 = 1 << 2;
const EXCLUDE_HOST: u64 = 1 << 19;

/// A counter of the processor that runs only in guests.
#[derive(Debug)]
pub struct GuestCounter {
    file: File,
}

impl GuestCounter {
    /// Counts from now on in the guests of this thread, and of those that it will start. With
    /// `period`, each thread that has counted so much since the last time is signalled, if it asks
    /// for it (see [`Vcpu::kick_at_overflow`](nerite_hypervisor::Vcpu::kick_at_overflow)).
    ///
    /// # Errors
    /// If the processor has no such counter, as in most virtual machines, or this user may not
    /// count (Linux's `perf_event_paranoid`).
    pub fn open(kind: CounterKind, period: Option<u64>) -> io::Result<Self> {
        let config = match kind {
            CounterKind::Instructions => PERF_COUNT_HW_INSTRUCTIONS,
            CounterKind::Cycles => PERF_COUNT_HW_CPU_CYCLES,
        };
        Self::event(PERF_TYPE_HARDWARE, config, period, INHERIT | PINNED | EXCLUDE_HOST)
    }

    fn event(kind: u32, config: u64, period: Option<u64>, flags: u64) -> io::Result<Self> {
        let attributes = Attributes {
            kind,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
            config,
            // The kernel takes 63 bits.
            sample_period: period.unwrap_or(0).min(i64::MAX.cast_unsigned()),
            sample_type: 0,
            read_format: 0,
            flags,
            wakeup_events: 0,
            breakpoint_kind: 0,
            breakpoint_address: 0,
        };
        // SAFETY: the structure is live, of the kernel's layout, and says its size; the kernel may
        // write the size it knows into it when it refuses, which `addr_of!` of a local allows. This
        // thread, any processor, no group.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                std::ptr::from_ref(&attributes),
                0,
                -1,
                -1,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the descriptor was just made, is open, and nothing else owns it.
        let counter = Self { file: unsafe { File::from_raw_fd(fd) } };
        if period.is_some() {
            counter.set(libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
            counter.set(F_SETSIG, kick_signal())?;
        }
        Ok(counter)
    }

    fn set(&self, command: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the descriptor is open, and these commands take a number.
        let set = unsafe { libc::fcntl(self.file.as_raw_fd(), command, value) };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl nerite_hypervisor::GuestCounter for GuestCounter {
    fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.file).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn signal_this_thread(&self) -> io::Result<()> {
        let owner = Owner { kind: F_OWNER_TID, id: thread_id() };
        // SAFETY: the descriptor is open, and the kernel reads a structure of this layout.
        let set =
            unsafe { libc::fcntl(self.file.as_raw_fd(), F_SETOWN_EX, std::ptr::from_ref(&owner)) };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// `<fcntl.h>`: which signal says that a descriptor is ready, and which thread gets it.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// `struct f_owner_ex`.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

#[cfg(test)]
mod tests {
    use nerite_hypervisor::GuestCounter as _;
    use nerite_testkit::skip;

    use super::*;

    /// A counter that every host has: `PERF_COUNT_SW_PAGE_FAULTS`. Not every user may open it.
    fn page_faults(period: Option<u64>) -> Option<GuestCounter> {
        let counter = GuestCounter::event(1, 2, period, 0);
        counter
            .inspect_err(|error| skip(&format!("this user may not count page faults: {error}")))
            .ok()
    }

    /// Touches pages that were never touched before.
    fn touch(pages: usize) {
        let mut memory = vec![0_u8; pages * 4096];
        for page in memory.chunks_mut(4096) {
            page[0] = 1;
        }
        // So that the next ones are new, too.
        std::mem::forget(memory);
    }

    #[test]
    fn counters_count() {
        let Some(counter) = page_faults(None) else { return };
        let before = counter.read().unwrap();
        touch(2000);
        let after = counter.read().unwrap();
        assert!(after > before, "{before}, {after}");
    }

    #[test]
    fn a_counter_of_the_processor_is_there_or_an_error_says_why() {
        for counted in [CounterKind::Instructions, CounterKind::Cycles] {
            match GuestCounter::open(counted, Some(1 << 40)) {
                Ok(counter) => {
                    // No guest ran on this thread.
                    assert_eq!(counter.read().unwrap(), 0);
                    counter.signal_this_thread().unwrap();
                }
                Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
            }
        }
    }

    #[test]
    #[ignore = "needs a KVM"]
    fn an_overflow_kicks_the_vcpu_that_the_thread_runs() {
        use nerite_hypervisor::{Entry, Exit, Vcpu as _};

        let system = crate::System::open().unwrap();
        // jmp $
        let mut vcpu = crate::probe::set_up(&system, &[0xeb, 0xfe]).unwrap();
        let period = 100;
        let Some(counter) = page_faults(Some(period)) else { return };
        vcpu.kick_at_overflow(&counter).unwrap();
        let before = counter.read().unwrap();
        for _ in 0..20 {
            touch(50);
        }
        assert!(counter.read().unwrap() > before + 2 * period);
        let kicker = vcpu.kicker();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(10));
            kicker.kick();
        });
        // The signal has come, and the guest, which would spin forever, is not entered.
        let start = std::time::Instant::now();
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "no signal came");
    }
}
