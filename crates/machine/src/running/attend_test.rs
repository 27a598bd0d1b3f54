//! A guest that is to be stopped by its power button.

use super::*;
use crate::config::Config;
use crate::tiny_kernel::{Code, Guest, JZ, config};

/// A kernel that enables the power button's event, asks, waits until it is pressed, and powers off.
fn listener() -> Vec<u8> {
    let mut code = Code::default();
    code.add(&[0x66, 0xba, 0x02, 0x06, 0x66, 0xb8, 0, 1, 0x66, 0xef]); // out 0x602, 0x100
    code.ask();
    code.label("wait").add(&[0x66, 0xba, 0, 6, 0x66, 0xed, 0xf6, 0xc4, 1]).jump(JZ, "wait");
    code.add(&[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0, 0x34, 0x66, 0xef, 0xf4]); // out 0x604, S5
    code.kernel()
}

/// A kernel that asks, and then listens to nothing.
fn deaf() -> Vec<u8> {
    let mut code = Code::default();
    code.ask();
    code.label("again").add(&[0x31, 0xc0]).jump(JZ, "again");
    code.kernel()
}

fn graceful(time: Duration) -> Config {
    let mut config = config();
    config.observe.graceful_stop = Some(time);
    config
}

#[test]
fn the_power_button_lets_a_guest_power_off() {
    let mut guest = Guest::start(listener(), &config());
    guest.wait_for_question();
    assert!(guest.handle().press_power_button());
    assert!(matches!(guest.end().0, Outcome::PoweredOff));
}

#[test]
fn a_graceful_stop_presses_the_power_button() {
    let mut guest = Guest::start(listener(), &graceful(Duration::from_secs(600)));
    guest.wait_for_question();
    guest.stop();
    assert!(matches!(guest.end().0, Outcome::PoweredOff));
}

#[test]
fn a_guest_that_does_not_listen_is_stopped_in_time() {
    let mut guest = Guest::start(deaf(), &graceful(Duration::from_millis(30)));
    guest.wait_for_question();
    guest.stop();
    assert!(matches!(guest.end().0, Outcome::Stopped));
}

#[test]
fn without_a_grace_period_a_stop_is_one() {
    let mut guest = Guest::start(listener(), &config());
    guest.wait_for_question();
    guest.stop();
    assert!(matches!(guest.end().0, Outcome::Stopped));
}
