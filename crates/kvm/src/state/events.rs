//! Exceptions and interrupts that a vCPU has yet to take.

use kvm_bindings::{KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_vcpu_events};
use nerite_hypervisor::{PendingEvents, PendingException};

pub(super) fn events_from_kvm(events: &kvm_vcpu_events) -> PendingEvents {
    let exception = &events.exception;
    // An exception that was injected and one that is pending are the same between two
    // instructions; KVM has put the payload into CR2 or DR6.
    let has_exception = exception.injected != 0 || exception.pending != 0;
    let interrupt = &events.interrupt;
    let is_injected = events.nmi.injected != 0;
    PendingEvents {
        exception: has_exception.then(|| PendingException {
            vector: exception.nr,
            error: (exception.has_error_code != 0).then_some(exception.error_code),
        }),
        interrupt: (interrupt.injected != 0 && interrupt.soft == 0).then_some(interrupt.nr),
        nmis: u8::from(is_injected).saturating_add(events.nmi.pending.min(2)).min(2),
        // One that was injected and not delivered has masked the others already.
        nmi_masked: events.nmi.masked != 0 && !is_injected,
        shadow: interrupt.shadow != 0,
    }
}

pub(super) fn events_to_kvm(events: &PendingEvents) -> kvm_vcpu_events {
    let mut state = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    if let Some(exception) = events.exception {
        state.exception.injected = 1;
        state.exception.nr = exception.vector;
        state.exception.has_error_code = exception.error.is_some().into();
        state.exception.error_code = exception.error.unwrap_or(0);
    }
    if let Some(vector) = events.interrupt {
        state.interrupt.injected = 1;
        state.interrupt.nr = vector;
    }
    state.nmi.pending = events.nmis;
    state.nmi.masked = events.nmi_masked.into();
    // KVM_X86_SHADOW_INT_STI; after a load of SS, which has the other one, it is as good.
    state.interrupt.shadow = if events.shadow { 2 } else { 0 };
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went() {
        let events = PendingEvents {
            exception: Some(PendingException { vector: 14, error: Some(6) }),
            interrupt: Some(0x41),
            nmis: 2,
            nmi_masked: true,
            shadow: true,
        };
        assert_eq!(events_from_kvm(&events_to_kvm(&events)), events);
        let none = PendingEvents::default();
        assert_eq!(events_from_kvm(&events_to_kvm(&none)), none);
    }

    #[test]
    fn an_nmi_that_is_not_delivered_masks_none() {
        let mut state = kvm_vcpu_events::default();
        (state.nmi.injected, state.nmi.masked, state.nmi.pending) = (1, 1, 1);
        let events = events_from_kvm(&state);
        assert_eq!((events.nmis, events.nmi_masked), (2, false));
    }
}
