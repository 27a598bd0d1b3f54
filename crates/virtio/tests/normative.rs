//! The table of what virtio 1.2 demands names tests that exist.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The cells of the table's rows: section, requirement, tests.
fn rows(table: &str) -> impl Iterator<Item = [&str; 3]> {
    table.lines().filter(|line| line.starts_with("| ")).skip(1).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("not three cells: {line}"))
    })
}

/// File and name of a test.
fn parts(test: &str) -> Option<(&str, &str)> {
    test.strip_prefix('`')?.strip_suffix('`')?.split_once("::")
}

#[test]
fn every_requirement_has_a_test_that_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sections = BTreeSet::new();
    let mut count = 0;
    for [section, requirement, tests] in rows(include_str!("normative.md")) {
        assert!(!requirement.is_empty(), "{section}");
        for test in tests.split(", ") {
            let (file, name) = parts(test).unwrap_or_else(|| panic!("{section}: no test: {test}"));
            let path = crates.join(file);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            let found = text.split("#[test]").skip(1).any(|after| {
                let first = after.lines().map(str::trim).find(|line| line.contains("fn "));
                first.is_some_and(|line| line.starts_with(&format!("fn {name}(")))
            });
            assert!(found, "{section} {requirement}: there is no test {name} in {file}");
        }
        sections.insert(section.to_owned());
        count += 1;
    }
    // One of each chapter at least: an empty table proves nothing.
    for chapter in ["2.", "4.1", "5.1.", "5.2.", "5.3.", "5.4.", "5.5.", "5.10.", "6."] {
        assert!(sections.iter().any(|section| section.starts_with(chapter)), "chapter {chapter}");
    }
    assert!(count > 90, "{count} requirements");
}
