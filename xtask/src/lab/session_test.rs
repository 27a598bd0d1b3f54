use super::*;
use crate::job::Ending;

struct Fake(&'static str);

impl Console for Fake {
    fn log(&self) -> String {
        self.0.to_owned()
    }

    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn state(&self) -> String {
        String::new()
    }
}

/// Follows a lab that sends these frames and then closes its line: how that ended, what came of
/// its two jobs, and what was sent to it.
fn follow(
    console: &'static str,
    frames: &[(Kind, usize, &str)],
) -> (Result<(), Freeze>, [Option<Outcome>; 2], String) {
    let (sender, receiver) = mpsc::channel();
    for (kind, job, payload) in frames {
        sender
            .send(Frame { kind: *kind, job: *job, payload: payload.as_bytes().to_vec() })
            .unwrap();
    }
    drop(sender);
    let mut outcomes = [None, None];
    let mut told = Vec::new();
    let jobs = [Job { timeout: 9, ..Job::default() }, Job { timeout: 9, ..Job::default() }];
    let mut report = |report: Report<'_>| {
        if let Report::Finished(job, outcome) = report {
            outcomes[job] = Some(outcome.clone());
        }
    };
    let result =
        Watch::new(receiver, &mut told, Fake(console)).follow(&jobs, &Queue::new(2), &mut report);
    (result, outcomes, String::from_utf8(told).unwrap())
}

const END: &str = "ending = { Exited = 7 }\nmilliseconds = 12";

#[test]
fn what_a_job_said_is_kept_with_how_it_ended() {
    let frames = [
        (Kind::Ready, 0, "6.1"),
        (Kind::Start, 0, ""),
        (Kind::End, 0, END),
        (Kind::Start, 1, ""),
        (Kind::Out, 1, "a"),
        (Kind::Err, 1, "x"),
        (Kind::Beat, 0, ""),
        (Kind::Out, 1, "b"),
        (Kind::End, 1, END),
        (Kind::Done, 0, ""),
    ];
    let (result, [first, second], told) = follow("Linux version 6.1", &frames);
    result.unwrap();
    assert_eq!((first.unwrap().stdout, told.as_str()), (Vec::new(), "0\n1\ndone\n"));
    let second = second.unwrap();
    assert_eq!((second.stdout.as_slice(), second.stderr.as_slice()), (&b"ab"[..], &b"x"[..]));
    assert_eq!((&second.ending, second.time), (&Ending::Exited(7), Duration::from_millis(12)));
}

#[test]
fn a_lab_that_ends_in_the_middle_keeps_what_is_done() {
    let frames =
        [(Kind::Ready, 0, ""), (Kind::Start, 0, ""), (Kind::End, 0, END), (Kind::Start, 1, "")];
    let (result, [first, second], _) = follow("", &frames);
    let freeze = result.unwrap_err();
    assert!(freeze.why.contains("ended by itself") && freeze.job == Some(1));
    assert!(first.is_some() && second.is_none());
}

#[test]
fn a_kernel_that_is_stuck_is_a_frozen_lab() {
    let console = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!";
    let frames = [(Kind::Ready, 0, ""), (Kind::Start, 0, ""), (Kind::Beat, 0, "")];
    let freeze = follow(console, &frames).0.unwrap_err();
    assert!(freeze.why.contains("soft lockup") && freeze.log.contains("CPU#0"));
    assert_eq!(freeze.job, Some(0));
}

#[test]
fn a_lab_whose_clock_runs_away_is_frozen() {
    let end = "ending = { Exited = 0 }\nmilliseconds = 30000";
    let frames = [(Kind::Ready, 0, ""), (Kind::Start, 0, ""), (Kind::End, 0, end)];
    let (result, [first, _], _) = follow("", &frames);
    let freeze = result.unwrap_err();
    assert!(freeze.why.contains("30.0 s have passed in 0.0 s"), "{}", freeze.why);
    assert!(first.is_none() && freeze.job == Some(0));
}

#[test]
fn a_garbled_report_is_not_believed() {
    let frames = [(Kind::Ready, 0, ""), (Kind::Start, 0, ""), (Kind::End, 0, "ending = 3")];
    let (result, [first, _], _) = follow("", &frames);
    let freeze = result.unwrap_err();
    assert!(freeze.why.contains("garbled") && first.is_none() && freeze.job == Some(0));
}

#[test]
fn a_long_console_is_cut_to_its_end() {
    let log: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let tail = tail(&log.join("\n"));
    assert!(tail.starts_with("40\n") && tail.ends_with("\n99"));
}
