use nerite_bus::Width;
use nerite_hypercall::file::{O_CREAT, O_RDWR};
use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use proptest::prelude::*;

use super::*;
use crate::testing::Guest;

const LOADED: LoadedKernel =
    LoadedKernel { entry: 0x1_0000_1000, start: 0x1_0000_0000, end: 0x1_0010_0000, tls: None };

/// A guest that has begun a line, selected a PCI register and made a file.
fn busy() -> Guest {
    let guest = Guest::new();
    guest.calls().console.put(b'>').unwrap();
    guest.shared.ports.write(0xcf8, Width::new(4).unwrap(), 0x8000_0804);
    assert_eq!(guest.calls().files.open(b"/tmp/file", O_CREAT | O_RDWR, 0o600), Ok(3));
    guest
}

#[test]
fn a_guest_goes_on_as_it_was() {
    let state = through_json(&HermitState::of(&LOADED, &busy().shared).unwrap());
    assert_eq!(state.loaded().unwrap(), LOADED);
    let mut after = Guest::new();
    state.restore(&after.shared, OnChanged::Refuse).unwrap();
    assert_eq!(HermitState::of(&LOADED, &after.shared).unwrap(), state);
    assert_eq!(after.shared.ports.read(0xcf8, Width::new(4).unwrap()), 0x8000_0804);
    assert_eq!(after.calls().files.seek(3, 0, 0), Ok(0));
    after.calls().console.flush().unwrap();
    assert_eq!(after.shown(), b">");
}

#[test]
fn states_of_version_1_can_be_restored() {
    let saved = golden("src/state_v1.json", &HermitState::of(&LOADED, &busy().shared).unwrap());
    let guest = Guest::new();
    saved.restore(&guest.shared, OnChanged::Refuse).unwrap();
    assert_eq!(HermitState::of(&LOADED, &guest.shared).unwrap(), saved);
}

#[test]
fn a_kernel_that_has_no_place_is_refused() {
    let state = HermitState::of(&LOADED, &busy().shared).unwrap();
    for (version, kernel_start, kernel_end, entry) in
        [(2, 0, 2, 1), (1, 2, 2, 2), (1, 5, 2, 3), (1, 0, 2, 2), (1, 1, 2, 0)]
    {
        let state = HermitState { version, kernel_start, kernel_end, entry, ..state.clone() };
        assert!(state.loaded().is_err(), "{state:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let state = HermitState::of(&LOADED, &busy().shared).unwrap();
        if let Some(saved) = mutated(&state, &mutations) {
            let guest = Guest::new();
            let _ = saved.loaded();
            if saved.restore(&guest.shared, OnChanged::Eio).is_ok() {
                HermitState::of(&LOADED, &guest.shared).unwrap();
            }
        }
    }
}
