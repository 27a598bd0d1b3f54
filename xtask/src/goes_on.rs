//! Guests that are saved and go on in another process: `tests/goes-on.sh`.

use std::fs;

use anyhow::{Context, Result};

use crate::paths;

/// Placeholder of the function in the scripts of tests.
const PLACE: &str = "{goes-on}";
/// Variable with the number of snapshots that a guest goes through; passed on to the tests.
pub(crate) const COUNT: &str = "NERITE_TEST_SNAPSHOTS";

/// The script of a test with the function in its place.
pub(crate) fn expand(script: &str) -> Result<String> {
    if !script.contains(PLACE) {
        return Ok(script.to_owned());
    }
    let path = paths::root().join("tests/goes-on.sh");
    let function =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(script.replace(PLACE, &function))
}

/// The number of snapshots, if it is given.
pub(crate) fn count() -> Option<(String, String)> {
    std::env::var(COUNT).ok().map(|count| (COUNT.to_owned(), count))
}

/// Seconds that the snapshots may take, if their number is given.
pub(crate) fn patience() -> u64 {
    let count = count().and_then(|(_, count)| count.parse::<u64>().ok());
    count.map_or(0, |count| count.saturating_mul(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_takes_its_place() {
        let script = expand("set -eu\n{goes-on}\ngoes_on vmm").unwrap();
        assert!(script.contains("\ngoes_on() {\n") && !script.contains(PLACE), "{script}");
        assert_eq!(expand("true").unwrap(), "true");
    }
}
