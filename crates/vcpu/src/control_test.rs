use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::debug::tests::Toy;

#[test]
fn a_question_that_was_given_up_is_not_answered_later() {
    let control = Control::new();
    let was_asked = Arc::new(AtomicBool::new(false));
    control.serving();
    let mark = was_asked.clone();
    let busy = control.ask(Duration::ZERO, move |_, _| mark.store(true, Ordering::Relaxed));
    assert_eq!(busy, Err(AskError::Busy));
    let mut toy = Toy::default();
    assert!(control.service_requests(&mut toy, RunState::Paused).is_continue());
    assert!(!was_asked.load(Ordering::Relaxed));
}

#[test]
fn a_question_is_answered_by_the_thread_of_the_vcpu() {
    let control = Control::new();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| control.ask(Duration::MAX, |vcpu, _| vcpu.index()));
        let mut toy = Toy::default();
        while !asked.is_finished() {
            assert!(control.service_requests(&mut toy, RunState::Paused).is_continue());
        }
        assert_eq!(asked.join().unwrap(), Ok(0));
    });
}
