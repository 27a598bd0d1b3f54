//! Attending to a machine whose vCPUs have threads of their own.

use super::*;

/// Progress of a partial line on its way out.
#[derive(Debug, Clone, Copy)]
enum PartialLine {
    /// There is none.
    None,
    /// Its end may come within the grace period.
    Waits,
    /// The sink has not taken it.
    Blocked,
}

/// The shortest time to wait for a timer of the platform.
const TIMER_STEP: Duration = Duration::from_millis(1);

fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(two).min()
}

impl Running {
    /// Ends the machine when `stop` or the time says so; meanwhile writes partial lines that have
    /// waited long enough.
    pub(super) fn attend(&mut self, stop: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let mut partial_line = PartialLine::None;
        let mut clock = self.platform.output_clock();
        let timer = self.platform.timer();
        loop {
            let ended = self.handle.shared.stop.as_fd();
            let mut polled = vec![PollFd::from_borrowed_fd(ended, PollFlags::IN)];
            // It stays readable.
            let stop = stop.filter(|_| self.stop_at.is_none());
            polled.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
            let looks = clock.as_ref().and_then(|clock| Instant::now().checked_add(clock.wait()));
            let mut wake = earlier(looks, self.next_look());
            match partial_line {
                PartialLine::None => {
                    polled.push(PollFd::from_borrowed_fd(
                        self.environment.console.watch().map_err(Error::Output)?,
                        PollFlags::IN,
                    ));
                }
                PartialLine::Waits => {
                    wake = earlier(wake, Instant::now().checked_add(Console::GRACE))
                }
                PartialLine::Blocked => {
                    polled.extend(self.environment.console.sink().map(writable))
                }
            }
            let moment_at = polled.len();
            polled.extend(
                self.moment
                    .as_ref()
                    .map(|moment| PollFd::from_borrowed_fd(moment.events.fd(), PollFlags::IN)),
            );
            let reset_at = polled.len();
            polled.extend(
                self.restart.as_ref().map(|restart| {
                    PollFd::from_borrowed_fd(restart.resets().as_fd(), PollFlags::IN)
                }),
            );
            polled.extend(
                self.planned.as_ref().map(|it| PollFd::from_borrowed_fd(it.fd(), PollFlags::IN)),
            );
            let timer_at = polled.len();
            polled.extend(
                timer
                    .as_ref()
                    .map(|timer| PollFd::from_borrowed_fd(timer.changed(), PollFlags::IN)),
            );
            let due = timer.as_ref().and_then(|timer| timer.due()).and_then(|due| {
                // A clock of the guest's own may stand still meanwhile.
                Instant::now().checked_add(due.max(TIMER_STEP))
            });
            let wake = earlier(wake, due);
            let left = wake.map(|wake| wake.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let ready = match poll(&mut polled, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.map_err(Error::host("waiting for the machine"))?,
            };
            let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            if is_ready(0) {
                return Ok(());
            }
            if stop.is_some() && is_ready(1) {
                self.stop_at = self.press_power_button();
                if self.stop_at.is_none() {
                    self.handle.shared.finish(None, Ok(End::Stopped));
                    return Ok(());
                }
            }
            let (has_come, has_reset) = (is_ready(moment_at), is_ready(reset_at));
            if let Some(timer) = &timer {
                if is_ready(timer_at) {
                    timer.acknowledge();
                }
                timer.serve();
            }
            self.look_at_moment(self.moment.is_some() && has_come);
            if let Some(restart) = &mut self.restart {
                restart.restart_if_due(&self.handle, has_reset)?;
            }
            self.planned = self.planned.take().and_then(|it| it.make_if_due(&self.handle));
            if self.look() {
                return Ok(());
            }
            if let Some(clock) = &mut clock {
                let found = self.platform.collect_coalesced(false);
                clock.looked(found);
                if ready == 0
                    && !found
                    && matches!(partial_line, PartialLine::None | PartialLine::Blocked)
                {
                    continue;
                }
                // Output that was collected has waited for its time already.
                if found {
                    partial_line = PartialLine::Waits;
                }
            }
            partial_line = match partial_line {
                PartialLine::Waits
                    if self.environment.console.flush().map_err(Error::Output)? =>
                {
                    PartialLine::None
                }
                PartialLine::Waits => PartialLine::Blocked,
                other if ready == 0 => other,
                PartialLine::None | PartialLine::Blocked => PartialLine::Waits,
            };
        }
    }

    /// Presses the power button if the guest is to be stopped by that, and returns the time at
    /// which it is stopped otherwise.
    fn press_power_button(&self) -> Option<Instant> {
        let time = self.graceful_stop?;
        log::info!("the power button is pressed; the guest has {time:?} to power itself off");
        if self.handle.press_power_button() { Instant::now().checked_add(time) } else { None }
    }

    /// Time of the next check for an expired time limit or a permanently halted guest.
    fn next_look(&self) -> Option<Instant> {
        // The first vCPU ends the machine itself, unless it is waiting for the host.
        let late = self.deadline.and_then(|deadline| deadline.checked_add(KICK_AGAIN));
        let restart = self.restart.as_ref().and_then(Restart::due);
        let planned = self.planned.as_ref().and_then(Planned::due);
        let due = earlier(earlier(self.due, restart), earlier(self.stop_at, planned));
        earlier(due, earlier(late, self.halts.as_ref().map(HaltWatch::next)))
    }

    /// Does what is due if a vCPU has come to the moment, or its time has.
    fn look_at_moment(&mut self, has_come: bool) {
        if !has_come && self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.due = None;
        if let Some(moment) = self.moment.take() {
            moment.come(&self.handle, self.functions.as_ref());
        }
    }

    /// Ends the machine if its time is up or the guest has halted permanently.
    fn look(&mut self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.handle.shared.finish(Some(0), Ok(End::TimeLimit));
            return true;
        }
        if self.stop_at.is_some_and(|stop_at| Instant::now() >= stop_at) {
            self.handle.shared.finish(None, Ok(End::Stopped));
            return true;
        }
        let handle = &self.handle;
        // One that does not answer waits for the host, and will continue.
        let is_halted = |index| matches!(handle.ask(index, halts::is_halted), Ok(Ok(true)));
        let all_halted = || (0..handle.vcpu_count()).all(is_halted);
        let halted = self.halts.as_mut().is_some_and(|halts| halts.look(all_halted));
        if halted && self.holds_crashes {
            log::warn!("the guest has halted, and nothing can wake it; it is left for GDB");
            self.halts = None;
            return false;
        }
        if halted {
            self.handle.shared.finish(Some(0), Ok(End::Halted));
        }
        halted
    }
}

#[cfg(test)]
#[path = "attend_test.rs"]
mod tests;
