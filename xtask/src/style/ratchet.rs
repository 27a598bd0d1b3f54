//! Numbers of faults that may only fall, in `xtask/style.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::prose::Words;
use crate::paths;

/// Faults of a rule that are printed of a crate that has too many.
const SHOWN: usize = 40;

/// A place where the tree breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) rule: &'static str,
    /// Folder of the crate.
    pub(crate) package: String,
    /// File, with the line where there is one.
    pub(crate) place: String,
    pub(crate) what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.what, self.rule)
    }
}

/// Numbers by rule and crate.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Words with which no doc comment begins.
    openings: Vec<String>,
    /// Phrases that are not used.
    words: Vec<String>,
    /// Faults that there still are.
    faults: Counts,
}

/// The file, with the comment at its top.
#[derive(Debug)]
pub(crate) struct Ratchet {
    head: String,
    config: Config,
}

/// Numbers that have changed.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Lines about numbers that are too high.
    pub(crate) risen: Vec<String>,
    /// Lines about numbers that can be lowered.
    pub(crate) fallen: Vec<String>,
}

fn file() -> PathBuf {
    paths::root().join("xtask/style.toml")
}

impl Ratchet {
    pub(crate) fn load() -> Result<Self> {
        let path = file();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("bad file {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().take_while(|line| line.starts_with('#'));
        let head = lines.map(|line| format!("{line}\n")).collect();
        Ok(Self { head, config: toml::from_str(text)? })
    }

    /// Words that are not used.
    pub(crate) fn words(&self) -> Result<Words> {
        Words::new(self.config.openings.clone(), &self.config.words)
    }

    /// Compares the faults with the numbers. A crate that the file does not name yet may have what
    /// others have lost: code moves.
    pub(crate) fn judge(&self, faults: &[Fault]) -> Verdict {
        let mut verdict = Verdict::default();
        let found = count(faults);
        let none = BTreeMap::new();
        let total = |counts: Option<&BTreeMap<String, usize>>| {
            counts.map_or(0, |counts| counts.values().sum())
        };
        for rule in
            found.keys().chain(self.config.faults.keys().filter(|rule| !found.contains_key(*rule)))
        {
            let allowed = self.config.faults.get(rule).unwrap_or(&none);
            let now = found.get(rule).unwrap_or(&none);
            let (all, all_allowed): (usize, usize) = (total(Some(now)), total(Some(allowed)));
            let names = now.keys().chain(allowed.keys().filter(|name| !now.contains_key(*name)));
            for name in names {
                let count = now.get(name).copied().unwrap_or(0);
                let line = |limit| format!("{name}: {count} instead of {limit} ({rule})");
                match allowed.get(name) {
                    Some(&limit) if count > limit => {
                        verdict.risen.push(line(limit));
                        verdict.risen.extend(shown(faults, rule, name));
                    }
                    Some(&limit) if count < limit => verdict.fallen.push(line(limit)),
                    None if all > all_allowed => {
                        verdict.risen.push(line(0));
                        verdict.risen.extend(shown(faults, rule, name));
                    }
                    None => verdict.fallen.push(format!("{name}: {count}, new ({rule})")),
                    Some(_) => {}
                }
            }
        }
        verdict
    }

    /// Takes over numbers that are lower, and those of crates that are new where code has only
    /// moved.
    pub(crate) fn lower(&mut self, faults: &[Fault]) {
        let found = count(faults);
        let rules: Vec<String> = found.keys().chain(self.config.faults.keys()).cloned().collect();
        for rule in rules {
            let now = found.get(&rule).cloned().unwrap_or_default();
            let allowed = self.config.faults.entry(rule).or_default();
            let moved = now.values().sum::<usize>() <= allowed.values().sum::<usize>();
            for (name, limit) in allowed.iter_mut() {
                *limit = (*limit).min(now.get(name).copied().unwrap_or(0));
            }
            if moved {
                for (name, count) in now {
                    allowed.entry(name).or_insert(count);
                }
            }
            allowed.retain(|_, limit| *limit > 0);
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let path = file();
        fs::write(&path, self.text()?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> Result<String> {
        let mut text = self.head.clone();
        let _ = write!(text, "\n{}", toml::to_string(&self.config)?);
        Ok(text)
    }
}

fn count(faults: &[Fault]) -> Counts {
    let mut counts = Counts::new();
    for fault in faults {
        *counts
            .entry(fault.rule.to_owned())
            .or_default()
            .entry(fault.package.clone())
            .or_default() += 1;
    }
    counts
}

/// The faults of a rule in a crate.
fn shown<'a>(
    faults: &'a [Fault],
    rule: &'a str,
    package: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let wanted = faults.iter().filter(move |fault| fault.rule == rule && fault.package == package);
    wanted.take(SHOWN).map(|fault| format!("    {fault}"))
}

/// Folders of our crates.
pub(crate) fn packages(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("crates");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| format!("crates/{}", entry.file_name().to_string_lossy()))
        .collect();
    names.extend(["oci", "vmm", "xtask"].map(str::to_owned));
    names.retain(|name| root.join(name).join("src").is_dir());
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# One.\n# Two.\n\nopenings = [\"What\"]\nwords = [\"anyone\"]\n\n[faults.width]\n\"a\" = 2\n\"b\" = 1\n";

    fn faults(packages: &[&str]) -> Vec<Fault> {
        let fault = |package: &&str| Fault {
            rule: "width",
            package: (*package).to_owned(),
            place: "f:1".to_owned(),
            what: "wide".to_owned(),
        };
        packages.iter().map(fault).collect()
    }

    fn judge(packages: &[&str]) -> (Vec<String>, Vec<String>) {
        let verdict = Ratchet::parse(FILE).unwrap().judge(&faults(packages));
        (verdict.risen, verdict.fallen)
    }

    #[test]
    fn a_number_may_not_rise() {
        assert_eq!(judge(&["a", "a", "b"]), (vec![], vec![]));
        let (risen, fallen) = judge(&["a", "a", "b", "b"]);
        assert_eq!(
            risen,
            ["b: 2 instead of 1 (width)", "    f:1: wide (width)", "    f:1: wide (width)"]
        );
        assert!(fallen.is_empty());
    }

    #[test]
    fn a_number_that_falls_is_to_be_lowered() {
        assert_eq!(judge(&["a", "b"]), (vec![], vec!["a: 1 instead of 2 (width)".to_owned()]));
        let mut ratchet = Ratchet::parse(FILE).unwrap();
        ratchet.lower(&faults(&["a", "b", "b"]));
        let text = ratchet.text().unwrap();
        assert!(text.starts_with("# One.\n# Two.\n\nopenings = "), "{text}");
        assert!(text.ends_with("[faults.width]\na = 1\nb = 1\n"), "{text}");
        ratchet.lower(&[]);
        assert!(ratchet.config.faults["width"].is_empty());
    }

    #[test]
    fn a_new_crate_may_have_what_was_elsewhere() {
        assert_eq!(judge(&["c", "b"]).0, Vec::<String>::new());
        assert_eq!(
            judge(&["a", "a", "b", "c"]).0,
            ["c: 1 instead of 0 (width)", "    f:1: wide (width)"]
        );
        let mut ratchet = Ratchet::parse(FILE).unwrap();
        ratchet.lower(&faults(&["c", "b"]));
        assert_eq!(ratchet.config.faults["width"].get("c"), Some(&1));
    }

    #[test]
    fn the_file_of_this_repository_is_well_formed() {
        Ratchet::load().unwrap().words().unwrap();
    }
}
