//! Checks what a package says about itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::paths;

/// Licence texts that each package has.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// Limits of the registry.
const MAX_KEYWORDS: usize = 5;
const MAX_KEYWORD: usize = 20;
/// Categories of the registry that this workspace uses. An unknown one is dropped without an error.
const CATEGORIES: [&str; 14] = [
    "api-bindings",
    "command-line-utilities",
    "development-tools::debugging",
    "development-tools::profiling",
    "emulators",
    "encoding",
    "filesystem",
    "hardware-support",
    "memory-management",
    "network-programming",
    "no-std::no-alloc",
    "os::linux-apis",
    "parser-implementations",
    "virtualization",
];

/// Checks the unpacked package `name` in `folder`.
pub(super) fn check(folder: &Path, name: &str) -> Result<()> {
    let text = fs::read_to_string(folder.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let manifest: toml::Table = text.parse().context("Cargo.toml is malformed")?;
    let package =
        manifest.get("package").and_then(toml::Value::as_table).context("no [package]")?;
    for licence in LICENCES {
        let read = |folder: &Path| {
            fs::read(folder.join(licence)).with_context(|| format!("cannot read {licence}"))
        };
        ensure!(read(folder)? == read(&paths::root())?, "{licence} is not that of the repository");
    }
    says_what_it_is(package, name)
}

fn says_what_it_is(package: &toml::Table, name: &str) -> Result<()> {
    let text = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or_default();
    let list = |key: &str| -> Vec<&str> {
        let values = package.get(key).and_then(toml::Value::as_array);
        values.into_iter().flatten().filter_map(toml::Value::as_str).collect()
    };
    ensure!(!text("description").is_empty(), "there is no description");
    ensure!(text("license") == "MIT OR Apache-2.0", "the licence is {:?}", text("license"));
    let documentation = format!("https://docs.rs/{name}");
    ensure!(text("documentation") == documentation, "documentation is not at {documentation}");
    let keywords = list("keywords");
    ensure!((1..=MAX_KEYWORDS).contains(&keywords.len()), "{} keywords", keywords.len());
    let fits = |word: &&str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte);
        word.len() <= MAX_KEYWORD
            && word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word.bytes().all(letters)
    };
    ensure!(keywords.iter().all(fits), "a keyword has no valid form: {keywords:?}");
    let categories = list("categories");
    ensure!(!categories.is_empty(), "there is no category");
    let unknown = categories.iter().find(|category| !CATEGORIES.contains(category));
    ensure!(unknown.is_none(), "unknown category {unknown:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        description = "Small parts"
        license = "MIT OR Apache-2.0"
        documentation = "https://docs.rs/nerite-parts"
        keywords = ["vmm", "x86-64"]
        categories = ["virtualization"]
    "#;

    fn result(from: &str, to: &str) -> Result<()> {
        assert!(GOOD.contains(from), "{from}");
        says_what_it_is(&GOOD.replace(from, to).parse().unwrap(), "nerite-parts")
    }

    #[test]
    fn what_a_registry_would_refuse_or_drop_is_an_error() {
        result("vmm", "kvm").unwrap();
        for (from, to) in [
            ("Small parts", ""),
            ("MIT OR Apache-2.0", "MIT"),
            ("nerite-parts", "other"),
            ("\"vmm\"", "\"a\", \"b\", \"c\", \"d\", \"e\""),
            ("x86-64", "two words"),
            ("x86-64", "a-word-of-more-than-twenty"),
            ("\"vmm\", \"x86-64\"", ""),
            ("virtualization", "virtualisation"),
        ] {
            assert!(result(from, to).is_err(), "{from} -> {to}");
        }
    }
}
