//! For tests: golden files and hostile states.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "test support; a failure is what it looks for"
)]

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads the state in a golden file of a test, relative to its crate. With `NERITE_WRITE_GOLDEN` in
/// the environment, `state` is written there first.
///
/// # Panics
/// If the file does not hold such a state any more.
pub fn golden<S: Serialize + DeserializeOwned>(path: impl AsRef<Path>, state: &S) -> S {
    let path = path.as_ref();
    if std::env::var_os("NERITE_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(state).expect("a state");
        fs::write(path, text + "\n").expect("a golden file");
    }
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The state as it is after a way through text.
///
/// # Panics
/// If it does not come back.
pub fn through_json<S: Serialize + DeserializeOwned>(state: &S) -> S {
    let text = serde_json::to_string(state).expect("a state");
    serde_json::from_str(&text).expect("the same state")
}

/// A change of a state: of which value, which one, and how.
pub type Mutation = (u16, u8, u64);

/// A state with unchecked changes, if it still is one.
///
/// # Panics
/// If `state` cannot be serialized.
pub fn mutated<S: Serialize + DeserializeOwned>(state: &S, mutations: &[Mutation]) -> Option<S> {
    let mut value = serde_json::to_value(state).expect("a state");
    for mutation in mutations {
        mutate(&mut value, *mutation);
    }
    serde_json::from_value(value).ok()
}

fn mutate(root: &mut Value, (position, kind, number): Mutation) {
    let mut at = usize::from(position).checked_rem(count(root)).unwrap_or_default();
    let Some(value) = find(root, &mut at) else { return };
    *value = match (kind % 8, &mut *value) {
        (0, _) => json!(number),
        (1, _) => json!(number & 0xffff),
        (2, _) => Value::Null,
        (3, Value::Number(old)) => {
            json!(
                old.as_u64().unwrap_or_default()
                    ^ 1_u64.wrapping_shl((number & 63).try_into().unwrap_or(0))
            )
        }
        (3, Value::Bool(old)) => json!(!*old),
        (4, Value::Number(old)) => json!(old.as_u64().unwrap_or_default().wrapping_add(number & 3)),
        (_, Value::String(text)) => {
            let at = usize::try_from(number)
                .unwrap_or_default()
                .checked_rem(text.len())
                .unwrap_or_default();
            let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
            match kind % 3 {
                0 => json!(head),
                1 => json!(format!("{head}00{tail}")),
                _ => {
                    json!(format!("{head}{:x}{}", number >> 60, tail.get(1..).unwrap_or_default()))
                }
            }
        }
        (5, Value::Array(items)) => {
            items.pop();
            return;
        }
        (6, Value::Array(items)) => {
            let last = items.last().cloned().unwrap_or(json!(number));
            items.extend(std::iter::repeat_n(last, usize::from(kind)));
            return;
        }
        (7, Value::Array(items)) => {
            items.reverse();
            return;
        }
        _ => return,
    };
}

/// Number of values in a value, itself included.
fn count(value: &Value) -> usize {
    let inner: usize = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    };
    inner.saturating_add(1)
}

/// The value `at` values further on.
fn find<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    let Some(left) = at.checked_sub(1) else { return Some(value) };
    *at = left;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| find(field, at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_can_be_changed() {
        let state = json!({ "a": [1, true], "b": { "c": "00" } });
        let changed = |at| mutated::<Value>(&state, &[(at, 0, 7)]).unwrap();
        let all: Vec<_> = (0..6).map(changed).collect();
        assert_eq!(all[0], json!(7));
        assert_eq!(all[2], json!({ "a": [7, true], "b": { "c": "00" } }));
        assert_eq!(all[5], json!({ "a": [1, true], "b": { "c": 7 } }));
        assert_eq!(changed(6), all[0]);
    }
}
