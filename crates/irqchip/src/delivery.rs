//! Delivery of messages to the local APICs of a machine (Intel SDM vol. 3, 12.6.2).

use crate::apic::LocalApic;
use crate::message::{Delivery, Message, Target};

/// The local APICs of a machine, however they are kept: in a vector, or each behind a lock of its
/// own.
///
/// vCPU n has the APIC with the initial ID n.
pub trait LocalApics {
    /// Number of APICs.
    fn count(&self) -> u32;

    /// Calls `act` with the APIC of a vCPU; `None` if there is no such vCPU.
    fn with<T>(&mut self, vcpu: u32, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T>;

    /// Wakes a vCPU, which has something to take: it leaves HLT or guest code and looks.
    fn wake(&mut self, vcpu: u32);
}

/// Delivers a message to the APICs that it addresses, and wakes their vCPUs. Returns `true` if one
/// of them accepted it.
///
/// A lowest-priority interrupt goes to one of the enabled APICs addressed, chosen by its vector, as
/// KVM does it: the same one each time, without looking at priorities that vCPUs change while they
/// run.
pub fn deliver(apics: &mut impl LocalApics, message: &Message) -> bool {
    match message.delivery {
        Delivery::LowestPriority(vector) => match choose(apics, message, vector) {
            Some(vcpu) => give(apics, vcpu, message),
            None => false,
        },
        _ => match direct(apics, message) {
            Some(vcpu) => give(apics, vcpu, message),
            None => {
                let count = apics.count();
                let accepts =
                    |vcpu: &u32| is_addressed(apics, *vcpu, message) && give(apics, *vcpu, message);
                (0..count).filter(accepts).count() > 0
            }
        },
    }
}

/// The one vCPU that a message is for, where that shows without asking all.
fn direct(apics: &mut impl LocalApics, message: &Message) -> Option<u32> {
    let vcpu = match message.target {
        Target::Physical(id) => id,
        Target::Sender => message.sender?,
        Target::Logical(_) | Target::All | Target::Others => return None,
    };
    is_addressed(apics, vcpu, message).then_some(vcpu)
}

fn is_addressed(apics: &mut impl LocalApics, vcpu: u32, message: &Message) -> bool {
    apics.with(vcpu, |apic| apic.is_addressed(message)).unwrap_or(false)
}

fn give(apics: &mut impl LocalApics, vcpu: u32, message: &Message) -> bool {
    let accept = |apic: &mut LocalApic| apic.accept(message.delivery, message.is_level);
    let is_accepted = apics.with(vcpu, accept).unwrap_or(false);
    if is_accepted {
        apics.wake(vcpu);
    }
    is_accepted
}

fn choose(apics: &mut impl LocalApics, message: &Message, vector: u8) -> Option<u32> {
    let is_candidate = |apics: &mut _, vcpu: &u32| {
        let ask = |apic: &mut LocalApic| apic.is_addressed(message) && apic.is_enabled();
        LocalApics::with(apics, *vcpu, ask).unwrap_or(false)
    };
    let count = (0..apics.count()).filter(|vcpu| is_candidate(apics, vcpu)).count();
    let place = usize::from(vector).checked_rem(count)?;
    // Should there be fewer by now, the message is for the last one.
    (0..apics.count()).filter(|vcpu| is_candidate(apics, vcpu)).take(place.saturating_add(1)).last()
}
